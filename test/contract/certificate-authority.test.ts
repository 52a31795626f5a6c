import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { BuiltInCa } from '../../src/identity/index.ts';
import type { SpiffeId } from '../../src/mesh/index.ts';
import { silentLog } from '../../src/telemetry/index.ts';
import { makeAuthority } from '../pki.ts';
import { certificateAuthorityContract } from './certificate-authority.ts';
import { FakeAuthority } from './fakes/certificate-authority.ts';
import { FakeClock } from './fakes/clock.ts';

const allowed = ['web', 'cart'].map((name) => `spiffe://cluster.local/ns/shop/sa/${name}`) as [SpiffeId, SpiffeId];
const forbidden = 'spiffe://cluster.local/ns/shop/sa/elsewhere' as SpiffeId;

certificateAuthorityContract(test, 'the built-in CA', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
  const clock = new FakeClock();
  const ca = await BuiltInCa.open(directory, {
    identities: { isOnNode: (node, identity) => node === 'node-a' && allowed.includes(identity) },
    clock,
    directories: { watch: () => ({ close: () => undefined }) },
    log: silentLog(),
  });
  return {
    authority: ca.forNode('node-a'),
    now: () => clock.now(),
    allowed,
    forbidden,
    async dispose() {
      ca.close();
      rmSync(directory, { recursive: true });
    },
  };
});

certificateAuthorityContract(test, 'the fake CA', async () => {
  const clock = new FakeClock();
  const authority = new FakeAuthority(await makeAuthority(), () => clock.now());
  authority.refused.add(forbidden);
  return { authority, now: () => clock.now(), allowed, forbidden, dispose: async () => undefined };
});
