import test from 'ava';
import type { FlowEnd, KernelFlow } from '../../../src/agent/index.ts';
import { MasqueradedPairs } from '../../../src/agent/kernel-path/masqueraded.ts';
import { flowPartyOf, formatEndpoint, identityOf } from '../../../src/mesh/index.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';
import {
  addressOf,
  at,
  CLI,
  cli,
  cliPod,
  DB,
  db,
  dbPod,
  far,
  onlyFor,
  policy,
  setUp,
  strict,
  WEB,
  World,
  web,
  webPod,
  workloadOf,
} from './path-world.ts';

const TO_DB = at('10.0.0.2', 5432);
const OUTSIDE = at('203.0.113.5', 443);

function flow(changes: Partial<KernelFlow> = {}): KernelFlow {
  return {
    ...{ kind: 'local', state: 'established', source: WEB, destination: DB },
    ...{ client: at('10.0.0.1', 40_000), server: TO_DB },
    ...{ sourceEpoch: 1n, destinationEpoch: 1n, sinceNs: 1n, clientSocket: 11n, serverSocket: 12n },
    ...changes,
  };
}

const FLOW = '000000000000000b0000000000000001';

function ended(changes: Partial<FlowEnd> = {}): FlowEnd {
  return {
    ...{ id: FLOW, kind: 'local', end: 'clean', source: WEB, destination: DB, agoMs: 4, connectMs: 0.2 },
    ...{ client: at('10.0.0.1', 40_000), server: TO_DB, asked: undefined },
    ...{ durationMs: 12.3, bytesSent: 100, bytesReceived: 2000, roundTripUs: 40, retransmits: 0 },
    ...changes,
  };
}

test('a verdict that was asked for lets the next connection go past the tunnel', async (t) => {
  const { kernel, path } = await setUp();
  t.is(kernel.answer(WEB, TO_DB), 'tunnel');
  path.request(WEB, TO_DB);
  t.is(kernel.answer(WEB, TO_DB), 'local');
  t.is(kernel.answer(CLI, TO_DB), 'tunnel');
  t.is(kernel.answer(WEB, at('10.0.0.2', 5433)), 'tunnel');
  t.like(path.totals(), { requests: { given: 1 }, decisions: { 'no-policy': 1 } });
});

test('what policy forbids gets no verdict, and is counted', async (t) => {
  const { kernel, path } = await setUp({ policies: [onlyFor('cli')] });
  path.request(WEB, TO_DB);
  path.request(CLI, TO_DB);
  t.is(kernel.answer(WEB, TO_DB), 'tunnel');
  t.is(kernel.answer(CLI, TO_DB), 'local');
  t.like(path.totals(), { requests: { given: 1, denied: 1 }, decisions: { allowed: 1, 'not-allowed': 1 } });
});

test('a policy that comes between the request and the decision decides', async (t) => {
  const world = await setUp();
  const done = world.update({ policies: [onlyFor('cli')] });
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  await done;
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
});

test('a change of policy voids verdicts in the turn in which it is applied', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.path.request(CLI, TO_DB);
  const update = meshUpdate({ policies: [onlyFor('cli')] });
  const done = world.path.apply(update, () => world.model.apply(update));
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  await done;
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  t.is(world.kernel.answer(CLI, TO_DB), 'local', 'what is still right is written again');
  t.is(world.path.status().verdicts, 1);
});

test('a change that concerns nobody here leaves verdicts and epochs alone', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.path.request(WEB, OUTSIDE);
  world.kernel.calls.length = 0;
  await world.update({
    workloads: [workload({ name: 'new-0', node: 'n7', addresses: [addressOf('10.7.0.1')] })],
    policies: [policy('other', 'deny', {}, { namespace: 'elsewhere' })],
  });
  t.deepEqual(world.kernel.calls, []);
});

test('a workload that is announced again, with nothing that matters here changed, leaves its verdicts alone', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.kernel.calls.length = 0;
  await world.update({ workloads: [{ ...db, canonicalRevision: 'v2', status: 'unhealthy' }] });
  t.deepEqual(world.kernel.calls, []);
});

for (const [title, change] of [
  ['another service account', workloadOf(webPod, { trustDomain: 'other.example' })],
  ['mutual TLS on one node', workloadOf(webPod, { sameNode: 'mtls' })],
] as const)
  test(`a source that gets ${title} is decided anew`, async (t) => {
    const world = await setUp({
      policies: [policy('cluster', 'allow', { principals: [{ kind: 'prefix', value: 'cluster.local/' }] })],
    });
    world.path.request(WEB, TO_DB);
    t.is(world.kernel.answer(WEB, TO_DB), 'local');
    await world.update({ workloads: [change] });
    t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
    t.is(world.path.status().verdicts, 0);
  });

test('a destination that wants mutual TLS, or a waypoint, gets no direct connection any more', async (t) => {
  for (const change of [
    { sameNode: 'mtls' },
    {
      waypoint: { destination: { kind: 'address', network: '', address: addressOf('10.5.5.5') }, hboneMtlsPort: 15008 },
    },
  ] as const) {
    const world = await setUp();
    world.path.request(WEB, TO_DB);
    await world.update({ workloads: [workloadOf(dbPod, change)] });
    t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  }
});

test('outside stays outside until somebody joins the mesh there, and is outside again when they have left', async (t) => {
  const world = await setUp();
  world.path.request(WEB, OUTSIDE);
  t.is(world.kernel.answer(WEB, OUTSIDE), 'outside');
  const joined = workload({ name: 'joined-0', node: 'n2', addresses: [OUTSIDE.address] });
  await world.update({ workloads: [joined] });
  t.is(world.kernel.answer(WEB, OUTSIDE), 'tunnel');
  t.is(world.path.status().verdicts, 0);
  await world.update({ removed: [joined.uid] });
  world.path.request(WEB, OUTSIDE);
  t.is(world.kernel.answer(WEB, OUTSIDE), 'outside');
});

test('who joins at one address outside voids what is half-way to any, and the others are written again', async (t) => {
  const world = await setUp();
  const other = at('203.0.113.6', 443);
  world.path.request(WEB, OUTSIDE);
  world.path.request(WEB, other);
  const before = world.kernel.epochOf(0n);
  await world.update({ workloads: [workload({ name: 'joined-0', node: 'n2', addresses: [OUTSIDE.address] })] });
  t.true(world.kernel.epochOf(0n) > before);
  t.is(world.kernel.answer(WEB, OUTSIDE), 'tunnel');
  t.is(world.kernel.answer(WEB, other), 'outside');
});

