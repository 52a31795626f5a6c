import test from 'ava';
import type { MeshFollower } from '../../../src/agent/index.ts';
import { NodeMesh } from '../../../src/agent/node-mesh.ts';
import {
  type AuthorizationPolicy,
  identityOf,
  type MeshUpdate,
  ReadModel,
  type SpiffeId,
} from '../../../src/mesh/index.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';
import { FakeLog } from '../../contract/fakes/log.ts';
import { meshUpdate, service, workload } from '../../contract/fakes/mesh.ts';
import { FakeMeshSource } from '../../contract/fakes/mesh-source.ts';
import { FakeNodeCertificates } from '../../contract/fakes/node-certificates.ts';
import { FakeTunnelFeed } from '../../contract/fakes/tunnel-feed.ts';

const web = workload({ serviceAccount: 'web' });
const db = workload({ name: 'db-0', serviceAccount: 'db', node: 'n2' });
const plain = workload({ name: 'old-0', serviceAccount: 'old', protocol: 'tcp' });
const whole = meshUpdate({ complete: true, workloads: [web, db, plain], services: [service()] });

function setUp() {
  const [source, certificates, tunnel] = [new FakeMeshSource(), new FakeNodeCertificates(), new FakeTunnelFeed()];
  const clock = new FakeClock(Date.UTC(2026, 0, 1));
  const [model, kernelPath, log] = [new ReadModel(), new FakeFollower(), new FakeLog()];
  const deps = { source, certificates, tunnel, model, kernelPath, clock, log: log.log };
  const mesh = new NodeMesh(deps, { node: 'n1' });
  return { source, certificates, tunnel, clock, mesh, model, kernelPath, log };
}

/** Applies what it is given, and is done with it when a test says so. */
class FakeFollower implements MeshFollower {
  readonly applied: MeshUpdate[] = [];
  unknownPolicies: string[] = [];
  gate: Promise<void> = Promise.resolve();

  async apply(update: MeshUpdate, run: () => void): Promise<void> {
    run();
    this.applied.push(update);
    await this.gate;
  }

  status() {
    return { unknownPolicies: this.unknownPolicies };
  }
}

