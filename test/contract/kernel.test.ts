import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import net from 'node:net';
import { basename, join } from 'node:path';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { parsePod } from '../../src/agent/index.ts';
import { limit } from '../../src/gen/layout.ts';
import { attachType } from '../../src/kernel/constants.ts';
import { createPodSockets, duplicate, type Kernel, openKernel, removePrograms } from '../../src/kernel/index.ts';
import { type Address, type Endpoint, encodeAddress, type NetnsCookie, type Pod } from '../../src/mesh/index.ts';
import { OUTBOUND_PORT } from '../../src/ztunnel/index.ts';
import { Lab, type LabPod } from '../lab/index.ts';
import { enterCgroup } from './enter-cgroup.ts';
import { podKernelContract } from './pod-kernel.ts';
import { accepting, podSocketsContract } from './pod-sockets.ts';
import { withoutDescriptors } from './without-descriptors.ts';

podKernelContract(test, 'the kernel', async () => {
  const lab = await Lab.create('the contract of PodKernel');
  const node = await lab.node('n1');
  const open = (): Kernel => openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 2 });
  let kernel = open();
  const places = new Map<string, LabPod>();
  return {
    kernel,
    async makePod() {
      const place = await node.pod(`p${places.size + 1}`);
      places.set(place.netns, place);
      return parsePod(place.request());
    },
    destroyNamespace: (pod) => placeOf(places, pod).delete(),
    async killListeners(pod) {
      const place = placeOf(places, pod);
      const destroy = ['python3', 'test/node/destroy.py', place.ipv4, '80', '203.0.113.9', '40000'];
      const { stdout, stderr } = await place.exec(destroy, { restricted: false });
      if (!stdout.includes('"destroyed": true')) throw new Error(`no listener was destroyed: ${stdout}${stderr}`);
    },
    async restart() {
      kernel.dispose();
      kernel = open();
      return kernel;
    },
    async pinned() {
      const pins = readdirSync(node.bpffs, { recursive: true, encoding: 'utf8' });
      return pins.filter((pin) => /\/pods\/\d+$/.test(pin)).map((pin) => BigInt(basename(pin)) as NetnsCookie);
    },
    async dispose() {
      kernel.dispose();
      removePrograms(node.bpffs);
      await lab.dispose();
    },
  };
});

test.serial('the kernel does not take a pod that it cannot look at for gone', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pod = parsePod((await node.pod('pod')).request());
  const options = { cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 };
  const earlier = openKernel(options);
  const { cookie } = earlier.prepare(pod);
  earlier.capture(pod, cookie);
  earlier.dispose();
  const kernel = openKernel(options);
  try {
    for (const left of [0, 1]) {
      const error = withoutDescriptors(left, () => t.throws(() => kernel.check(pod, cookie), { any: true }));
      t.is(Reflect.get(Object(error), 'code'), 'KERNEL_REFUSED');
    }
    t.is(kernel.check(pod, cookie), 'live');
  } finally {
    kernel.dispose();
    removePrograms(node.bpffs);
  }
});

test.serial("a restarted agent loads the pods' lookup program once, and leaves those that are the same", async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pods: Pod[] = [];
  for (const name of ['one', 'two', 'three']) pods.push(parsePod((await node.pod(name)).request()));
  const start = () => {
    const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
    const programs = pods.map((pod) => {
      const { cookie, netnsFd } = kernel.prepare(pod);
      kernel.capture(pod, cookie);
      return addon.attachedPrograms(netnsFd, attachType.skLookup).map(({ id }) => id);
    });
    kernel.dispose();
    return programs;
  };
  const [, ...before] = start();
  const [, ...after] = start();
  t.deepEqual(after, before);
  // The maps are others now, so the programs must be too.
  rmSync(join(node.bpffs, 'culvert', `v${limit.SCHEMA}`, 'maps'), { recursive: true });
  const anew = start();
  t.is(anew.flat().length, pods.length);
  t.deepEqual(
    anew.slice(1).filter(([id]) => after.flat().includes(id ?? 0)),
    [],
  );
  removePrograms(node.bpffs);
});

test.serial("beside another version's programs the kernel's side does not start", async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  mkdirSync(join(node.bpffs, 'culvert', 'v1', 'links'), { recursive: true });
  const options = { cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 };
  t.throws(() => openKernel(options), { code: 'SCHEMA_MISMATCH', message: /v1/ });
  removePrograms(node.bpffs);
  openKernel(options).dispose();
  removePrograms(node.bpffs);
});

function placeOf(places: ReadonlyMap<string, LabPod>, pod: Pod): LabPod {
  const place = places.get(pod.netns);
  if (place === undefined) throw new Error(`no pod of this test lies at ${pod.netns}`);
  return place;
}

for (const family of [4, 6] as const)
  podSocketsContract(test, `the kernel's pod sockets, IPv${family},`, async () => {
    const lab = await Lab.create('the contract of PodSockets');
    const node = await lab.node('n1');
    const leave = enterCgroup(node);
    const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
    const place = await node.pod('pod');
    const pod = parsePod(place.request());
    const { cookie, netnsFd, listeners } = kernel.prepare(pod);
    kernel.capture(pod, cookie);
    const stranger = await node.pod('stranger');
    const strangerFd = kernel.prepare(parsePod(stranger.request())).netnsFd;
    const sockets = createPodSockets(node.bpffs);
    const listener = listeners.find(({ port }) => port === OUTBOUND_PORT);
    if (listener === undefined) throw new Error('there is no outbound listener');
    const agent = await accepting(duplicate(listener.fd));
    const own = address(place, family);
    return {
      sockets,
      netnsFd,
      podAddress: own,
      client: { address: (family === 4 ? '203.0.113.9' : '2001:db8:3::9') as Address, port: 40_000 },
      async serverOutside() {
        const endpoint: Endpoint = { address: address(stranger, family), port: 8080 };
        return { endpoint, ...(await accepting(listen(strangerFd, family, endpoint))) };
      },
      async appInPod() {
        const endpoint: Endpoint = { address: own, port: 8081 };
        return { endpoint, ...(await accepting(listen(netnsFd, family, endpoint))) };
      },
      async ledClient(asked, bindsSource) {
        const bind = bindsSource ? { bind: { address: encodeAddress(own), port: 0 } } : {};
        return await connectTo(addon.socketOpen({ netnsFd, family, ...bind }), asked, agent);
      },
      async strayClient() {
        const app = await accepting(listen(netnsFd, family, { address: own, port: 8082 }));
        const ends = await connectTo(addon.socketOpen({ netnsFd, family }), { address: own, port: 8082 }, app);
        app.close();
        return ends;
      },
      async dispose() {
        agent.close();
        sockets.close();
        kernel.dispose();
        removePrograms(node.bpffs);
        leave();
        await lab.dispose();
      },
    };
  });

function address(pod: LabPod, family: 4 | 6): Address {
  return (family === 4 ? pod.ipv4 : pod.ipv6) as Address;
}

function listen(netnsFd: number, family: 4 | 6, at: Endpoint): number {
  return addon.socketOpen({
    netnsFd,
    family,
    bind: { address: encodeAddress(at.address), port: at.port },
    reusePort: true,
    backlog: 16,
  });
}

async function connectTo(
  fd: number,
  to: Endpoint,
  by: { accepted(): Promise<net.Socket> },
): Promise<{ client: net.Socket; accepted: net.Socket }> {
  const client = new net.Socket({ fd, allowHalfOpen: true });
  client.connect({ host: to.address, port: to.port });
  const [accepted] = await Promise.all([by.accepted(), once(client, 'connect')]);
  return { client, accepted };
}