test('a service at an address that was outside voids the verdict', async (t) => {
  const world = await setUp();
  world.path.request(WEB, OUTSIDE);
  await world.update({ services: [service({ addresses: [{ network: '', address: OUTSIDE.address }] })] });
  t.is(world.kernel.answer(WEB, OUTSIDE), 'tunnel');
});

test('a pod that is enrolled at an address that was outside voids the verdict', async (t) => {
  const world = await setUp();
  world.path.request(WEB, at('10.0.0.4'));
  t.is(world.kernel.answer(WEB, at('10.0.0.4')), 'outside');
  world.enrol({ ...cliPod, uid: 'new', name: 'new-0', addresses: [addressOf('10.0.0.4')] }, 4n as never);
  t.is(world.kernel.answer(WEB, at('10.0.0.4')), 'tunnel');
});

test('an old verdict never serves another pod that is given the same address', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  const heir = { ...dbPod, uid: 'heir', name: 'heir-0', serviceAccount: 'heir' };
  world.enrol(heir, 9n as never);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel', 'two pods have the address');
  await world.update({ removed: [db.uid], workloads: [workloadOf(heir)] });
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel', 'the old pod has not left');
  world.path.podChanged(dbPod, DB, 'left');
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
  t.is(world.kernel.verdicts.values().next().value?.to, 9n as never);
});

for (const state of ['left', 'captured'] as const)
  test(`a pod that is ${state} has no verdicts, as source or as destination`, async (t) => {
    const world = await setUp();
    world.path.request(WEB, TO_DB);
    world.path.request(DB, at('10.0.0.1'));
    world.path.podChanged(dbPod, DB, state);
    await world.update({});
    t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
    t.is(world.kernel.answer(DB, at('10.0.0.1')), 'tunnel');
    t.is(world.path.status().verdicts, 0);
    t.false(world.kernel.isOn(DB));
  });

test('nothing is let past the tunnel before the mesh is known', (t) => {
  const world = new World();
  world.path.start();
  world.enrol(webPod, WEB);
  world.path.request(WEB, OUTSIDE);
  t.is(world.kernel.verdicts.size, 0);
  t.false(world.kernel.isOn(WEB));
  t.deepEqual(world.path.totals().requests, { given: 0, 'mesh-unknown': 1 });
});

test('of each pod 4,096 verdicts are kept, and the oldest goes', async (t) => {
  const { kernel, path } = await setUp();
  const to = (port: number) => at('203.0.113.5', port);
  for (let port = 1; port <= 4_097; port += 1) path.request(WEB, to(port));
  path.request(CLI, to(1));
  t.is(kernel.verdicts.size, 4_097);
  t.is(kernel.answer(WEB, to(1)), 'tunnel');
  t.is(kernel.answer(WEB, to(2)), 'outside');
  t.is(kernel.answer(CLI, to(1)), 'outside');
});

test('where there is no room for a verdict, there is none, and that is counted', async (t) => {
  const { kernel, path } = await setUp();
  kernel.room = 0;
  path.request(CLI, TO_DB);
  t.is(kernel.answer(CLI, TO_DB), 'tunnel');
  t.like(path.totals(), { requests: { given: 0, 'no-room': 1 } });
  t.is(path.status().verdicts, 0);
});

test('when the table is full, the oldest verdict of whoever has the most makes room', async (t) => {
  const { kernel, path } = await setUp();
  const to = (port: number) => at('203.0.113.5', port);
  kernel.room = 6;
  for (let port = 1; port <= 6; port += 1) path.request(WEB, to(port));
  for (let port = 1; port <= 9; port += 1) path.request(CLI, to(port));
  t.is(kernel.verdicts.size, 6);
  t.deepEqual(
    [4, 5, 6].map((port) => kernel.answer(WEB, to(port))),
    ['outside', 'outside', 'outside'],
  );
  t.deepEqual(
    [7, 8, 9].map((port) => kernel.answer(CLI, to(port))),
    ['outside', 'outside', 'outside'],
  );
  t.like(path.totals(), { requests: { given: 15 } });
});

test('10,000 verdicts are decided again after a change, and the barrier waits for all of them', async (t) => {
  const world = await setUp();
  for (const source of [WEB, CLI, DB])
    for (let port = 1; port <= 3_400; port += 1) world.path.request(source, at('203.0.113.5', port));
  t.is(world.path.status().verdicts, 10_200);
  await world.update({
    workloads: [workload({ name: 'joined-0', node: 'n2', addresses: [addressOf('203.0.113.5')] })],
  });
  t.is(world.kernel.verdicts.size, 0);
  t.is(world.path.status().verdicts, 0);
});

// --- live flows -------------------------------------------------------------------------------------------------------

test('flows that a change forbids end in the turn in which it is applied, with one line of the log for each policy', async (t) => {
  const world = await setUp();
  const [one, two] = [flow(), flow({ client: at('10.0.0.1', 40_001) })];
  const allowed = flow({ source: CLI, client: at('10.0.0.3', 40_000) });
  for (const each of [one, two, allowed]) world.kernel.begin(each);
  const update = meshUpdate({
    policies: [
      onlyFor('cli'),
      policy('not-web', 'deny', { serviceAccounts: [{ namespace: 'shop', serviceAccount: 'web' }] }),
    ],
  });
  const done = world.path.apply(update, () => world.model.apply(update));
  t.deepEqual(world.kernel.destroyed, [one, two]);
  await done;
  t.deepEqual(world.told('flows ended by a policy change'), [
    { policy: 'shop/not-web', decision: 'explicitly denied by: shop/not-web', count: 2 },
  ]);
  t.is(world.path.totals().closed, 2);
});

test('a flow that was ended says so when its end is told', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow());
  await world.update({ policies: [onlyFor('cli')] });
  world.kernel.end(ended({ end: 'reset-by-server' }));
  world.clock.advance(50);
  t.like(world.remembered[0], { ended: 'policy-changed', path: 'kernel', decision: { allowed: false } });
});

test('that open flows cannot be counted changes nothing but what is counted', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.kernel.fail('sampleFlows', new Error('boom'));
  world.kernel.end(ended());
  world.clock.advance(50);
  t.is(world.path.status().state, 'on');
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
  t.is(world.remembered.length, 2);
  t.is(world.told('open flows could not be counted; trying again').length, 1);
});

