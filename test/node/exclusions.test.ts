import test from 'ava';
import type { LabPod, PodRequest } from '../lab/index.ts';
import {
  addAddresses,
  addressOf,
  apps,
  type Counts,
  converse,
  counted,
  nothing,
  scene,
  serve,
} from './conversation.ts';

/** Which connections must pass by the agent, of all that are tried. */
interface Trial {
  readonly to: string;
  readonly port: number;
  /** Source address. */
  readonly from?: string;
  readonly excluded: boolean;
}

const outboundLed: Counts = { ...nothing, accepted: 1, captured_outbound: 1 };
const outboundExcluded: Counts = { ...nothing, excluded_outbound: 1 };
const inboundLed: Counts = { ...nothing, accepted: 1, captured_inbound: 1 };
const inboundExcluded: Counts = { ...nothing, excluded_inbound: 1 };

/** Further addresses of a pod, around the edges of the blocks that are excluded below. */
const edges = {
  ipv4: ['10.11.7.63', '10.11.7.64', '10.11.7.71', '10.11.7.72', '10.11.9.1', '10.11.9.2'],
  ipv6: ['fd00:c:1::3f', 'fd00:c:1::40', 'fd00:c:1::47', 'fd00:c:1::48', 'fd00:c:1::91', 'fd00:c:1::92'],
};
const ports = [8079, 8080, 8081] as const;
const [before, port, after] = ports;

/** Blocks, and what of the edges is in them. */
const blocks: ReadonlyArray<{ cidrs: string[]; inside: (address: string) => boolean }> = [
  { cidrs: ['10.11.7.64/29'], inside: (address) => ['10.11.7.64', '10.11.7.71'].includes(address) },
  { cidrs: ['fd00:c:1::40/125'], inside: (address) => ['fd00:c:1::40', 'fd00:c:1::47'].includes(address) },
  { cidrs: ['10.11.9.1/32', 'fd00:c:1::91/128'], inside: (address) => /^(10\.11\.9\.1|fd00:c:1::91)$/.test(address) },
  { cidrs: ['10.11.7.64/29', '10.11.7.64/30'], inside: (address) => ['10.11.7.64', '10.11.7.71'].includes(address) },
  { cidrs: ['0.0.0.0/0'], inside: (address) => !address.includes(':') },
  { cidrs: ['::/0'], inside: (address) => address.includes(':') },
  { cidrs: ['0.0.0.0/0', '::/0'], inside: () => true },
  { cidrs: ['::ffff:10.11.9.1/128'], inside: (address) => address === '10.11.9.1' },
  { cidrs: [], inside: () => false },
];

test.serial(
  'outbound ports: what is excluded goes direct, and one port beside is captured, IPv4 and IPv6',
  async (t) => {
    await using stage = await scene(t.title);
    const { agent, client, outside } = stage;
    for (const each of ports) await serve(outside, apps.pythonEcho({ port: each, mode: 'tell' }));
    await agent.enrol(client, { excludeOutboundPorts: [port] });
    for (const to of outside.addresses)
      for (const each of ports) {
        const counts = await counted(agent, async () => {
          const talk = await converse(client, apps.pythonConnect({ to, port: each }));
          t.is(talk.error, undefined);
          // Direct: the very socket of the client is what the server has at the other end.
          t.is(talk.server?.peer === talk.local, each === port, `${to} ${each}`);
          t.is(talk.peer, apps.endpoint(to, each));
        });
        t.deepEqual(counts, each === port ? outboundExcluded : outboundLed, `${to} ${each}`);
      }
    // Outbound says nothing of inbound.
    await serve(client, apps.pythonEcho({ port, mode: 'tell' }));
    for (const to of client.addresses)
      t.deepEqual(await counted(agent, () => converse(outside, apps.pythonConnect({ to, port }))), inboundLed);
  },
);

test.serial(
  'inbound ports: what is excluded goes direct, and one port beside is captured, IPv4 and IPv6',
  async (t) => {
    await using stage = await scene(t.title);
    const { agent, server, outside } = stage;
    for (const each of ports) await serve(server, apps.pythonEcho({ port: each, mode: 'tell' }));
    await agent.enrol(server, { excludeInboundPorts: [port] });
    for (const to of server.addresses)
      for (const each of ports) {
        const counts = await counted(agent, async () => {
          const talk = await converse(outside, apps.pythonConnect({ to, port: each }));
          t.is(talk.server?.peer, talk.local ?? '', `${to} ${each}`);
        });
        t.deepEqual(counts, each === port ? inboundExcluded : inboundLed, `${to} ${each}`);
      }
    // Inbound says nothing of outbound.
    await serve(outside, apps.pythonEcho({ port, mode: 'tell' }));
    for (const to of outside.addresses)
      t.deepEqual(await counted(agent, () => converse(server, apps.pythonConnect({ to, port }))), outboundLed);
  },
);

