import { once } from 'node:events';
import type { Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type AuthorizationPolicy, identityOf, type Workload } from '../../../src/mesh/index.ts';
import type { DecisionReason } from '../../../src/policy/index.ts';
import { SocketClient } from '../../../src/ztunnel/client.ts';
import { dialApp } from '../../../src/ztunnel/inbound/app.ts';
import { OpenConnection } from '../../../src/ztunnel/open-connection.ts';
import type { PodTunnel } from '../../../src/ztunnel/pod-tunnel.ts';
import type { PodSockets } from '../../../src/ztunnel/ports.ts';
import { FakeSeries } from '../../contract/fakes/series.ts';
import { allow, deny, dryRun, global, named, selected, unlessThroughWaypoint } from '../policy/policies.ts';
import { ending, pair } from './loopback.ts';
import { byName, endpoint, memberOf, service, workload } from './mesh.ts';
import { World, type WorldApp, type WorldPod } from './mesh-world.ts';

interface Two {
  readonly world: World;
  readonly client: WorldPod;
  readonly server: WorldPod;
  readonly app: WorldApp;
}

type Wish = Parameters<World['pod']>[1];

const law = (title: string, run: (t: ExecutionContext) => Promise<void>): void =>
  test(title, async (t) => {
    t.timeout(60_000);
    await run(t);
  });

async function two(t: ExecutionContext, wish: { client?: Wish; server?: Wish } = {}): Promise<Two> {
  const world = await World.create(t);
  const client = await world.pod('client', wish.client);
  const server = await world.pod('server', wish.server);
  const app = await world.app(server);
  world.tell();
  return { world, client, server, app };
}

const CLIENT = 'cluster.local/ns/shop/sa/client';
const ONLY_CLIENT = allow({ principals: [CLIENT] });
const NOT_CLIENT = deny({ principals: [CLIENT] });
const NOBODY = allow();
/** What STRICT mutual TLS is (wire contract, section 5.4). */
const STRICT = named('istio-system/istio_converted_static_strict', selected(deny({ notPrincipals: ['*'] })));
const REJECTED = 'connection closed due to policy rejection: ';

const cases: ReadonlyArray<
  readonly [
    law: string,
    policies: readonly AuthorizationPolicy[],
    tunnel: DecisionReason | undefined,
    plain: DecisionReason | undefined,
  ]
> = [
  ['no policy: everybody is let in', [], undefined, undefined],
  [
    'an ALLOW policy that names the client lets in the client, and nobody who proves nothing',
    [ONLY_CLIENT],
    undefined,
    'not-allowed',
  ],
  ['an ALLOW policy without rules lets nobody in', [NOBODY], 'not-allowed', 'not-allowed'],
  ['a DENY policy that names the client', [NOT_CLIENT], 'denied', undefined],
  ['a DENY policy of the whole mesh', [global(deny([]))], 'denied', 'denied'],
  ['a DENY policy is stronger than an ALLOW policy', [ONLY_CLIENT, NOT_CLIENT], 'denied', 'not-allowed'],
  ['STRICT for those who prove nothing', [STRICT], undefined, 'denied'],
  ['a policy of another namespace says nothing', [named('elsewhere/deny', deny([]))], undefined, undefined],
  ['a dry-run policy only says what it would do', [dryRun(deny([])), dryRun(NOBODY)], undefined, undefined],
];

for (const [title, policies, tunnel, plain] of cases) {
  const strict = { workload: { authorizationPolicies: [`${STRICT.namespace}/${STRICT.name}`] } };
  const wish = policies.includes(STRICT) ? { server: strict } : {};

  law(`${title}: through the tunnel`, async (t) => {
    const all = await two(t, wish);
    all.world.rule(...policies);
    if (tunnel === undefined) return await letIn(t, all.server, all.app, all.client.open(all.app.endpoint));
    await refusedThroughTheTunnel(t, all, tunnel);
  });

  law(`${title}: in plain`, async (t) => {
    const all = await two(t, wish);
    all.world.rule(...policies);
    if (plain === undefined) return await letIn(t, all.server, all.app, all.server.openPlain(all.app.endpoint));
    await refusedInPlain(t, all, plain);
  });
}