test('why a flow was ended is said of that flow alone, not of an earlier or later one with the same ends', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow({ sinceNs: 0x20n }));
  await world.update({ policies: [onlyFor('cli')] });
  const beginnings = ['0000000000000010', '0000000000000020', '0000000000000030'];
  for (const beginning of beginnings) {
    world.kernel.end(ended({ id: `000000000000000b${beginning}`, end: 'reset-by-client' }));
    world.clock.advance(50);
  }
  const outbound = world.remembered.filter(({ direction }) => direction === 'outbound');
  t.deepEqual(
    outbound.map((each) => each.ended),
    ['reset-by-client', 'policy-changed', 'reset-by-client'],
  );
});

test('flows end when one of their ends wants mutual TLS from now on', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow());
  await world.update({ workloads: [workloadOf(webPod, { sameNode: 'mtls' })] });
  t.is(world.kernel.destroyed.length, 1);
});

test('plaintext to an open port ends when the port is shut to it', async (t) => {
  const world = await setUp();
  const plain = flow({ kind: 'plain', source: 0n, client: at('192.0.2.9', 1234) });
  world.kernel.begin(plain);
  t.deepEqual(world.kernel.openPorts.get(DB), { kind: 'ports', others: true, ports: new Map() } as never);
  await world.update({ policies: [strict] });
  t.is(world.kernel.openPorts.get(DB), undefined);
  t.deepEqual(world.kernel.destroyed, [plain]);
});

test('the kubelet is never ended', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow({ kind: 'probe', source: 0n, client: at('10.0.0.254', 1234) }));
  await world.update({ policies: [strict, policy('nobody', 'allow', {}, { rules: [] })] });
  t.deepEqual(world.kernel.destroyed, []);
});

test('a flow to the outside ends when its destination joins the mesh and lets no plaintext in', async (t) => {
  const world = await setUp();
  const outside = flow({ kind: 'outside', destination: 0n, server: OUTSIDE });
  world.path.request(WEB, OUTSIDE);
  world.kernel.begin(outside);
  const joined = workload({ name: 'joined-0', node: 'n2', addresses: [OUTSIDE.address] });
  await world.update({ workloads: [joined] });
  t.deepEqual(world.kernel.destroyed, [], 'permissive: what is open is left open');
  await world.update({ removed: [joined.uid], policies: [strict] });
  await world.update({ workloads: [joined] });
  t.deepEqual(world.kernel.destroyed, [outside]);
});

const joined = workload({ name: 'joined-0', namespace: 'bank', node: 'n2', addresses: [OUTSIDE.address] });
const strictBank = policy('strict', 'deny', { notPrincipals: [{ kind: 'presence' }] }, { namespace: 'bank' });

for (const [title, change] of [
  ['policy of its namespace alone changes', { policies: [strictBank] }],
  [
    'it names a policy that it did not name before',
    { workloads: [{ ...joined, authorizationPolicies: ['bank/own'] }] },
  ],
  ['the mesh is told anew', { complete: true, workloads: [web, db, joined], policies: [strictBank] }],
] as const)
  test(`a flow to the outside that lived on when its destination joined ends when ${title}`, async (t) => {
    const own = { ...strictBank, name: 'own', scope: 'workload-selector' } as const;
    const world = await setUp({ policies: [own] });
    const outside = flow({ kind: 'outside', destination: 0n, server: OUTSIDE });
    world.path.request(WEB, OUTSIDE);
    world.kernel.begin(outside);
    await world.update({ workloads: [joined] });
    t.deepEqual(world.kernel.destroyed, [], 'permissive');
    const update = meshUpdate(change);
    const done = world.path.apply(update, () => world.model.apply(update));
    t.deepEqual(world.kernel.destroyed, [outside], 'in the turn of the change');
    await done;
  });

test('a flow that was established by a void verdict, and let live, is judged again when policy changes', async (t) => {
  const world = await setUp();
  const outside = flow({ kind: 'outside', destination: 0n, server: OUTSIDE });
  world.path.request(WEB, OUTSIDE);
  await world.update({ workloads: [joined] });
  world.kernel.begin(outside);
  world.kernel.tell({ cookie: WEB, reason: 'flow_forbidden', client: outside.client, server: outside.server });
  world.clock.advance(50);
  t.deepEqual(world.kernel.destroyed, [], 'permissive');
  await world.update({ policies: [strictBank] });
  t.deepEqual(world.kernel.destroyed, [outside]);
});

test('policy of others asks for no flows, although some have joined the mesh', async (t) => {
  const world = await setUp();
  world.path.request(WEB, OUTSIDE);
  world.kernel.begin(flow({ kind: 'outside', destination: 0n, server: OUTSIDE }));
  await world.update({ workloads: [joined] });
  world.kernel.calls.length = 0;
  await world.update({ policies: [policy('other', 'deny', {}, { namespace: 'elsewhere' })], removed: [far.uid] });
  t.deepEqual(world.kernel.calls, []);
});

test('flows outside are found by their addresses also when nobody has a verdict for them any more', async (t) => {
  const world = await setUp({ policies: [strictBank] });
  const [refused, lives] = [at('203.0.113.5', 443), at('203.0.113.5', 444)];
  world.path.request(WEB, refused);
  const outside = flow({ kind: 'outside', destination: 0n, server: lives });
  world.kernel.begin(outside);
  world.kernel.end(ended({ kind: 'outside', end: 'refused', destination: 0n, server: refused }));
  world.clock.advance(50);
  t.is(world.path.status().verdicts, 0);
  const before = world.kernel.epochOf(0n);
  await world.update({ workloads: [joined] });
  t.deepEqual(world.kernel.destroyed, [outside]);
  t.true(world.kernel.epochOf(0n) > before, 'what is half-way is void as well');
});

test('where connections lead is collected again when it was too much to be remembered', async (t) => {
  const world = await setUp({ policies: [strictBank] });
  const address = (index: number) => addressOf(`198.${18 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`);
  for (let index = 0; index < 4096 + 16_385; index += 1) world.path.request(WEB, { address: address(index), port: 1 });
  const outside = flow({ kind: 'outside', destination: 0n, server: { address: address(0), port: 1 } });
  world.kernel.begin(outside);
  const stranger = workload({ name: 'stranger-0', node: 'n2', addresses: [addressOf('192.0.2.77')] });
  const asksForFlows = async (changes: Parameters<typeof world.update>[0]): Promise<boolean> => {
    world.kernel.calls.length = 0;
    await world.update(changes);
    return world.kernel.calls.includes('flows 0');
  };
  t.true(await asksForFlows({ workloads: [stranger] }), 'it may be any address');
  world.clock.advance(10_000);
  t.false(await asksForFlows({ removed: [stranger.uid] }));
  t.is(world.kernel.answer(WEB, { address: address(20_000), port: 1 }), 'outside', 'verdicts are written again');
  await world.update({ workloads: [{ ...joined, addresses: [address(0)] }] });
  t.deepEqual(world.kernel.destroyed, [outside]);
});

