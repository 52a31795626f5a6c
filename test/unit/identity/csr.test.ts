import { execFile } from 'node:child_process';
import { createPrivateKey, createPublicKey } from 'node:crypto';
import { promisify } from 'node:util';
import test from 'ava';
import { readSigningRequest } from '../../../src/identity/ca/request.ts';
import { makeSigningRequest } from '../../../src/identity/csr.ts';
import { IdentityError } from '../../../src/identity/index.ts';
import type { SpiffeId } from '../../../src/mesh/index.ts';
import { type CsrOptions, makeCsr } from '../../pki.ts';
import { CART, openssl, WEB } from './fixture.ts';

test('a CSR has an empty subject, one critical URI name, a P-256 key and a SHA-256 signature', async (t) => {
  const { csr } = await makeSigningRequest(WEB);
  const text = await openssl(['req', '-noout', '-text', '-verify'], csr);
  t.regex(text, /Subject:\s*\n/);
  t.regex(text, new RegExp(`X509v3 Subject Alternative Name: critical\\s+URI:${WEB}\\s`));
  t.is(text.match(/X509v3/g)?.length, 1);
  t.regex(text, /ASN1 OID: prime256v1/);
  t.regex(text, /Signature Algorithm: ecdsa-with-SHA256/);
});

test('a CSR is for the private key that comes with it, in PKCS#8', async (t) => {
  const { key, csr } = await makeSigningRequest(WEB);
  t.regex(key, /^-----BEGIN PRIVATE KEY-----/);
  const certified = (await readSigningRequest(csr, WEB)).rawData;
  const own = createPublicKey(createPrivateKey(key)).export({ format: 'der', type: 'spki' });
  t.deepEqual(Buffer.from(certified), own);
});

/** Lengths of the name about which the lengths of what holds it need an octet more. */
for (const length of [60, 100, 120, 127, 128, 200, 255, 256, 300, 2000])
  test(`a CSR for a name of ${length} characters is well made`, async (t) => {
    const identity = `${WEB}${'x'.repeat(length - WEB.length)}` as SpiffeId;
    const { csr } = await makeSigningRequest(identity);
    const text = await openssl(['req', '-noout', '-text', '-verify'], csr);
    t.true(text.includes(`URI:${identity}\n`));
    const again = await openssl(['req', '-outform', 'PEM'], csr);
    t.is(again, csr);
  });

for (const identity of [`${WEB}\u00e4`, `${WEB} x`, `${WEB}\n`])
  test(`asks for no certificate for ${JSON.stringify(identity)}`, async (t) => {
    const error = await t.throwsAsync(makeSigningRequest(identity as SpiffeId), { instanceOf: IdentityError });
    t.is(error.code, 'BAD_CSR');
  });

test('what an agent needs of this room does not load what only a CA needs', async (t) => {
  const room = new URL('../../../src/identity/index.ts', import.meta.url);
  const script = `
    import { registerHooks } from 'node:module';
    registerHooks({ load(url, context, next) {
      if (url.includes('@peculiar')) throw new Error(url);
      return next(url, context);
    } });
    const { CertificateStore } = await import(${JSON.stringify(room.href)});
    console.log(typeof CertificateStore);`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script]);
  t.is(stdout, 'function\n');
});

test('every CSR has a new key', async (t) => {
  const [one, other] = await Promise.all([makeSigningRequest(WEB), makeSigningRequest(WEB)]);
  t.not(one.key, other.key);
});

const accepted: Record<string, CsrOptions> = {
  'P-256': {},
  'P-384': { curve: 'P-384' },
  'P-521': { curve: 'P-521' },
};
for (const [title, options] of Object.entries(accepted)) {
  test(`accepts a CSR with a key on ${title}`, async (t) => {
    const { csr } = await makeCsr({ identity: WEB, ...options });
    await t.notThrowsAsync(readSigningRequest(csr, WEB));
  });
}

const refused: Record<
  string,
  { options?: CsrOptions; change?: (csr: string) => string; identity?: string; text: RegExp }
> = {
  'that names somebody else': { options: { names: [CART] }, text: /exactly one/ },
  'that names two': { options: { names: [WEB, CART] }, text: /exactly one/ },
  'that names the same twice': { options: { names: [WEB, WEB] }, text: /exactly one/ },
  'that names nobody': { options: { names: [] }, text: /exactly one/ },
  'signed with SHA-1': { options: { weak: true }, text: /SHA-256/ },
  'whose key did not sign it': { options: { forged: true }, text: /not signed by its own key/ },
  'that is very long': { change: (csr) => csr + ' '.repeat(10_000), text: /longer than 8192/ },
  'with something after it': { change: (csr) => `${csr}\n${csr}`, text: /not understood/ },
  'that is empty': { change: () => '', text: /not understood/ },
  'for what is no SPIFFE id': { identity: 'spiffe://cluster.local/ns/shop', text: /no SPIFFE id/ },
  'for an identity with other characters': { identity: `${WEB}\u0100`, text: /no SPIFFE id/ },
  'for an identity with a space': { identity: `${WEB} x`, text: /no SPIFFE id/ },
};
for (const [title, { options = {}, change = (csr: string) => csr, identity = WEB, text }] of Object.entries(refused)) {
  test(`refuses a CSR ${title}`, async (t) => {
    const { csr } = await makeCsr({ identity: WEB, ...options });
    const error = await t.throwsAsync(readSigningRequest(change(csr), identity as SpiffeId), {
      instanceOf: IdentityError,
      message: text,
    });
    t.is(error.code, 'BAD_CSR');
  });
}

test('refuses a CSR with an RSA key', async (t) => {
  const csr = await openssl([
    ...['req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', '/dev/null', '-subj', '/'],
    ...['-addext', `subjectAltName=URI:${WEB}`],
  ]);
  await t.throwsAsync(readSigningRequest(csr, WEB), { message: /ECDSA/ });
});

test('accepts a CSR that another program made', async (t) => {
  const csr = await openssl([
    ...['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', '/dev/null'],
    ...['-subj', '/', '-addext', `subjectAltName=critical,URI:${WEB}`],
  ]);
  await t.notThrowsAsync(readSigningRequest(csr, WEB));
});