test.serial('outbound blocks are exact to their first and last address, and of their own family only', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, outside } = stage;
  const targets = [...edges.ipv4, ...edges.ipv6];
  await addAddresses(outside, targets);
  await serve(outside, apps.pythonEcho({ port, mode: 'tell' }));
  for (const { cidrs, inside } of blocks) {
    await agent.enrol(client, { excludeOutboundCidrs: cidrs });
    for (const to of targets) {
      const counts = await counted(agent, async () => {
        const talk = await converse(client, apps.pythonConnect({ to, port, mapped: !to.includes(':') }));
        t.is(talk.error, undefined, to);
        t.is(talk.server?.peer === talk.local, inside(to), `${to} with ${cidrs.join(', ')}`);
      });
      t.deepEqual(counts, inside(to) ? outboundExcluded : outboundLed, `${to} with ${cidrs.join(', ')}`);
    }
  }
});

test.serial('inbound blocks are exact to their first and last address, and of their own family only', async (t) => {
  await using stage = await scene(t.title);
  const { agent, server, outside } = stage;
  const sources = [...edges.ipv4, ...edges.ipv6];
  await addAddresses(outside, sources);
  await serve(server, apps.pythonEcho({ port, mode: 'tell' }));
  for (const { cidrs, inside } of blocks) {
    await agent.enrol(server, { excludeInboundCidrs: cidrs });
    for (const bind of sources) {
      const to = bind.includes(':') ? server.ipv6 : server.ipv4;
      const counts = await counted(agent, async () => {
        const talk = await converse(outside, apps.pythonConnect({ to, port, bind }));
        t.is(addressOf(talk.server?.peer), bind);
      });
      t.deepEqual(counts, inside(bind) ? inboundExcluded : inboundLed, `${bind} with ${cidrs.join(', ')}`);
    }
  }
});

test.serial('a port or a block is enough: exclusions add up, and concern only the pod that asked', async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, server, outside } = stage;
  await addAddresses(outside, ['10.11.9.1']);
  for (const each of [before, port]) await serve(outside, apps.pythonEcho({ port: each, mode: 'tell' }));
  await agent.enrol(client, { excludeOutboundPorts: [port], excludeOutboundCidrs: ['10.11.9.0/24'] });
  const trials: Trial[] = [
    { to: outside.ipv4, port: before, excluded: false },
    { to: outside.ipv4, port, excluded: true },
    { to: '10.11.9.1', port: before, excluded: true },
    { to: '10.11.9.1', port, excluded: true },
  ];
  for (const { to, port, excluded } of trials) {
    const counts = await counted(agent, () => converse(client, apps.pythonConnect({ to, port })));
    t.deepEqual(counts, excluded ? outboundExcluded : outboundLed, `${to}:${port}`);
    const other = await counted(agent, () => converse(server, apps.pythonConnect({ to, port })));
    t.deepEqual(other, outboundLed, `${to}:${port} of a pod that has excluded nothing`);
  }
});

test.serial("changed exclusions take effect for new connections, and leave the pod's open ones alone", async (t) => {
  await using stage = await scene(t.title);
  const { agent, client, server, outside } = stage;
  for (const pod of [server, outside]) for (const each of ports) await serve(pod, apps.pythonEcho({ port: each }));
  const steps: Array<{ changes: Partial<PodRequest>; free: number[] }> = [
    { changes: {}, free: [] },
    { changes: { excludeOutboundPorts: [port] }, free: [port] },
    { changes: { excludeOutboundPorts: [after] }, free: [after] },
    { changes: { excludeOutboundPorts: [before, after] }, free: [before, after] },
    { changes: { excludeOutboundCidrs: [`${outside.ipv4}/32`] }, free: [...ports] },
    { changes: {}, free: [] },
  ];
  const held: Array<ReturnType<LabPod['run']>> = [];
  for (const [index, { changes, free }] of steps.entries()) {
    const { result } = await agent.enrol(client, changes);
    t.is(result, index === 0 ? 'unchanged' : 'updated');
    for (const each of ports) {
      const talk = client.run(apps.pythonConnect({ to: outside.ipv4, port: each, hold: true }));
      const counts = await counted(agent, () => talk.json({ event: 'connected' }));
      t.is(counts.excluded_outbound, free.includes(each) ? 1 : 0, `step ${index}, port ${each}`);
      t.is(counts.captured_outbound, free.includes(each) ? 0 : 1, `step ${index}, port ${each}`);
      held.push(talk);
    }
    for (const [number, talk] of held.entries()) {
      talk.write(`${index} ${number}\n`);
      t.truthy(await talk.json({ reply: `${index} ${number}` }));
    }
  }
  const inward = (): Promise<Counts> =>
    counted(agent, () => converse(outside, apps.pythonConnect({ to: server.ipv4, port })));
  t.deepEqual(await inward(), inboundLed);
  await agent.enrol(server, { excludeInboundPorts: [port] });
  t.deepEqual(await inward(), inboundExcluded);
  await agent.enrol(server, { excludeInboundCidrs: ['fd00:c:1::/64'] });
  t.deepEqual(await inward(), inboundLed);
  await agent.enrol(server, { excludeInboundCidrs: [`${outside.ipv4}/32`] });
  t.deepEqual(await inward(), inboundExcluded);
});
