import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import { HboneError, TunnelPool } from '../../../src/hbone/index.ts';
import type { Address } from '../../../src/mesh/index.ts';
import { FakeCertificates } from '../../contract/fakes/certificates.ts';
import { openLoopback } from '../../contract/fakes/open-socket.ts';
import { CLIENT, makeAuthority, SERVER, writePem } from '../../pki.ts';

test('a peer that refuses our certificate by an alert is understood, and has seen no request', async (t) => {
  const ours = await makeAuthority();
  const theirs = await makeAuthority();
  const directory = mkdtempSync(join(tmpdir(), 'culvert-alert-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const files = writePem(directory, 'server', { ...(await ours.issue({ identity: SERVER })), roots: [theirs.root] });
  const script = join(import.meta.dirname, 'alert-server.py');
  const server = spawn('python3', [script, files.chain, files.key, files.roots], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => server.kill());
  const lines = createInterface({ input: server.stdout });
  const [port] = await once(lines, 'line');

  const certificates = new FakeCertificates(await ours.issue({ identity: CLIENT }));
  const pool = new TunnelPool({ certificates, open: openLoopback, now: () => performance.now() });
  const nextHop = { address: '127.0.0.1' as Address, port: Number(port) };
  const target = { sourceIdentity: CLIENT, acceptable: [SERVER], nextHop };
  const said = once(lines, 'line');
  const request = pool.connect(target, '127.0.0.1:80', [], new AbortController().signal);
  const error = await t.throwsAsync(request, { instanceOf: HboneError });
  t.is(error?.code, 'TLS_FAILED');
  t.is(error?.message, 'the peer refused us: TLS alert unknown ca');
  t.like(await said, { 0: 'refused CERTIFICATE_VERIFY_FAILED' });
  pool.close();
});
