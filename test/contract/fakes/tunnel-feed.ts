import type { TunnelFeed } from '../../../src/agent/index.ts';
import type { CertificateChange, MeshUpdate } from '../../../src/mesh/index.ts';

/** Keeps what the tunnel is told. */
export class FakeTunnelFeed implements TunnelFeed {
  readonly updates: MeshUpdate[] = [];
  readonly certificates: CertificateChange[] = [];

  updateMesh(update: MeshUpdate): void {
    this.updates.push(update);
  }

  updateCertificate(change: CertificateChange): void {
    this.certificates.push(change);
  }
}