async function letIn(t: ExecutionContext, server: WorldPod, app: WorldApp, near: Socket): Promise<void> {
  await echo(app, near);
  t.true(server.decisions[0]?.allowed);
}

async function refusedThroughTheTunnel(t: ExecutionContext, all: Two, reason: DecisionReason): Promise<void> {
  let dialled = 0;
  const count = (): void => {
    dialled += 1;
  };
  all.app.server.on('connection', count);
  t.is((await ending(all.client.open(all.app.endpoint))).how, 'ECONNRESET');
  await all.client.until(() => all.client.records.length === 1);
  await all.server.until(() => all.server.records.length === 1);
  t.is(all.server.records[0]?.ended, 'policy-denied');
  t.is(all.server.decisions[0]?.reason, reason);
  t.like(all.server.records[0], {
    stage: 'addressed',
    error: REJECTED + all.server.decisions[0]?.text,
    decision: { allowed: false, policy: policyOf(all.server) },
    subject: { path: 'tunnel', sourceIdentity: identityOf(all.client.workload), source: { workload: 'client' } },
  });
  t.is(all.client.records[0]?.ended, 'tunnel-refused');
  t.is(all.client.records[0]?.error, 'http status: 401 Unauthorized');
  for (const { series } of [all.client, all.server])
    t.deepEqual([series.sum('opened'), series.sum('closed'), series.sum('failed')], [1, 1, 1]);
  t.is(all.server.series.sum('failed', { response_flags: 'DENY' }), 1);
  t.is(all.client.sessionsOpened, 1, 'nothing is tried again');
  t.is(dialled, 0);
  all.app.server.off('connection', count);
}

/** The one that the record is to name. */
function policyOf({ decisions: [first] }: WorldPod): string | undefined {
  return first?.policy ?? first?.candidates[0];
}

async function refusedInPlain(t: ExecutionContext, all: Two, reason: DecisionReason): Promise<void> {
  const refused = await ending(all.server.openPlain(all.app.endpoint));
  t.deepEqual(refused, { bytes: Buffer.alloc(0), how: 'ECONNRESET' });
  await all.server.until(() => all.server.records.length === 1);
  t.is(all.server.records[0]?.ended, 'policy-denied');
  t.is(all.server.decisions[0]?.reason, reason);
  t.like(all.server.records[0], {
    stage: 'addressed',
    error: REJECTED + all.server.decisions[0]?.text,
    subject: { path: 'plain', sourceIdentity: undefined },
  });
}

law('the texts of a denial are those of the wire contract, and it is put down to a policy', async (t) => {
  const all = await two(t);
  for (const [policy, text] of [
    [NOT_CLIENT, 'explicitly denied by: shop/deny'],
    [NOBODY, 'allow policies exist, but none allowed'],
  ] as const) {
    all.world.rule(policy);
    all.server.records.length = 0;
    await ending(all.client.open(all.app.endpoint));
    await all.server.until(() => all.server.records.length > 0);
    t.like(all.server.records[0], {
      error: REJECTED + text,
      decision: { policy: `${policy.namespace}/${policy.name}` },
    });
  }
});

law('a workload that names a policy which nobody knows is closed to all, until it is known', async (t) => {
  const all = await two(t, { server: { workload: { authorizationPolicies: ['shop/missing'] } } });
  await refusedThroughTheTunnel(t, all, 'unknown-policy');
  all.world.rule(named('shop/missing', selected(ONLY_CLIENT)));
  await echo(all.app, all.client.open(all.app.endpoint));
  t.is(all.server.decisions[1]?.reason, 'allowed');
});

law('plaintext waits for the pod to be known, and is let in then', async (t) => {
  const world = await World.create(t);
  const server = await world.pod('server');
  const app = await world.app(server);
  const near = server.openPlain(app.endpoint);
  await server.until(() => server.held === 2);
  t.is(server.decisions.length, 0);
  world.tell();
  await echo(app, near);
  t.is(server.decisions.length, 1);
});

law('plaintext to a pod that the mesh does not know is refused', async (t) => {
  const world = await World.create(t);
  const server = await world.pod('server', { unknown: true });
  const app = await world.app(server);
  world.tell();
  const refused = ending(server.openPlain(app.endpoint));
  t.is((await refused).how, 'ECONNRESET');
  await server.until(() => server.records.length === 1);
  t.like(server.records[0], {
    ended: 'mesh-unknown',
    stage: 'early',
    subject: { direction: 'inbound', path: 'plain' },
  });
  t.is(server.series.sum('opened'), 0);
});

