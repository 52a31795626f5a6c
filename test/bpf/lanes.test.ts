/** Sessions of a peer's workers end at different workers, without an agent: kernel, listeners and sockets only. */
import { once } from 'node:events';
import net from 'node:net';
import test from 'ava';
import { parsePod } from '../../src/agent/index.ts';
import { agentPort } from '../../src/gen/layout.ts';
import { createPodSockets, duplicate, openKernel, removePrograms } from '../../src/kernel/index.ts';
import { openNetns } from '../../src/kernel/netns.ts';
import type { Address } from '../../src/mesh/index.ts';
import { enterCgroup } from '../contract/enter-cgroup.ts';
import { Lab } from '../lab/index.ts';
import { labOptions } from '../node/conversation.ts';

const workers = 3;

test('connections of as many lanes as the peer has workers are led to one each, and those of one lane to the same', async (t) => {
  const lab = await Lab.create('lanes', labOptions);
  t.teardown(() => lab.dispose());
  const node = await lab.node('n1');
  t.teardown(enterCgroup(node));
  const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers });
  t.teardown(() => removePrograms(node.bpffs));
  t.teardown(() => kernel.dispose());
  const place = await node.pod('pod');
  const client = openNetns((await node.pod('client')).netns);
  const pod = parsePod(place.request());
  const prepared = kernel.prepare(pod);
  kernel.capture(pod, prepared.cookie);
  const sockets = createPodSockets(node.bpffs);
  t.teardown(() => sockets.close());

  /** The listener at which a connection of a lane was accepted last. */
  let met = -1;
  const hbone = prepared.listeners.filter(({ port }) => port === agentPort.HBONE);
  t.is(hbone.length, workers);
  for (const [slot, { fd }] of hbone.entries()) {
    const server = net.createServer((accepted) => {
      met = slot;
      accepted.end();
    });
    t.teardown(() => server.close());
    server.listen({ fd: duplicate(fd) });
    await once(server, 'listening');
  }
  const slotOf = async (address: string, lane: number): Promise<number> => {
    const to = { address: address as Address, port: agentPort.HBONE };
    const socket = sockets.openOutbound(client.netnsFd, to, undefined, { resetOnDeath: false, lane });
    socket.connect({ host: to.address, port: to.port });
    // Both sides have ended when its end has come: nothing of the next one's is mixed up with it.
    await once(socket.resume(), 'end');
    await once(socket.end(), 'close');
    return met;
  };

  for (const address of [place.ipv4, place.ipv6]) {
    const slots: number[] = [];
    for (let lane = 0; lane < workers; lane += 1) slots.push(await slotOf(address, lane));
    t.deepEqual(slots.toSorted(), [0, 1, 2], address);
    for (const [lane, slot] of slots.entries())
      for (let again = 0; again < 4; again += 1) t.is(await slotOf(address, lane + workers * again), slot, address);
  }
});