test('a pod that the mesh no longer knows keeps what it has, and is given nothing new', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.kernel.begin(flow());
  await world.update({ removed: [db.uid] });
  t.deepEqual(world.kernel.destroyed, []);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  t.is(world.kernel.openPorts.get(DB), undefined);
  await world.update({ policies: [onlyFor('cli')] });
  t.is(world.kernel.destroyed.length, 1, 'and is judged by what it was');
});

test('flows of a pod that was withdrawn are judged by who it was; those to it are left alone', async (t) => {
  const world = await setUp();
  const from = flow();
  const to = flow({ source: DB, destination: WEB, client: at('10.0.0.2', 1), server: at('10.0.0.1') });
  for (const each of [from, to]) world.kernel.begin(each);
  world.path.podChanged(webPod, WEB, 'left');
  t.deepEqual(world.kernel.destroyed, []);
  await world.update({ policies: [onlyFor('nobody')] });
  t.deepEqual(world.kernel.destroyed, [from]);
});

test('a pod that has left costs nothing when the mesh changes', async (t) => {
  const world = await setUp();
  world.path.podChanged(webPod, WEB, 'left');
  t.false(world.kernel.isOn(WEB));
  world.kernel.calls.length = 0;
  await world.update({ removed: [far.uid] });
  t.deepEqual(world.kernel.calls, []);
});

test('a change that concerns no pod of this node asks for no flows', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow());
  world.kernel.calls.length = 0;
  await world.update({ removed: [far.uid] });
  t.deepEqual(world.kernel.calls, []);
});

// --- restart ----------------------------------------------------------------------------------------------------------

test('started again, it voids everything first, and ends what was forbidden meanwhile once pods and mesh are known', async (t) => {
  const world = new World();
  const [forbidden, allowed] = [flow(), flow({ source: CLI, client: at('10.0.0.3', 40_000) })];
  for (const each of [forbidden, allowed]) world.kernel.begin(each);
  world.path.start();
  t.is(world.kernel.calls[0], 'clearPaths 0');
  for (const [each, cookie] of [
    [webPod, WEB],
    [dbPod, DB],
    [cliPod, CLI],
  ] as const)
    world.enrol(each, cookie);
  await world.update({ complete: true, workloads: [web, db, cli], policies: [onlyFor('cli')] });
  t.deepEqual(world.kernel.destroyed, [], 'not all pods are known');
  world.path.podsKnown();
  t.deepEqual(world.kernel.destroyed, [forbidden]);
});

test('pods that are not served yet count among those by whom flows are judged', async (t) => {
  const world = new World();
  const [forbidden, allowed] = [flow(), flow({ source: CLI, client: at('10.0.0.3', 40_000) })];
  for (const each of [forbidden, allowed]) world.kernel.begin(each);
  world.path.start();
  for (const [each, cookie] of [
    [webPod, WEB],
    [dbPod, DB],
    [cliPod, CLI],
  ] as const)
    world.path.podChanged(each, cookie, 'captured');
  world.path.podsKnown();
  await world.update({ complete: true, workloads: [web, db, cli], policies: [onlyFor('cli')] });
  t.deepEqual(world.kernel.destroyed, [forbidden]);
});

test('stopped, it gives no sign of life, tears nothing down, and still lets the mesh be known', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.kernel.begin(flow());
  world.path.stop();
  const { beats } = world.kernel;
  world.clock.advance(10_000);
  t.is(world.kernel.beats, beats);
  await world.update({ policies: [onlyFor('cli')] });
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
  t.deepEqual(world.kernel.destroyed, []);
  t.is([...world.model.policies()].length, 1);
});

// --- signs of life, switches ------------------------------------------------------------------------------------------

test('gives a sign of life each half second', async (t) => {
  const { kernel, clock, path } = await setUp();
  const before = kernel.beats;
  clock.advance(5_000);
  t.is(kernel.beats, before + 10);
  t.like(path.status(), { state: 'on', beats: 10 });
});

test('switched off, it vouches for nothing, and still ends what is forbidden', async (t) => {
  const world = await setUp({}, { isOn: false });
  world.path.request(WEB, TO_DB);
  world.kernel.begin(flow());
  world.clock.advance(5_000);
  t.is(world.kernel.beats, 0);
  t.is(world.kernel.verdicts.size, 0);
  t.is(world.kernel.services.size, 0);
  t.is(world.kernel.openPorts.size, 0);
  t.false(world.kernel.isOn(WEB));
  await world.update({ policies: [onlyFor('cli')] });
  t.is(world.kernel.destroyed.length, 1);
  t.is(world.path.status().state, 'off');
});

test('when the kernel refuses something, nothing is vouched for until everything has been told again', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.kernel.begin(flow());
  world.kernel.fail('flows', new Error('boom'));
  await world.update({ policies: [onlyFor('cli')] });
  t.like(world.path.status(), { state: 'failed', error: 'boom' });
  t.is(world.kernel.verdicts.size, 0, 'void at once');
  const { beats } = world.kernel;
  world.kernel.fail('clearPaths', new Error('boom'));
  world.clock.advance(500);
  t.is(world.kernel.beats, beats);
  t.is(world.told('the kernel path failed, so nothing is vouched for; trying again').length, 1, 'told once');
  world.clock.advance(500);
  t.is(world.path.status().state, 'on');
  t.true(world.kernel.beats > beats);
  t.is(world.kernel.destroyed.length, 1);
  t.true(world.kernel.isOn(DB));
  t.is(world.told('the kernel path is whole again').length, 1);
});

