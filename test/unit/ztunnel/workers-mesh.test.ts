import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import * as addon from '../../../native/addon/index.js';
import {
  type Address,
  DEFAULT_SETTINGS,
  encodeAddress,
  type FlowRecord,
  identityOf,
  type MeshUpdate,
  type NetnsCookie,
  type Pod,
  type SpiffeId,
  type Workload,
} from '../../../src/mesh/index.ts';
import {
  HBONE_PORT,
  OUTBOUND_PORT,
  type PathRequest,
  type ServablePod,
  TunnelWorkers,
} from '../../../src/ztunnel/index.ts';
import { meshUpdate } from '../../contract/fakes/mesh.ts';
import { FakeSeries } from '../../contract/fakes/series.ts';
import { accepting } from '../../contract/pod-sockets.ts';
import { makeAuthority } from '../../pki.ts';
import { deny, dryRun } from '../policy/policies.ts';
import type { FakeComposition } from './fake-worker.ts';
import { ending, type Listening, listening } from './loopback.ts';
import { workload } from './mesh.ts';

const LOOPBACK = '127.0.0.1' as Address;
const NODE = 'n1';

/** One of the two pods of the node's one worker. */
interface Side {
  readonly cookie: NetnsCookie;
  readonly workload: Workload;
  readonly pod: Pod;
  readonly prepared: ServablePod;
  /** Our duplicates of the pod's namespace. */
  readonly namespaces: number[];
}

/** A client and a server in the mesh: the client's app talks to the server's through the tunnel. */
interface Setup {
  readonly tunnel: TunnelWorkers;
  readonly client: Side;
  readonly server: Side;
  readonly app: Listening;
  readonly update: MeshUpdate;
  readonly logged: Array<Record<string, unknown>>;
  /** What was asked of the main thread. */
  readonly wanted: SpiffeId[];
  readonly paths: PathRequest[];
  readonly flows: FlowRecord[];
  readonly series: FakeSeries;
  certify(workload: Workload): Promise<void>;
  open(): Socket;
  /** Ends the worker without a word. */
  exit(): void;
}

