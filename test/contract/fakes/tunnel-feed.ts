import type { TunnelFeed } from '../../../src/agent/index.ts';
import type { CertificateChange, MeshUpdate } from '../../../src/mesh/index.ts';

/** Keeps what the tunnel is told. */
export class FakeTunnelFeed implements TunnelFeed {
  readonly updates: MeshUpdate[] = [];
  readonly certificates: CertificateChange[] = [];
  /** An update is in force when this is kept. */
  gate: Promise<void> = Promise.resolve();

  async updateMesh(update: MeshUpdate): Promise<void> {
    this.updates.push(update);
    await this.gate;
  }

  updateCertificate(change: CertificateChange): void {
    this.certificates.push(change);
  }
}