test('flows of one pod that cannot be ended are tried again, and nothing is taken from the other pods', async (t) => {
  const world = await setUp();
  const [stuck, other] = [flow(), flow({ source: CLI, client: at('10.0.0.3', 40_000) })];
  for (const each of [stuck, other]) world.kernel.begin(each);
  world.path.request(CLI, OUTSIDE);
  world.kernel.keepFlowsOf(WEB);
  await world.update({ policies: [onlyFor('nobody')] });
  t.deepEqual(world.kernel.destroyed, [other]);
  t.is(world.path.status().state, 'on');
  t.is(world.kernel.answer(CLI, OUTSIDE), 'outside');
  t.is(world.path.totals().closed, 1);
  t.like(world.told('flows that are forbidden could not be ended; trying again'), [{ count: 1 }]);
  world.kernel.keepFlowsOf(undefined);
  world.clock.advance(1_000);
  t.deepEqual(world.kernel.destroyed, [other, stuck]);
  t.is(world.path.totals().closed, 2);
  t.is(world.told('flows ended by a policy change').length, 2);
});

test('what cannot be ended is tried ever more seldom, twice a minute in the end', async (t) => {
  const world = await setUp();
  world.kernel.begin(flow());
  world.kernel.keepFlowsOf(WEB);
  await world.update({ policies: [onlyFor('nobody')] });
  world.clock.advance(120_000);
  world.kernel.calls.length = 0;
  world.clock.advance(62_000);
  t.is(world.kernel.calls.filter((call) => call === 'destroyFlows 1').length, 2);
  t.is(world.path.status().state, 'on');
});

test('when no flow of several pods can be ended, nothing is vouched for', async (t) => {
  const world = await setUp();
  for (const each of [flow(), flow({ source: CLI, client: at('10.0.0.3', 40_000) })]) world.kernel.begin(each);
  for (const each of [WEB, CLI]) world.kernel.keepFlowsOf(each);
  await world.update({ policies: [onlyFor('nobody')] });
  t.is(world.path.status().state, 'failed');
  t.is(world.path.totals().closed, 0);
  world.kernel.keepFlowsOf(undefined);
  world.clock.advance(500);
  t.is(world.path.status().state, 'on');
  t.is(world.kernel.destroyed.length, 2);
  t.is(world.path.totals().closed, 2);
});

test('flows that could not be ended because their pod was not served yet end as soon as it is', async (t) => {
  const world = new World();
  const forbidden = flow();
  world.kernel.begin(forbidden);
  world.kernel.keepFlowsOf(WEB, 'silently');
  world.path.start();
  for (const [each, cookie] of [
    [webPod, WEB],
    [dbPod, DB],
  ] as const)
    world.path.podChanged(each, cookie, 'captured');
  world.path.podsKnown();
  await world.update({ complete: true, workloads: [web, db], policies: [onlyFor('nobody')] });
  t.deepEqual(world.kernel.destroyed, []);
  world.kernel.keepFlowsOf(undefined);
  world.enrol(webPod, WEB);
  t.deepEqual(world.kernel.destroyed, [forbidden]);
  t.is(world.path.totals().closed, 1, 'counted and told once');
  t.is(world.told('flows ended by a policy change').length, 1);
});

test('opens the ports that policy leaves open to anybody, and no others', async (t) => {
  const world = await setUp({
    policies: [
      policy('port', 'deny', { destinationPorts: [5432] }),
      policy('cli', 'deny', { sourceIps: ['10.9.0.0/16' as never] }, { scope: 'workload-selector' }),
    ],
    workloads: [web, db, workloadOf(cliPod, { authorizationPolicies: ['shop/cli'] })],
  });
  t.like(world.kernel.openPorts.get(DB), { others: true, ports: new Map([[5432, false]]) });
  t.is(world.kernel.openPorts.get(CLI), undefined, 'it depends on the address');
  await world.update({ policies: [onlyFor('cli')] });
  t.is(world.kernel.openPorts.get(DB), undefined);
});

test('a pod that sees services from another place than the others takes no part', async (t) => {
  const world = await setUp({
    workloads: [web, workloadOf(dbPod, { locality: { region: 'r', zone: '', subzone: '' } }), cli],
  });
  t.true(world.kernel.isOn(WEB));
  t.false(world.kernel.isOn(DB));
  t.true(world.kernel.isOn(CLI));
});

test('names the policies that pods of this node ask for and nobody knows', async (t) => {
  const world = await setUp({ workloads: [web, workloadOf(dbPod, { authorizationPolicies: ['shop/lost'] })] });
  t.deepEqual(world.path.status().unknownPolicies, ['shop/lost']);
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
});

// --- events -----------------------------------------------------------------------------------------------------------

test('a pair between which the source is rewritten uses the tunnel for 10 minutes', async (t) => {
  const world = await setUp();
  world.path.request(WEB, TO_DB);
  world.path.request(CLI, TO_DB);
  const client = at('10.0.0.1', 40_000);
  world.kernel.tell({ cookie: WEB, reason: 'masqueraded', client, server: TO_DB });
  world.clock.advance(50);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  t.is(world.kernel.answer(CLI, TO_DB), 'local');
  const [open, ...others] = world.kernel.destroyed;
  t.like(open, { kind: 'local', source: WEB, client, server: TO_DB }, 'nothing proves who has answered');
  t.is(others.length, 0);
  world.clock.advance(599_900);
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
  world.clock.advance(100);
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
});

test('a connection that met the heir of an address is not taken for one whose source was rewritten', async (t) => {
  const world = await setUp();
  const masqueraded = { cookie: WEB, reason: 'masqueraded', client: at('10.0.0.1', 40_000), server: TO_DB };
  const heir = { ...dbPod, uid: 'heir', name: 'heir-0' };
  world.path.request(WEB, TO_DB);
  world.path.podChanged(dbPod, DB, 'left');
  world.enrol(heir, 9n as never);
  await world.update({ removed: [db.uid], workloads: [workloadOf(heir)] });
  world.kernel.tell(masqueraded);
  world.clock.advance(50);
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'local', 'the change was known first');
});

test('a pair that was marked before the heir of an address was known does not mark the heir', async (t) => {
  const world = await setUp();
  const heir = { ...dbPod, uid: 'heir', name: 'heir-0' };
  world.path.request(WEB, TO_DB);
  world.kernel.tell({ cookie: WEB, reason: 'masqueraded', client: at('10.0.0.1', 40_000), server: TO_DB });
  world.clock.advance(50);
  world.path.podChanged(dbPod, DB, 'left');
  world.enrol(heir, 9n as never);
  await world.update({ removed: [db.uid], workloads: [workloadOf(heir)] });
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
});