for (const how of ['through the tunnel', 'in plain'] as const) {
  const open = (all: Two): Socket =>
    how === 'in plain' ? all.server.openPlain(all.app.endpoint) : all.client.open(all.app.endpoint);
  const allowed = how === 'in plain' ? allow({ destinationPorts: [1, 2] }, {}) : ONLY_CLIENT;
  const forbidding = how === 'in plain' ? deny({ notPrincipals: ['*'] }) : NOT_CLIENT;

  law(`what a change of policy forbids is reset ${how}, at both ends`, async (t) => {
    const all = await two(t);
    const [near, far] = await echo(all.app, open(all));
    const endings = Promise.all([ending(near), ending(far)]);
    all.world.rule(forbidding);
    t.deepEqual(
      (await endings).map(({ how }) => how),
      ['ECONNRESET', 'ECONNRESET'],
    );
    await all.server.until(() => all.server.records.length === 1);
    t.is(all.server.records[0]?.ended, 'policy-changed');
    t.like(all.server.records[0], {
      stage: 'connected',
      error: 'connection closed due to policy change',
      decision: { policy: 'shop/deny' },
    });
    t.is(all.server.series.sum('closed', { response_flags: 'DENY' }), 1);
    t.like(all.server.logged[0], {
      message: 'connection closed',
      direction: 'inbound',
      reason: 'policy-changed',
      error: 'connection closed due to policy change',
      policy: 'shop/deny',
      decision: 'explicitly denied by: shop/deny',
    });
    t.is(all.server.logged.length, 1);
  });

  law(`a change of policy while the app is dialled ${how} ends the dial, and nothing reaches the app`, async (t) => {
    const opened: Socket[] = [];
    const hang = (sockets: PodSockets): PodSockets => ({
      ...sockets,
      openInbound: (...args) => {
        const socket = sockets.openInbound(...args);
        // It never answers.
        socket.connect = () => socket;
        opened.push(socket);
        return socket;
      },
    });
    const all = await two(t, { server: { sockets: hang } });
    const ended = ending(open(all));
    while (opened.length === 0) await turn();
    all.world.rule(forbidding);
    t.is((await ended).how, 'ECONNRESET');
    t.true(opened[0]?.destroyed);
    await all.server.until(() => all.server.records.length === 1);
    t.is(all.server.records[0]?.ended, 'policy-changed');
    t.is(all.server.held - all.server.sessions, 0);
  });

  law(`what a change of policy does not forbid lives on ${how}`, async (t) => {
    const all = await two(t);
    const [near, far] = await echo(all.app, open(all));
    if (how === 'through the tunnel') all.world.rule(allowed);
    else all.world.rule(deny({ principals: ['*'] }));
    far.write('still here');
    t.deepEqual(await once(near, 'data'), [Buffer.from('still here')]);
    t.is(all.server.records.length, 0);
  });
}

law('a change of the workload counts as a change of policy', async (t) => {
  const all = await two(t);
  all.world.rule(selected(named('shop/later', NOT_CLIENT)));
  const [near] = await echo(all.app, all.client.open(all.app.endpoint));
  const ended = ending(near);
  const { workload: before } = all.server;
  all.world.change({ workloads: [{ ...before, authorizationPolicies: ['shop/later'] }] });
  t.is((await ended).how, 'ECONNRESET');
  await all.server.until(() => all.server.records.length === 1);
  t.is(all.server.records[0]?.ended, 'policy-changed');
});

law('a pod that nobody knows any more keeps what it has, judged by what it was, and gets nothing new', async (t) => {
  const all = await two(t);
  const [near, far] = await echo(all.app, all.client.open(all.app.endpoint));
  const { workload: before } = all.server;
  all.world.change({ removed: [before.uid] });
  far.write('still here');
  t.deepEqual(await once(near, 'data'), [Buffer.from('still here')]);
  const ended = ending(near);
  all.world.rule(NOT_CLIENT);
  t.is((await ended).how, 'ECONNRESET');
});

