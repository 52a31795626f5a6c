import { createPublicKey, X509Certificate } from 'node:crypto';
import type { ExecutionContext, TestFn } from 'ava';
import { type CertificateAuthority, IdentityError, type SignedCertificate } from '../../src/identity/index.ts';
import type { SpiffeId } from '../../src/mesh/index.ts';
import { type CsrOptions, makeCsr } from '../pki.ts';

/** A CA to test. */
export interface CertificateAuthoritySubject {
  readonly authority: CertificateAuthority;
  /** The time that it goes by, milliseconds since the epoch. */
  now(): number;
  /** Two identities that may be signed, and one that may not. */
  readonly allowed: readonly [SpiffeId, SpiffeId];
  readonly forbidden: SpiffeId;
  dispose(): Promise<void>;
}

const HOUR_SECONDS = 3600;

/** What every CertificateAuthority must hold to. */
export function certificateAuthorityContract(
  test: TestFn,
  name: string,
  make: () => Promise<CertificateAuthoritySubject>,
): void {
  const law = (title: string, run: (t: ExecutionContext, subject: CertificateAuthoritySubject) => Promise<void>) =>
    test(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        await subject.dispose();
      }
    });

  const sign = async (
    { authority, allowed }: CertificateAuthoritySubject,
    { validitySeconds = HOUR_SECONDS, identity = allowed[0], ...csr }: CsrOptions & { validitySeconds?: number } = {},
  ) => {
    const made = await makeCsr({ identity, ...csr });
    return { ...made, signed: await authority.sign({ identity, csr: made.csr, validitySeconds }) };
  };

  const refuses = async (t: ExecutionContext, code: string, attempt: Promise<unknown>) => {
    const error = await t.throwsAsync(attempt, { instanceOf: IdentityError });
    t.is(error.code as string, code);
  };

  law('certifies the key of the CSR, leaf first', async (t, subject) => {
    const { signed, publicKey } = await sign(subject);
    const [leaf] = parse(signed);
    t.true(leaf.publicKey.equals(createPublicKey(publicKey)));
  });

  law('names the identity and nothing else', async (t, subject) => {
    const [leaf] = parse((await sign(subject)).signed);
    t.is(leaf.subjectAltName, `URI:${subject.allowed[0]}`);
    t.is(leaf.subject ?? '', '');
  });

  law('allows the leaf to serve and to call, and not to sign', async (t, subject) => {
    const [leaf] = parse((await sign(subject)).signed);
    t.deepEqual([...(leaf.keyUsage ?? [])].sort(), ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    t.false(leaf.ca);
  });

  law('gives the life that was asked for', async (t, subject) => {
    const before = subject.now();
    const [leaf] = parse((await sign(subject, { validitySeconds: 7200 })).signed);
    t.true(leaf.validFromDate.getTime() <= subject.now());
    // Certificates know whole seconds only, and on a busy machine one may pass while it is signed.
    const end = leaf.validToDate.getTime() - 7_200_000;
    t.true(end >= before - 1000 && end <= subject.now() + 1000);
  });

  law('gives no more than 90 days', async (t, subject) => {
    const [leaf] = parse((await sign(subject, { validitySeconds: 400 * 86_400 })).signed);
    t.true(leaf.validToDate.getTime() <= subject.now() + 90 * 86_400_000);
  });

  law('gives a chain that leads to one of its roots', async (t, subject) => {
    const { signed } = await sign(subject);
    t.not(signed.roots.length, 0);
    const chain = parse(signed);
    const roots = signed.roots.map((root) => new X509Certificate(root));
    for (const [at, certificate] of chain.entries()) {
      const issuers = chain[at + 1] === undefined ? roots : [chain[at + 1]];
      t.true(issuers.some((one) => one?.ca && certificate.checkIssued(one) && certificate.verify(one.publicKey)));
    }
  });

  law('never uses a serial number twice', async (t, subject) => {
    const [one] = parse((await sign(subject)).signed);
    const [other] = parse((await sign(subject)).signed);
    t.not(one.serialNumber, other.serialNumber);
  });

  law('refuses an identity that is not the caller’s to ask for', async (t, subject) => {
    await refuses(t, 'REFUSED', sign(subject, { identity: subject.forbidden }));
  });

  law('refuses a CSR that names another identity', async (t, subject) => {
    const [identity, other] = subject.allowed;
    await refuses(t, 'BAD_CSR', sign(subject, { identity, names: [other] }));
  });

  law('refuses a CSR that names more than one', async (t, subject) => {
    await refuses(t, 'BAD_CSR', sign(subject, { names: [...subject.allowed] }));
  });

  law('refuses a CSR without a name', async (t, subject) => {
    await refuses(t, 'BAD_CSR', sign(subject, { names: [] }));
  });

  law('refuses a CSR that its key has not signed', async (t, subject) => {
    await refuses(t, 'BAD_CSR', sign(subject, { forged: true }));
  });

  law('refuses what is no CSR', async (t, subject) => {
    const [identity] = subject.allowed;
    for (const csr of ['', 'nonsense', '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----'])
      await refuses(t, 'BAD_CSR', subject.authority.sign({ identity, csr, validitySeconds: HOUR_SECONDS }));
  });
}

function parse({ chain }: SignedCertificate): [X509Certificate, ...X509Certificate[]] {
  const [leaf, ...rest] = chain.map((pem) => new X509Certificate(pem));
  if (leaf === undefined) throw new Error('the chain is empty');
  return [leaf, ...rest];
}