test('of each source 256 pairs are remembered, whatever others do', (t) => {
  const pairs = new MasqueradedPairs({ now: () => 0 });
  const address = addressOf('10.0.0.2');
  pairs.add(CLI, DB, address);
  for (let to = 1; to <= 300; to += 1) pairs.add(WEB, BigInt(to) as never, address);
  t.true(pairs.has(CLI, DB, address));
  t.false(pairs.has(WEB, 44n as never, address));
  t.true(pairs.has(WEB, 45n as never, address));
});

test('what pods can make happen is told ten times a second, and counted exactly', async (t) => {
  const rehearsal = { ...onlyFor('cli'), dryRun: true };
  const world = await setUp({ policies: [rehearsal] });
  for (let port = 1; port <= 30; port += 1) world.kernel.end(ended({ client: at('10.0.0.1', port) }));
  world.clock.advance(1_000);
  t.is(world.told('policy dry run').length, 10);
  t.deepEqual(world.told('policy dry run: more of them'), [{ count: 20 }]);
  t.deepEqual(world.path.totals().dryRun, { denies: 30, allows: 0 });
});

for (const reason of ['flow_forbidden', 'flow_unrecorded'])
  test(`all flows of a pod are judged again when ${reason} found no room in the ring`, async (t) => {
    const world = await setUp({ policies: [onlyFor('cli')] });
    const [forbidden, plain, allowed] = [
      flow(),
      flow({ kind: 'plain', source: 0n, client: at('192.0.2.9', 1234) }),
      flow({ source: CLI, client: at('10.0.0.3', 40_000) }),
    ];
    for (const each of [forbidden, plain, allowed]) world.kernel.begin(each);
    world.clock.advance(1_000);
    t.deepEqual(world.kernel.destroyed, []);
    world.kernel.lose({ cookie: DB, reason, client: forbidden.client, server: TO_DB });
    world.clock.advance(1_000);
    t.deepEqual(world.kernel.destroyed, [forbidden, plain]);
    world.clock.advance(1_000);
    world.kernel.calls.length = 0;
    world.clock.advance(10_000);
    t.false(world.kernel.calls.includes('flows 0'), 'once');
  });

test('events that are heard, or were counted before the start, are not taken for lost', async (t) => {
  const world = new World();
  const event = { cookie: DB, reason: 'flow_forbidden', client: at('192.0.2.9', 1), server: TO_DB };
  world.kernel.lose(event, event);
  world.path.start();
  world.enrol(dbPod, DB);
  world.path.podsKnown();
  await world.update({ complete: true, workloads: [db] });
  world.kernel.tell(event, event);
  world.clock.advance(5_000);
  t.deepEqual(
    world.log.entries.filter(({ message }) => message.startsWith('the kernel had no room')),
    [],
  );
});

test('a flow that was established by a void verdict is decided again', async (t) => {
  const world = await setUp({ policies: [onlyFor('cli')] });
  const [forbidden, allowed] = [flow(), flow({ source: CLI, client: at('10.0.0.3', 40_000) })];
  for (const each of [forbidden, allowed]) {
    world.kernel.begin(each);
    world.kernel.tell({ cookie: DB, reason: 'flow_forbidden', client: each.client, server: each.server });
  }
  world.clock.advance(50);
  t.deepEqual(world.kernel.destroyed, [forbidden]);
});

test('a flow that no table knows ends: nobody could end it later', async (t) => {
  const world = await setUp();
  world.kernel.tell(
    { cookie: DB, reason: 'flow_forbidden', client: at('192.0.2.9', 1), server: TO_DB },
    { cookie: WEB, reason: 'flow_unrecorded', client: at('10.0.0.1', 2), server: OUTSIDE },
    { cookie: WEB, reason: 'flow_unrecorded', client: at('10.0.0.1', 3), server: TO_DB },
  );
  world.clock.advance(50);
  t.like(
    world.kernel.destroyed.map(({ kind, source, destination }) => ({ kind, source, destination })),
    [
      { kind: 'outside', source: WEB, destination: 0n },
      { kind: 'local', source: WEB, destination: DB },
      { kind: 'plain', source: 0n, destination: DB },
    ],
  );
});

test('what is to be decided again waits until pods and mesh are known', async (t) => {
  const world = new World();
  world.path.start();
  world.enrol(dbPod, DB);
  world.kernel.tell({ cookie: DB, reason: 'flow_forbidden', client: at('192.0.2.9', 1), server: TO_DB });
  world.clock.advance(50);
  t.deepEqual(world.kernel.destroyed, []);
  world.path.podsKnown();
  await world.update({ complete: true, workloads: [db] });
  world.clock.advance(50);
  t.is(world.kernel.destroyed.length, 1);
});

test('all other events are for the operator, once', async (t) => {
  const { kernel, clock, path } = await setUp();
  const event = { cookie: WEB, reason: 'raw_socket', client: at('0.0.0.0', 0), server: at('0.0.0.0', 0) };
  kernel.tell(event, { ...event, reason: 'masqueraded' });
  clock.advance(50);
  t.deepEqual(path.events(), [event]);
  t.deepEqual(path.events(), []);
});

// --- ends -------------------------------------------------------------------------------------------------------------

test('a connection that is over is told of once for each pod of this node, with all that is known of it', async (t) => {
  const world = await setUp({ services: [service({ ports: [{ servicePort: 80, targetPort: 5432 }] })] });
  const now = world.clock.now();
  world.kernel.end(ended({ asked: at('10.96.0.1') }));
  world.clock.advance(50);
  const outbound = {
    id: FLOW,
    pod: WEB,
    direction: 'outbound',
    path: 'kernel',
    kind: 'local',
    stage: 'connected',
    client: at('10.0.0.1', 40_000),
    asked: at('10.96.0.1'),
    server: TO_DB,
    dialled: TO_DB,
    authority: undefined,
    sourceIdentity: identityOf(web),
    destinationIdentity: identityOf(db),
    source: flowPartyOf(web),
    destination: flowPartyOf(db),
    waypoint: undefined,
    security: 'kernel',
    endedAt: now + 50 - 4,
    durationMs: 12.3,
    ended: 'clean',
    error: undefined,
    dryRun: [],
    attempts: 1,
    bytesSent: 100,
    bytesReceived: 2000,
    connectMs: 0.2,
    firstByteMs: undefined,
    roundTripUs: 40,
    retransmits: 0,
  } as const;
  t.like(world.remembered[0], outbound);
  t.like(world.remembered[1], { ...outbound, pod: DB, direction: 'inbound', asked: TO_DB });
  for (const { decision, service } of world.remembered) {
    t.like(decision, { allowed: true, reason: 'no-policy' });
    t.is(service?.hostname, 'web.shop.svc.cluster.local');
  }
  t.is(world.remembered.length, 2);
  t.deepEqual(world.path.totals().ended, { outbound: 1, inbound: 1 });
});

