/** What the CA and the store make, in the hands of others: OpenSSL, and Node's TLS. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { BuiltInCa, CertificateStore, systemClock } from '../../../src/identity/index.ts';
import type { Certificate } from '../../../src/mesh/index.ts';
import { silentLog } from '../../../src/telemetry/index.ts';
import { CART, Changes, Hints, openssl, temporaryDirectory, WEB } from './fixture.ts';

/** Certificates of two identities, as an agent would get them. */
async function issued(t: ExecutionContext): Promise<[Certificate, Certificate]> {
  const log = silentLog();
  const identities = { isOnNode: () => true };
  const deps = { identities, clock: systemClock, directories: new Hints(), log };
  const ca = await BuiltInCa.open(temporaryDirectory(t), deps);
  const store = new CertificateStore({ authority: ca.forNode('node-a'), clock: systemClock, log });
  const changes = new Changes();
  store.onChange(changes.listener);
  store.want(new Set([WEB, CART]));
  const found = new Map<string, Certificate>();
  while (found.size < 2) {
    const change = await changes.next();
    if (change.kind !== 'issued') throw new Error(change.kind === 'unavailable' ? change.reason : change.kind);
    found.set(change.certificate.identity, change.certificate);
  }
  store.close();
  ca.close();
  const [web, cart] = [found.get(WEB), found.get(CART)];
  if (web === undefined || cart === undefined) throw new Error('a certificate is missing');
  return [web, cart];
}

for (const purpose of ['sslserver', 'sslclient']) {
  test(`OpenSSL accepts a leaf as ${purpose}, to the letter of the standard`, async (t) => {
    const [{ chain, roots }] = await issued(t);
    const directory = temporaryDirectory(t);
    const [trusted, untrusted] = [join(directory, 'roots.pem'), join(directory, 'chain.pem')];
    writeFileSync(trusted, roots.join(''));
    writeFileSync(untrusted, chain);
    const args = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', trusted, '-untrusted', untrusted];
    t.is(await openssl(args, chain), 'stdin: OK\n');
  });
}

test('a leaf says what the wire contract wants it to', async (t) => {
  const [{ chain }] = await issued(t);
  const text = await openssl(['x509', '-noout', '-text'], chain);
  t.regex(text, /Subject:\s*\n/);
  t.regex(text, new RegExp(`X509v3 Subject Alternative Name: critical\\s+URI:${WEB}\\s`));
  t.regex(text, /X509v3 Key Usage: critical\s+Digital Signature, Key Encipherment\s/);
  t.regex(text, /TLS Web Server Authentication, TLS Web Client Authentication/);
  t.regex(text, /CA:FALSE/);
  t.regex(text, /Signature Algorithm: ecdsa-with-SHA256/);
});

test('two identities shake hands by TLS 1.3, each with its certificate', async (t) => {
  const [web, cart] = await issued(t);
  const tls = ({ chain, key, roots }: Certificate) => ({
    cert: chain,
    key,
    ca: [...roots],
    minVersion: 'TLSv1.3' as const,
  });
  const server = createServer({ ...tls(web), requestCert: true, rejectUnauthorized: true });
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>;
  const client = connect({ ...tls(cart), port: address.port, host: '127.0.0.1', checkServerIdentity: () => undefined });
  const [[served]] = await Promise.all([accepted, once(client, 'secureConnect')]);
  t.true(client.authorized && served.authorized);
  t.is(client.getProtocol(), 'TLSv1.3');
  t.is(client.getPeerCertificate().subjectaltname, `URI:${WEB}`);
  t.is(served.getPeerCertificate().subjectaltname, `URI:${CART}`);
  client.destroy();
  served.destroy();
});