law('each change is judged once, and a permitted connection can be forbidden after any number of them', async (t) => {
  const all = await two(t);
  const [near] = await echo(all.app, all.client.open(all.app.endpoint));
  all.world.rule(ONLY_CLIENT);
  all.world.rule(ONLY_CLIENT, deny({ principals: ['cluster.local/ns/shop/sa/other'] }));
  all.world.tell();
  t.is(all.server.records.length, 0);
  const ended = ending(near);
  all.world.rule(NOBODY);
  t.is((await ended).how, 'ECONNRESET');
});

law('a pod that calls itself is asked for its own identity', async (t) => {
  const all = await two(t);
  const { client, world } = all;
  const app = await world.app(client);
  await echo(app, client.open(app.endpoint));
  t.deepEqual(
    client.decisions.map(({ reason }) => reason),
    ['no-policy'],
  );
  world.rule(allow({ principals: [CLIENT] }));
  const [near] = await echo(app, client.open(app.endpoint));
  const ended = ending(near);
  world.rule(NOT_CLIENT);
  t.is((await ended).how, 'ECONNRESET');
  t.is((await ending(client.open(app.endpoint))).how, 'ECONNRESET');
  await client.until(() => client.records.length === 3);
  t.deepEqual(client.records.map(({ ended: why }) => why).sort(), [
    'policy-changed',
    'policy-changed',
    'policy-denied',
  ]);
  t.deepEqual(client.direct, [], 'no other way is asked for');
});

law('without a permit no app is dialled where there is a mesh', async (t) => {
  const [near, accepted] = await pair();
  const client = new SocketClient(accepted, () => undefined);
  const connection = new OpenConnection(client, {
    series: new FakeSeries().table(),
    meter: { measure: () => undefined },
    beforeEnd: () => undefined,
    holds: () => undefined,
  });
  const openInbound = (): Socket => {
    throw new Error('a socket was opened');
  };
  const deps = { sockets: { openInbound, isSpokenFor: () => true }, netnsFd: 0, tunnel: {} as PodTunnel };
  const app = endpoint('127.0.0.1:1');
  t.is((await dialApp(undefined, connection, app, app, deps))?.reason, 'policy-denied');
  near.destroy();
});

law('what a dry-run policy would do is told, and done by nobody', async (t) => {
  const all = await two(t);
  all.world.rule(dryRun(NOT_CLIENT), dryRun(allow({ principals: [CLIENT] })));
  await echo(all.app, all.client.open(all.app.endpoint));
  t.deepEqual(all.server.decisions[0]?.dryRun.map(({ policy, would }) => `${policy} ${would}`).sort(), [
    'shop/dry-allow allow',
    'shop/dry-deny deny',
  ]);
  t.is(all.server.logged.length, 1);
  t.like(all.server.logged[0], {
    message: 'policy dry run',
    'src.identity': identityOf(all.client.workload),
    policy: 'shop/dry-deny',
    would: 'deny',
  });
});

law('a DENY rule that a waypoint looks at holds for all who do not come from that waypoint', async (t) => {
  const services = memberOf('shop');
  const all = await two(t, { server: { workload: { services } } });
  const waypoint: Workload = workload('waypoint', { serviceAccount: 'client', services: memberOf('gate') });
  const shop = service('shop', { addresses: ['10.9.0.1'], waypoint: byName('gate') });
  const gate = service('gate', { addresses: ['10.9.0.9'], ports: { 15008: 15008 } });
  all.world.rule(unlessThroughWaypoint(deny([])));
  await refusedThroughTheTunnel(t, all, 'denied');
  // The client is an instance of the waypoint now.
  all.world.tell([shop, gate], [waypoint]);
  const [near] = await echo(all.app, all.client.open(all.app.endpoint));
  const ended = ending(near);
  // The policy and the pod are as they were, but the waypoint is somebody else.
  all.world.change({ workloads: [{ ...waypoint, serviceAccount: 'other' }] });
  t.is((await ended).how, 'ECONNRESET');
});

/** Sends something through and waits for the answer. */
async function echo(app: WorldApp, near: Socket): Promise<[near: Socket, far: Socket]> {
  near.write('ping');
  const far = await app.accepted();
  far.resume();
  const [asked] = await once(far, 'data');
  far.write(asked);
  await once(near, 'data');
  return [near, far];
}
