import type { ExecutionContext, TestFn } from 'ava';
import { type Certificates, HboneError } from '../../src/hbone/index.ts';
import type { Certificate, SpiffeId } from '../../src/mesh/index.ts';

/** Certificates to test, and a hand on who fills them. */
export interface CertificatesSubject {
  readonly certificates: Certificates;
  /** A first or renewed certificate has come. */
  issue(certificate: Certificate): void;
  /** Nobody needs that identity any more, or it cannot be had. */
  forget(identity: SpiffeId): void;
  dispose(): Promise<void>;
}

const identity = 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId;
const other = 'spiffe://cluster.local/ns/shop/sa/other' as SpiffeId;
const certificate = (chain: string): Certificate => ({
  identity,
  chain,
  key: 'key',
  roots: ['root'],
  notBefore: 0,
  notAfter: Number.MAX_SAFE_INTEGER,
});

/** What every Certificates must hold to. */
export function certificatesContract(test: TestFn, name: string, make: () => Promise<CertificatesSubject>): void {
  const law = (title: string, run: (t: ExecutionContext, subject: CertificatesSubject) => Promise<void>) =>
    test(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        await subject.dispose();
      }
    });

  law('give the certificate that was issued, the very same object each time', async (t, { certificates, issue }) => {
    issue(certificate('first'));
    const given = await certificates.certificate(identity);
    t.is(given.chain, 'first');
    t.is(await certificates.certificate(identity), given);
  });

  law('give the renewed certificate as soon as it is there', async (t, { certificates, issue }) => {
    issue(certificate('first'));
    await certificates.certificate(identity);
    issue(certificate('second'));
    t.is((await certificates.certificate(identity)).chain, 'second');
  });

  law('say that there is none, by our own error', async (t, { certificates, issue, forget }) => {
    issue(certificate('first'));
    for (const none of [other, identity]) {
      if (none === identity) forget(identity);
      const error = await t.throwsAsync(certificates.certificate(none), { instanceOf: HboneError });
      t.is(error?.code, 'IDENTITY_UNAVAILABLE');
    }
  });
}