async function setUp(t: { teardown(run: () => unknown): void }): Promise<Setup> {
  const prefix = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`;
  const address = `${prefix}.2` as Address;
  const app = await listening({ host: address });
  const outbound = await openListener(LOOPBACK, 0);
  const fatal = await openListener(LOOPBACK, 0);
  const hbone = await openListener(address, HBONE_PORT);
  const client = side(7n, workload('client', { addresses: [`${prefix}.1`], node: NODE }), [
    { port: OUTBOUND_PORT, slot: 0, fd: outbound.fd },
    { port: OUTBOUND_PORT, slot: 0, fd: fatal.fd },
  ]);
  const server = side(8n, workload('server', { addresses: [address], node: NODE }), [
    { port: HBONE_PORT, slot: 0, fd: hbone.fd },
  ]);
  const sides = [client, server];
  const composition: FakeComposition = {
    destinations: { [outbound.port]: { address, port: app.port } },
    crash: [],
    exit: [fatal.port],
    fault: [],
  };
  const workloads = sides.map((each) => each.workload);
  const update = {
    complete: true,
    workloads,
    services: [],
    removed: [],
    policies: [],
    removedPolicies: [],
    settings: DEFAULT_SETTINGS,
  };
  const logged: Array<Record<string, unknown>> = [];
  const log = (fields: object, message: string): void => void logged.push({ message, ...fields });
  const wanted: SpiffeId[] = [];
  const paths: PathRequest[] = [];
  const flows: FlowRecord[] = [];
  const series = new FakeSeries();
  const tunnel = new TunnelWorkers(
    {
      log: { debug: log, info: log, warn: log, error: log },
      duplicate: (fd) => {
        const copy = addon.duplicate(fd);
        for (const { prepared, namespaces } of sides) if (fd === prepared.netnsFd) namespaces.push(copy);
        return copy;
      },
      meshSnapshot: () => update,
      wantCertificate: (identity) => wanted.push(identity),
      pathWanted: (request) => paths.push(request),
      flows: { add: (records) => void flows.push(...records) },
      series,
    },
    {
      entry: new URL('./fake-worker.ts', import.meta.url),
      workers: 1,
      descriptorLimit: 100,
      descriptorReserve: 0,
      mesh: { node: NODE },
      composition,
    },
  );
  t.teardown(async () => {
    await tunnel.shutdown(0);
    for (const { prepared } of sides) for (const { fd } of prepared.listeners) closeSync(fd);
    for (const { prepared } of sides) closeSync(prepared.netnsFd);
    app.server.close();
  });
  const authority = await makeAuthority();
  return {
    tunnel,
    client,
    server,
    app,
    update,
    logged,
    wanted,
    paths,
    flows,
    series,
    certify: async (to) => {
      const certificate = await authority.issue({ identity: identityOf(to) });
      tunnel.updateCertificate({ kind: 'issued', certificate });
    },
    open: () => connect({ host: LOOPBACK, port: outbound.port, allowHalfOpen: true }).on('error', () => {}),
    exit: () => void connect({ host: LOOPBACK, port: fatal.port }).on('error', () => {}),
  };
}

function side(cookie: bigint, workload: Workload, listeners: ServablePod['listeners']): Side {
  const { name, namespace, serviceAccount } = workload;
  return {
    cookie: cookie as NetnsCookie,
    workload,
    pod: { name, namespace, serviceAccount } as Pod,
    prepared: { cookie: cookie as NetnsCookie, netnsFd: openSync('/dev/null', 'r'), listeners },
    namespaces: [],
  };
}

async function serve({ tunnel, client, server }: Setup): Promise<void> {
  await tunnel.serve(client.pod, client.prepared);
  await tunnel.serve(server.pod, server.prepared);
}

async function openListener(address: Address, port: number): Promise<{ fd: number; port: number }> {
  const fd = addon.socketOpen({ family: 4, bind: { address: encodeAddress(address), port }, backlog: 64 });
  const by = await accepting(addon.duplicate(fd));
  by.close();
  return { fd, port: by.port };
}

async function echo(setup: Setup): Promise<{ client: Socket; server: Socket }> {
  const client = setup.open();
  client.write('ping');
  const server = await setup.app.accepted();
  server.write((await once(server, 'data'))[0]);
  await once(client, 'data');
  return { client, server };
}

/** Resolves when the condition holds; the worker's numbers come without an event. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

function isOpen(fd: number | undefined): boolean {
  try {
    fstatSync(fd ?? -1);
    return true;
  } catch {
    return false;
  }
}

/** Tells the tunnel all that a connection needs, and has both pods served. */
async function begin(t: { teardown(run: () => unknown): void }): Promise<Setup> {
  const setup = await setUp(t);
  const { tunnel, update, client, server } = setup;
  void tunnel.updateMesh(update);
  await setup.certify(client.workload);
  await setup.certify(server.workload);
  await serve(setup);
  return setup;
}

function end({ client, server }: { client: Socket; server: Socket }): void {
  for (const socket of [client, server]) socket.resume().end();
}

/** What is open goes on in both directions. */
async function alive(t: ExecutionContext, { client, server }: { client: Socket; server: Socket }): Promise<void> {
  server.write('down');
  t.deepEqual(await once(client, 'data'), [Buffer.from('down')]);
  client.write('up');
  t.deepEqual(await once(server, 'data'), [Buffer.from('up')]);
}

test.serial('a connection waits for the mesh and for its certificate, and then goes through the tunnel', async (t) => {
  const setup = await setUp(t);
  const { tunnel, client, server, wanted } = setup;
  await serve(setup);
  const echoed = echo(setup);
  await until(() => tunnel.status().totals.accepted === 1);
  void tunnel.updateMesh(setup.update);
  for (const { workload } of [client, server]) {
    await until(() => wanted.includes(identityOf(workload)));
    await setup.certify(workload);
  }
  t.deepEqual(wanted, [identityOf(client.workload), identityOf(server.workload)]);
  const open = await echoed;
  const busy = tunnel.status();
  t.deepEqual(busy.socketsOpen, { source: 1, destination: 1 });
  t.deepEqual(busy.paths, { outbound: { tunnel: 1, plain: 0, passthrough: 0 }, inbound: { tunnel: 1, plain: 0 } });
  // Both ends of the one session are in this worker.
  t.deepEqual(busy.sessions, { open: 2, opened: 2, handshakesFailed: 0 });
  t.deepEqual(
    [client, server].map(({ cookie }) => busy.openConnections.get(cookie)),
    [1, 1],
  );
  t.is(busy.descriptors.open, 3 + 2 + 2);
  end(open);
  await until(() => tunnel.status().ended.clean === 2);
  t.is(tunnel.status().descriptors.open, 3 + 2);
});

test.serial('a worker that takes the place of another is told of the mesh and the certificates', async (t) => {
  const setup = await begin(t);
  await echo(setup);
  setup.exit();
  await until(() => setup.tunnel.status().workers[0]?.restarts === 1);
  await echo(setup);
  t.deepEqual(setup.wanted, []);
  t.is(setup.tunnel.status().paths.outbound.tunnel, 2);
});

test.serial('a change of the mesh is told to be in force when no worker acts on what was before', async (t) => {
  const setup = await begin(t);
  const { tunnel } = setup;
  const { client } = await echo(setup);
  const ended = ending(client);
  await tunnel.updateMesh(meshUpdate({ policies: [deny([]), dryRun(deny([]))] }));
  t.is((await ending(setup.open())).how, 'ECONNRESET');
  t.is((await ended).how, 'ECONNRESET');
  await until(() => tunnel.status().totals.closed === 4);
  const { ended: reasons, policy, totals } = tunnel.status();
  t.like(reasons, { 'policy-changed': 1, 'policy-denied': 1 });
  t.deepEqual(policy, {
    decisions: {
      'no-policy': 1,
      'no-allow-policy': 0,
      allowed: 0,
      denied: 1,
      'not-allowed': 0,
      'unknown-policy': 0,
      'workload-unknown': 0,
    },
    dryRun: { denies: 1, allows: 0 },
    closed: 1,
  });
  t.is(totals.failed, 2, 'at both ends');
  await until(() => setup.logged.some(({ message }) => message === 'connection closed'));
  t.like(
    setup.logged.find(({ message }) => message === 'connection closed'),
    { worker: 0, policy: 'shop/deny' },
  );
});

test.serial('a change of the mesh does not wait for a worker that ends, and its successor knows it', async (t) => {
  const setup = await begin(t);
  const { tunnel, update } = setup;
  await echo(setup);
  setup.exit();
  const policies = [deny([])];
  Object.assign(update, { policies });
  await until(() => tunnel.status().workers[0]?.restarts === 1);
  setup.exit();
  await tunnel.updateMesh(meshUpdate({ policies }));
  await until(() => tunnel.status().workers[0]?.restarts === 2);
  t.is((await ending(setup.open())).how, 'ECONNRESET');
  t.is(tunnel.status().ended['policy-denied'], 1);
});

test.serial(
  'the main thread is asked once for the way to a pod of this node, and told of what has ended',
  async (t) => {
    const setup = await begin(t);
    const { client, server, app, paths, flows } = setup;
    for (let count = 0; count < 3; count += 1) end(await echo(setup));
    await until(() => flows.length === 6);
    const destination = { address: server.workload.addresses[0], port: app.port };
    t.deepEqual(paths, [{ source: client.cookie, destination }]);
    t.deepEqual(flows.map(({ pod, direction, ended }) => `${pod} ${direction} ${ended}`).sort(), [
      ...Array(3).fill('7 outbound clean'),
      ...Array(3).fill('8 inbound clean'),
    ]);
    t.like(flows[0], { server: destination, path: 'tunnel', sourceIdentity: identityOf(client.workload) });
    t.deepEqual(new Set(flows.map(({ id }) => id)).size, 3, 'both agents know a connection by the same name');
    for (const reporter of ['source', 'destination']) {
      const counted = (cell: 'opened' | 'closed' | 'failed' | 'received' | 'sent') =>
        setup.series.sum(cell, { reporter, connection_security_policy: 'mutual_tls', response_flags: '-' });
      t.deepEqual(
        [counted('opened'), counted('closed'), counted('failed'), counted('received'), counted('sent')],
        [3, 3, 0, 12, 12],
      );
    }
    t.is(setup.tunnel.status().recordsLost, 0);
  },
);

test.serial('a certificate that cannot be had is told with the record, and the addresses', async (t) => {
  const setup = await setUp(t);
  const { tunnel, client, server } = setup;
  await serve(setup);
  void tunnel.updateMesh(setup.update);
  const broken = ending(setup.open());
  await until(() => setup.wanted.length > 0);
  tunnel.updateCertificate({ kind: 'unavailable', identity: identityOf(client.workload), reason: 'the CA is away' });
  t.is((await broken).how, 'ECONNRESET');
  await until(() => setup.flows.length > 0);
  const [address] = server.workload.addresses;
  t.like(setup.flows[0], {
    direction: 'outbound',
    stage: 'addressed',
    ended: 'tunnel-identity',
    dialled: { address, port: HBONE_PORT },
    authority: `${address}:${setup.app.port}`,
  });
  t.is(setup.series.sum('failed', { response_flags: 'IDENTITY_ERROR' }), 1);
  t.is(tunnel.status().ended['tunnel-identity'], 1);
  t.is(tunnel.status().totals.failed, 1);
});

test.serial("a pod's namespace is kept until its last connection has ended, and no longer", async (t) => {
  const setup = await begin(t);
  const { tunnel, client } = setup;
  await serve(setup);
  t.is(client.namespaces.length, 1);
  const [namespace] = client.namespaces;
  const open = await echo(setup);
  await tunnel.stopAccepting(client.cookie);
  t.true(isOpen(namespace));
  end(open);
  await until(() => !isOpen(namespace));
  t.is(tunnel.status().openConnections.get(client.cookie) ?? 0, 0);
  // Its sessions have ended as well: nobody is left to use them.
  await until(() => tunnel.status().sessions.open === 0);
  await tunnel.serve(client.pod, client.prepared);
  t.is(client.namespaces.length, 2);
  await echo(setup);
});

test.serial("a pod's namespace is kept until its last session has ended, since a peer may still ask", async (t) => {
  const setup = await begin(t);
  const { tunnel, server } = setup;
  end(await echo(setup));
  await until(() => tunnel.status().ended.clean === 2);
  t.is(tunnel.status().sessions.open, 2);
  const [namespace] = server.namespaces;
  await tunnel.stopAccepting(server.cookie);
  let wasOpen = isOpen(namespace);
  for (; tunnel.status().sessions.open === 2; wasOpen = isOpen(namespace)) {
    if (!wasOpen) return t.fail('closed before the session');
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until(() => !isOpen(namespace));
  t.pass();
});

for (const which of ['client', 'server'] as const) {
  /** Another pod, or the same one under another account, is in the namespace from now on. */
  const become = async (setup: Setup, wish: { name?: string; serviceAccount: string }): Promise<void> => {
    const { tunnel, wanted, update } = setup;
    const { workload: before, pod, prepared } = setup[which];
    const next: Workload = { ...before, ...wish };
    void tunnel.updateMesh({ ...update, complete: false, workloads: [next] });
    await tunnel.serve({ ...pod, ...wish }, prepared);
    const echoed = echo(setup);
    await until(() => wanted.length > 0 || tunnel.status().totals.failed > 0);
    if (wanted[0] !== identityOf(next)) throw new Error(`it speaks as ${wanted[0]}`);
    await setup.certify(next);
    await echoed;
  };

  test.serial(`a ${which} that is enrolled again under another service account speaks with its identity`, async (t) => {
    const setup = await begin(t);
    const before = await echo(setup);
    await become(setup, { serviceAccount: 'second' });
    await alive(t, before);
    const { openConnections, paths } = setup.tunnel.status();
    t.is(openConnections.get(setup[which].cookie), 2);
    t.is(paths.outbound.tunnel, 2);
  });

  test.serial(`a ${which} in the namespace of one that was withdrawn speaks with its own identity`, async (t) => {
    const setup = await begin(t);
    const { tunnel } = setup;
    const { cookie, namespaces } = setup[which];
    const before = await echo(setup);
    await tunnel.stopAccepting(cookie);
    await become(setup, { name: 'next', serviceAccount: 'next' });
    await alive(t, before);
    t.is(tunnel.status().openConnections.get(cookie), 2);
    // It is the same namespace, and closed when neither needs it.
    t.is(namespaces.length, 1);
    await tunnel.stopAccepting(cookie);
    t.true(isOpen(namespaces[0]));
    await tunnel.drop(cookie);
    t.false(isOpen(namespaces[0]));
    t.is(tunnel.status().ended['pod-dropped'], 2);
  });
}

test.serial('a worker that ends does not close the namespace under its successor, nor leave it open', async (t) => {
  const setup = await begin(t);
  const { tunnel, client } = setup;
  setup.exit();
  await until(() => tunnel.status().workers[0]?.restarts === 1);
  await echo(setup);
  const [namespace] = client.namespaces;
  t.true(isOpen(namespace));
  await tunnel.drop(client.cookie);
  t.false(isOpen(namespace));
});

test.serial('shutdown lets what is in the tunnel finish, and then ends its sessions', async (t) => {
  const setup = await begin(t);
  const open = await echo(setup);
  const down = setup.tunnel.shutdown(60_000);
  open.server.write('not yet');
  t.deepEqual(await once(open.client, 'data'), [Buffer.from('not yet')]);
  end(open);
  await down;
  t.is(setup.tunnel.status().ended.clean, 2);
});

test.serial('shutdown resets what is in the tunnel at its deadline', async (t) => {
  const setup = await begin(t);
  const { client, server } = await echo(setup);
  const endings = Promise.all([ending(client), ending(server)]);
  await setup.tunnel.shutdown(20);
  t.deepEqual(
    (await endings).map(({ how }) => how),
    ['ECONNRESET', 'ECONNRESET'],
  );
  t.is(setup.tunnel.status().ended['drain-deadline'], 2);
});
