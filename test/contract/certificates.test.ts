import test from 'ava';
import { WorkerCertificates } from '../../src/ztunnel/certificates.ts';
import { certificatesContract } from './certificates.ts';
import { FakeCertificates } from './fakes/certificates.ts';

certificatesContract(test, 'the fake certificates', async () => {
  const certificates = new FakeCertificates();
  return {
    certificates,
    issue: (certificate) => certificates.issue(certificate),
    forget: (identity) => certificates.forget(identity),
    dispose: async () => undefined,
  };
});

certificatesContract(test, "a worker's certificates", async () => {
  const certificates: WorkerCertificates = new WorkerCertificates({
    want: (identity) => certificates.apply({ kind: 'unavailable', identity, reason: 'there is none' }),
  });
  return {
    certificates,
    issue: (certificate) => certificates.apply({ kind: 'issued', certificate }),
    forget: (identity) => certificates.apply({ kind: 'forgotten', identity }),
    dispose: async () => undefined,
  };
});