test('tells the tunnel every update as it came', (t) => {
  const { source, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  const change = meshUpdate({ removed: [db.uid] });
  source.publish(change);
  t.deepEqual(tunnel.updates, [whole, change]);
});

test('has every update applied by the kernel path, and says that it is in force when path and workers are done', async (t) => {
  const { source, tunnel, mesh, model, kernelPath, log } = setUp();
  mesh.start();
  const [path, workers] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  kernelPath.gate = path.promise;
  tunnel.gate = workers.promise;
  source.publish(whole);
  t.deepEqual(kernelPath.applied, [whole]);
  t.is(model.workload(web.uid)?.uid, web.uid);
  path.resolve();
  await path.promise;
  t.deepEqual(log.entries, []);
  workers.resolve();
  t.is((await log.next('the mesh is known')).level, 'info');
  source.publish(meshUpdate({ removed: [db.uid] }));
  t.deepEqual((await log.next('the mesh has changed')).fields, { workloads: 2, services: 1, policies: 0 });
});

test('says so when an update is not in force everywhere', async (t) => {
  const { source, tunnel, mesh, log } = setUp();
  mesh.start();
  tunnel.gate = Promise.reject(new Error('boom'));
  source.publish(whole);
  t.is((await log.next('an update of the mesh is not in force everywhere')).level, 'error');
});

test('has certificates issued for the tunnelled pods of its own node, and for no others', (t) => {
  const { source, certificates, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  t.deepEqual([...certificates.wanted], [identityOf(web)]);
  source.publish(meshUpdate({ workloads: [{ ...db, node: 'n1' }] }));
  t.deepEqual([...certificates.wanted].sort(), [identityOf(db), identityOf(web)]);
  source.publish(meshUpdate({ removed: [web.uid] }));
  t.deepEqual([...certificates.wanted], [identityOf(db)]);
  t.deepEqual(tunnel.certificates, [{ kind: 'forgotten', identity: identityOf(web) }]);
});

test('tells the tunnel every certificate', (t) => {
  const { source, certificates, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  const certificate = certificates.issue(identityOf(web), 1000);
  t.deepEqual(tunnel.certificates, [{ kind: 'issued', certificate }]);
});

test('asks for a certificate that a connection waits for', (t) => {
  const { source, certificates, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  mesh.wantCertificate(identityOf(web));
  t.deepEqual(certificates.requests, [identityOf(web)]);
  t.deepEqual(tunnel.certificates, []);
});

for (const identity of [identityOf(db), identityOf(plain), 'spiffe://cluster.local/ns/a/sa/b' as SpiffeId])
  test(`says that ${identity} is nobody's on this node`, (t) => {
    const { source, tunnel, mesh } = setUp();
    mesh.start();
    source.publish(whole);
    mesh.wantCertificate(identity);
    t.deepEqual(tunnel.certificates, [{ kind: 'forgotten', identity }]);
  });

test('passes new roots on to the certificates', (t) => {
  const { source, certificates, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  source.rotate(['root 1', 'root 2']);
  t.deepEqual(certificates.roots, ['root 1', 'root 2']);
});

test('has everything for a new worker, and nothing before it knows the mesh', (t) => {
  const { source, mesh } = setUp();
  mesh.start();
  t.like(mesh.snapshot(), {
    complete: false,
    workloads: [],
    services: [],
    removed: [],
    policies: [],
    removedPolicies: [],
  });
  source.publish(whole);
  source.publish(meshUpdate({ removed: [db.uid] }));
  const { complete, workloads, services, settings } = mesh.snapshot();
  t.true(complete);
  t.deepEqual(workloads.map(({ uid }) => uid).sort(), [plain.uid, web.uid].sort());
  t.deepEqual(services, [service()]);
  t.deepEqual(settings, whole.settings);
});

test('keeps everything while the source is away, and applies what has changed meanwhile', (t) => {
  const { source, certificates, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  source.goAway();
  t.is(mesh.snapshot().workloads.length, 3);
  t.deepEqual([...certificates.wanted], [identityOf(web)]);
  source.publish(meshUpdate({ removed: [db.uid] }));
  source.comeBack();
  t.deepEqual(tunnel.updates, [whole, meshUpdate({ removed: [db.uid] })]);
});

const sound: AuthorizationPolicy = {
  namespace: 'shop',
  name: 'sound',
  scope: 'namespace',
  action: 'deny',
  rules: [],
  dryRun: false,
};

test('its status says whether the source is there, what is known, and how the certificates stand', (t) => {
  const { source, certificates, clock, mesh, kernelPath } = setUp();
  mesh.start();
  t.deepEqual(mesh.status(), {
    node: 'n1',
    connected: false,
    since: '1970-01-01T00:00:00.000Z',
    reason: 'away',
    workloads: 0,
    services: 0,
    policies: 0,
    unknownPolicies: [],
    partialPolicies: [],
    certificates: [],
  });
  source.publish(whole);
  source.publish(meshUpdate({ policies: [sound, { ...sound, name: 'odd', partial: true }] }));
  kernelPath.unknownPolicies = ['shop/lost'];
  clock.advance(5_000);
  t.deepEqual(mesh.status(), {
    node: 'n1',
    connected: true,
    since: '1970-01-01T00:00:00.000Z',
    lastUpdate: '2026-01-01T00:00:00.000Z',
    workloads: 3,
    services: 1,
    policies: 2,
    unknownPolicies: ['shop/lost'],
    partialPolicies: ['shop/odd'],
    certificates: [{ identity: identityOf(web), state: 'unavailable', lastError: 'the CA is away' }],
  });
  certificates.issue(identityOf(web), Date.UTC(2026, 0, 2));
  source.publish(meshUpdate({ removed: [db.uid, 'shop/web.shop.svc.cluster.local'] }));
  t.like(mesh.status(), { lastUpdate: '2026-01-01T00:00:05.000Z', workloads: 2, services: 0 });
  t.deepEqual(mesh.status().certificates, [
    {
      identity: identityOf(web),
      state: 'available',
      validFrom: '1970-01-01T00:00:00.000Z',
      expires: '2026-01-02T00:00:00.000Z',
    },
  ]);
});

test('stopped, it follows no more, has no certificates issued, and keeps what it knows', (t) => {
  const { source, certificates, tunnel, mesh } = setUp();
  mesh.start();
  source.publish(whole);
  mesh.stop();
  source.publish(meshUpdate({ removed: [db.uid] }));
  t.is(tunnel.updates.length, 1);
  t.true(certificates.isClosed);
  t.deepEqual(tunnel.certificates, []);
  t.is(mesh.snapshot().workloads.length, 3);
});
