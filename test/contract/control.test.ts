/** The agent's connection to the control process, both ends real, held to the contracts of what it stands for. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { systemDirectories } from '../../src/agent/index.ts';
import { ControlClient, ControlServer, nodeSocketPath } from '../../src/control/index.ts';
import { BuiltInCa, systemClock } from '../../src/identity/index.ts';
import { identityOf, type SpiffeId } from '../../src/mesh/index.ts';
import { silentLog } from '../../src/telemetry/index.ts';
import { certificateAuthorityContract } from './certificate-authority.ts';
import { FakeLog } from './fakes/log.ts';
import { FakeMesh, meshUpdate, workload } from './fakes/mesh.ts';
import { FakeMeshSource } from './fakes/mesh-source.ts';
import { FakeSigner } from './fakes/signer.ts';
import { meshSourceContract } from './mesh-source.ts';

const identity = 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId;

meshSourceContract(test, 'the control client', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-control-'));
  const [mesh, signer, { log, ...said }] = [new FakeMesh(), new FakeSigner(), logged()];
  const source = new ControlClient(
    { log, clock: systemClock, directories: systemDirectories(log) },
    { path: nodeSocketPath(directory, 'n1'), node: 'n1' },
  );
  const begin = () => {
    const made = new ControlServer({ mesh, signer, clock: systemClock, log: silentLog() }, { directory });
    made.start();
    return made;
  };
  let server: ControlServer | undefined = begin();
  return {
    source,
    async publish(update) {
      if (server === undefined) mesh.apply(update);
      else await server.publish(update);
    },
    rotate: async (roots) => signer.rotate(roots),
    async goAway() {
      server?.close();
      server = undefined;
      await said.lost();
    },
    async comeBack() {
      server = begin();
      await server.publish(mesh.snapshot());
      await said.connected();
      // Answered after everything that the server had to tell at first.
      await source.sign({ identity, csr: 'PEM', validitySeconds: 60 });
    },
    async dispose() {
      server?.close();
      rmSync(directory, { recursive: true });
    },
  };
});

/** A log, and what it says of connections: the first one is of no interest. */
function logged() {
  const fake = new FakeLog();
  return {
    log: fake.log,
    lost: async () => {
      await fake.next('connected to the control process');
      await fake.next('no connection to the control process');
    },
    connected: async () => void (await fake.next('connected to the control process')),
  };
}

meshSourceContract(test, 'the fake mesh source', async () => {
  const source = new FakeMeshSource();
  return {
    source,
    publish: async (update) => source.publish(update),
    rotate: async (roots) => source.rotate(roots),
    goAway: async () => source.goAway(),
    comeBack: async () => source.comeBack(),
    dispose: async () => undefined,
  };
});

certificateAuthorityContract(test, 'the CA behind a control client', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-control-'));
  const log = silentLog();
  const pods = [workload({ serviceAccount: 'web' }), workload({ name: 'db-0', serviceAccount: 'db' })];
  const allowed = [
    identityOf({ ...workload(), serviceAccount: 'web' }),
    identityOf({ ...workload(), serviceAccount: 'db' }),
  ] as const;
  const ca = await BuiltInCa.open(join(directory, 'ca'), {
    identities: { isOnNode: (node, asked) => node === 'n1' && allowed.includes(asked) },
    clock: systemClock,
    directories: systemDirectories(log),
    log,
  });
  const mesh = new FakeMesh();
  const server = new ControlServer({ mesh, signer: ca, clock: systemClock, log }, { directory });
  server.start();
  await server.publish(meshUpdate({ complete: true, workloads: pods }));
  const authority = new ControlClient(
    { log, clock: systemClock },
    { path: nodeSocketPath(directory, 'n1'), node: 'n1' },
  );
  const connected = Promise.withResolvers<void>();
  authority.follow({ updated: () => connected.resolve(), trusted: () => undefined });
  await connected.promise;
  return {
    authority,
    now: () => Date.now(),
    allowed,
    forbidden: 'spiffe://cluster.local/ns/shop/sa/other' as SpiffeId,
    async dispose() {
      authority.close();
      server.close();
      ca.close();
      rmSync(directory, { recursive: true });
    },
  };
});