test('plaintext that is over has no identity, and only the pod tells of it', async (t) => {
  const world = await setUp();
  const plain = { kind: 'plain', source: 0n, connectMs: undefined } as const;
  world.kernel.end(ended({ ...plain, client: at('192.0.2.9', 1), bytesSent: 7, bytesReceived: 9 }));
  world.clock.advance(50);
  t.is(world.remembered.length, 1);
  t.like(world.remembered[0], {
    direction: 'inbound',
    client: at('192.0.2.9', 1),
    source: undefined,
    sourceIdentity: undefined,
    destination: flowPartyOf(db),
    security: 'none',
    stage: 'connected',
    bytesSent: 7,
    bytesReceived: 9,
  });
});

test('a flow that ends with its pods is theirs, whoever has their addresses by then, and was not denied', async (t) => {
  const world = await setUp();
  world.path.podChanged(webPod, WEB, 'left');
  await world.update({ removed: [web.uid, db.uid] });
  await world.update({ workloads: [{ ...cli, addresses: web.addresses }] });
  world.kernel.end(ended({ end: 'reset-by-server' }));
  world.clock.advance(50);
  t.is(world.remembered.length, 2);
  for (const record of world.remembered)
    t.like(record, {
      ended: 'reset-by-server',
      source: flowPartyOf(web),
      destination: flowPartyOf(db),
      sourceIdentity: identityOf(web),
      destinationIdentity: identityOf(db),
      security: 'kernel',
      decision: { allowed: true, reason: 'no-policy' },
    });
});

test('a probe of the kubelet says that nobody was asked', async (t) => {
  const world = await setUp({ policies: [onlyFor('cli')] });
  world.kernel.end(ended({ kind: 'probe', source: 0n, client: at('192.0.2.1', 1) }));
  world.clock.advance(50);
  t.like(world.remembered[0]?.decision, { allowed: true, reason: 'kubelet-probe' });
});

test('ends wait in the kernel until it is known whose they are', async (t) => {
  const world = new World();
  world.path.start();
  world.kernel.end(ended());
  world.clock.advance(1000);
  t.is(world.remembered.length, 0);
  world.enrol(webPod, WEB);
  world.enrol(dbPod, DB);
  world.path.podsKnown();
  world.clock.advance(1000);
  t.is(world.remembered.length, 0);
  await world.update({ complete: true, workloads: [web, db, cli] });
  world.clock.advance(50);
  t.deepEqual(
    world.remembered.map(({ pod, source }) => [pod, source?.workload]),
    [
      [WEB, 'web-0'],
      [DB, 'web-0'],
    ],
  );
});

for (const end of ['refused', 'timed-out'] as const)
  test(`a connect that is ${end} takes its verdict along`, async (t) => {
    const world = await setUp();
    world.path.request(WEB, TO_DB);
    world.kernel.end(ended({ end, roundTripUs: 0, connectMs: undefined }));
    world.clock.advance(50);
    t.is(world.kernel.answer(WEB, TO_DB), 'tunnel');
    const reason = end === 'refused' ? 'dial-refused' : 'dial-timed-out';
    t.like(world.remembered[0], { ended: reason, stage: 'addressed', roundTripUs: undefined });
  });

test('dry-run policies are evaluated, told and counted when a connection is over, and never enforced', async (t) => {
  const rehearsal = { ...onlyFor('cli'), dryRun: true };
  const world = await setUp({ policies: [rehearsal] });
  world.path.request(WEB, TO_DB);
  t.is(world.kernel.answer(WEB, TO_DB), 'local');
  world.kernel.end(ended());
  world.clock.advance(50);
  t.like(world.told('policy dry run')[0], {
    policy: 'shop/only-cli',
    would: 'not-allow',
    'src.identity': identityOf(web),
  });
  t.deepEqual(world.path.totals().dryRun, { denies: 1, allows: 0 });
});

// --- services ---------------------------------------------------------------------------------------------------------

const shop = service({ ports: [{ servicePort: 80, targetPort: 8080 }] });
const backend = (name: string, address: string, changes = {}) =>
  workload({
    name,
    addresses: [addressOf(address)],
    node: 'n2',
    services: { 'shop/web.shop.svc.cluster.local': [] },
    ...changes,
  });
const VIP = formatEndpoint(at('10.96.0.1'));
const endpointsAt = (world: World) =>
  world.kernel.services.get(VIP)?.map(({ endpoint, weight }) => [endpoint.address, weight]);

test('publishes services with their weights, and follows readiness in the turn of the update', async (t) => {
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1'), backend('b', '10.2.0.2')] });
  t.deepEqual(endpointsAt(world), [
    ['10.2.0.1', 1],
    ['10.2.0.2', 1],
  ]);
  const update = meshUpdate({ workloads: [backend('b', '10.2.0.2', { status: 'unhealthy' })] });
  void world.path.apply(update, () => world.model.apply(update));
  t.deepEqual(endpointsAt(world), [['10.2.0.1', 1]]);
  await world.update({ removed: ['shop/web.shop.svc.cluster.local'] });
  t.is(endpointsAt(world), undefined);
});

test('follows weights within 100 ms of a connection, and writes nothing when they are the same', async (t) => {
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1'), backend('b', '10.2.0.2')] });
  world.weights.set('10.2.0.1:8080', 5);
  world.activity += 1;
  world.clock.advance(100);
  t.deepEqual(endpointsAt(world), [
    ['10.2.0.1', 5],
    ['10.2.0.2', 1],
  ]);
  world.kernel.calls.length = 0;
  world.activity += 1;
  world.clock.advance(100);
  t.deepEqual(
    world.kernel.calls.filter((call) => call.startsWith('putService')),
    [],
  );
});

test('does nothing about services when nobody has connected for a while', async (t) => {
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1')] });
  world.clock.advance(31_000);
  const { asked } = world;
  world.clock.advance(60_000);
  t.is(world.asked, asked);
});

test('an ejected endpoint is left out, and looked for as long as it is', async (t) => {
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1'), backend('b', '10.2.0.2')] });
  world.weights.set('10.2.0.1:8080', 0);
  world.activity += 1;
  world.clock.advance(100);
  t.deepEqual(endpointsAt(world), [['10.2.0.2', 1]]);
  world.clock.advance(300_000);
  world.weights.set('10.2.0.1:8080', 1);
  world.clock.advance(100);
  t.deepEqual(endpointsAt(world), [
    ['10.2.0.1', 1],
    ['10.2.0.2', 1],
  ]);
});

for (const [title, changes] of [
  ['that not everybody sees', { visibility: 'namespace' }],
  [
    'with a waypoint',
    { waypoint: { destination: { kind: 'hostname', namespace: 'shop', hostname: 'wp' }, hboneMtlsPort: 15008 } },
  ],
  [
    'that selects nothing',
    { loadBalancing: { mode: 'passthrough', routingPreference: [], healthPolicy: 'only-healthy' } },
  ],
  ['of another network', { addresses: [{ network: 'far', address: addressOf('10.96.0.1') }] }],
  ['at the address of a workload', { addresses: [{ network: '', address: addressOf('10.0.0.2') }] }],
] as const)
  test(`leaves a service ${title} to the tunnel`, async (t) => {
    const world = await setUp({ services: [{ ...shop, ...changes }], workloads: [web, db, backend('a', '10.2.0.1')] });
    t.is(world.kernel.services.size, 0);
  });

for (const [title, change] of [
  ['removed', { removed: ['shop/web.shop.svc.cluster.local'] }],
  ['no longer seen by everybody', { services: [{ ...shop, visibility: 'namespace' }] }],
  [
    'given a waypoint',
    {
      services: [
        {
          ...shop,
          waypoint: { destination: { kind: 'hostname', namespace: 'shop', hostname: 'wp' }, hboneMtlsPort: 15008 },
        },
      ],
    },
  ],
] as const)
  test(`a service that is ${title} is the tunnel's in the turn of the change, however much there is to write`, async (t) => {
    const others = Array.from({ length: 4_000 }, (_, index) =>
      service({
        name: `s${index}`,
        addresses: [{ network: '', address: addressOf(`10.97.${index >> 8}.${index & 255}`) }],
      }),
    );
    const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1')] });
    t.truthy(endpointsAt(world));
    const update = meshUpdate({ ...change, services: [...others, ...('services' in change ? change.services : [])] });
    const done = world.path.apply(update, () => world.model.apply(update));
    t.is(endpointsAt(world), undefined);
    await done;
    t.is(endpointsAt(world), undefined);
  });

test('leaves an address that two services have to the tunnel, and takes it when one is left', async (t) => {
  const other = service({ name: 'other' });
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1')] });
  t.truthy(endpointsAt(world));
  await world.update({ services: [other] });
  t.is(endpointsAt(world), undefined);
  await world.update({ removed: ['shop/other.shop.svc.cluster.local'] });
  t.truthy(endpointsAt(world));
});

test('leaves a service of more than 64 endpoints to the tunnel', async (t) => {
  const many = Array.from({ length: 65 }, (_, index) => backend(`b${index}`, `10.3.0.${index + 1}`));
  const world = await setUp({ services: [shop], workloads: [web, ...many] });
  t.is(endpointsAt(world), undefined);
  await world.update({ removed: [many[0]?.uid ?? ''] });
  t.is(endpointsAt(world)?.length, 64);
});

test('publishes services again when it had to begin anew', async (t) => {
  const world = await setUp({ services: [shop], workloads: [web, backend('a', '10.2.0.1')] });
  world.kernel.fail('flowRecords', new Error('boom'));
  world.clock.advance(50);
  t.is(world.path.status().state, 'failed');
  world.clock.advance(500);
  t.truthy(endpointsAt(world));
});

// --- the kubelet ------------------------------------------------------------------------------------------------------

test("a restarted kubelet's new group is taken over within half a second, and a missing one is nobody's", async (t) => {
  const world = new World({ kubeletPaths: ['/a/kubelet', '/b/kubelet'] });
  world.path.start();
  t.is(world.kernel.kubelet, undefined);
  t.is(world.path.status().kubelet, undefined);
  world.groups.set('/b/kubelet', { cgroup: 7n, level: 2 });
  world.clock.advance(500);
  t.deepEqual(world.kernel.kubelet, { cgroup: 7n, level: 2 });
  t.is(world.path.status().kubelet, '/b/kubelet');
  world.groups.set('/b/kubelet', { cgroup: 8n, level: 2 });
  world.clock.advance(500);
  t.is(world.kernel.kubelet?.cgroup, 8n);
  world.groups.clear();
  world.clock.advance(500);
  t.is(world.kernel.kubelet, undefined);
});

test('a kernel that does not take the kubelet is told again', (t) => {
  const world = new World({ kubeletPaths: ['/a/kubelet'] });
  world.groups.set('/a/kubelet', { cgroup: 7n, level: 2 });
  world.kernel.fail('setKubelet', new Error('boom'));
  world.path.start();
  t.is(world.path.status().kubelet, undefined);
  world.clock.advance(500);
  t.is(world.kernel.kubelet?.cgroup, 7n);
  t.is(world.path.status().kubelet, '/a/kubelet');
});

test('the root of all control groups is nobody', (t) => {
  const world = new World({ kubeletPaths: ['/a/kubelet.service'] });
  world.groups.set('/a/kubelet.service', { cgroup: 7n, level: 2 });
  world.path.start();
  t.is(world.kernel.kubelet?.cgroup, 7n);
  world.groups.set('/a/kubelet.service', { cgroup: 1n, level: 0 });
  world.clock.advance(2_000);
  t.is(world.kernel.kubelet, undefined);
  t.is(world.path.status().kubelet, undefined);
  t.is(world.log.entries.filter(({ level }) => level === 'error').length, 1);
});

test('a group that may hold others beside the kubelet is taken with a warning', (t) => {
  const warnings = (path: string): number => {
    const world = new World({ kubeletPaths: [path] });
    world.groups.set(path, { cgroup: 7n, level: 1 });
    world.path.start();
    t.is(world.kernel.kubelet?.cgroup, 7n);
    return world.log.entries.filter(({ level }) => level === 'warn').length;
  };
  t.is(warnings('/sys/fs/cgroup/kubelet.slice'), 1);
  t.is(warnings('/sys/fs/cgroup/system.slice/kubelet.service'), 0);
});
