import { type MeshUpdate, policyName, type ReadModel, type SpiffeId, serviceName } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import type { ShownCertificate } from './config-dump/certificates.ts';
import type { Clock, MeshFollower, MeshSource, NodeCertificates, TunnelFeed } from './ports.ts';
import type { MeshStatusReply } from './protocol.ts';

export interface NodeMeshDeps {
  readonly source: MeshSource;
  readonly certificates: NodeCertificates;
  readonly tunnel: TunnelFeed;
  /** Its only writer is this. */
  readonly model: ReadModel;
  /** Which connections may go past the tunnel. */
  readonly kernelPath: MeshFollower;
  readonly clock: Pick<Clock, 'now'>;
  readonly log: Log;
}

export interface NodeMeshOptions {
  /** This node's name, as workloads have it. */
  readonly node: string;
}

/**
 * The mesh as this node knows it: keeps the main thread's read model, has the certificates of the node's own identities
 * issued, and tells the tunnel of both. What is known stays in force while the source is away.
 */
export class NodeMesh {
  readonly #deps: NodeMeshDeps;
  readonly #node: string;
  readonly #model: ReadModel;
  /** Of the mesh, for counting. */
  readonly #workloads = new Set<string>();
  readonly #services = new Set<string>();
  #updatedAt: number | undefined;

  constructor(deps: NodeMeshDeps, options: NodeMeshOptions) {
    this.#deps = deps;
    this.#model = deps.model;
    this.#node = options.node;
  }

  /** Begins to follow; does not wait for the source. */
  start(): void {
    const { source, certificates, tunnel } = this.#deps;
    certificates.onChange((change) => tunnel.updateCertificate(change));
    source.follow({
      updated: (update) => this.#updated(update),
      trusted: (roots) => certificates.trust(roots),
    });
  }

  /** Everything known, for a worker that has just been started. Not complete before the source's first word. */
  snapshot(): MeshUpdate {
    return this.#model.isComplete ? this.#model.snapshot() : NOTHING_YET;
  }

  /**
   * A connection waits for the certificate of an identity. The tunnel is told what became of it; of an identity that no pod
   * of this node has (any more), that it is forgotten.
   */
  wantCertificate(identity: SpiffeId): void {
    this.#deps.certificates.request(identity);
  }

  status(): MeshStatusReply {
    const source = this.#deps.source.status();
    return {
      node: this.#node,
      connected: source.connected,
      since: new Date(source.since).toISOString(),
      ...(source.connected ? {} : { reason: source.reason }),
      ...(this.#updatedAt === undefined ? {} : { lastUpdate: new Date(this.#updatedAt).toISOString() }),
      workloads: this.#workloads.size,
      services: this.#services.size,
      policies: countOf(this.#model.policies()),
      unknownPolicies: [...this.#deps.kernelPath.status().unknownPolicies],
      partialPolicies: this.#partialPolicies(),
      certificates: this.#deps.certificates.status().map(({ identity, state, notBefore, notAfter, lastError }) => ({
        identity,
        state,
        ...(notBefore === undefined ? {} : { validFrom: new Date(notBefore).toISOString() }),
        ...(notAfter === undefined ? {} : { expires: new Date(notAfter).toISOString() }),
        ...(lastError === undefined ? {} : { lastError }),
      })),
    };
  }

  /** What may be shown of this node's certificates. */
  certificates(): ShownCertificate[] {
    return this.#deps.certificates
      .status()
      .map(({ identity, state, chain, roots, lastError }) => ({ identity, state, chain, roots, reason: lastError }));
  }

  /** For good: nothing is asked for any more, and no key is kept here. What the tunnel has been told stays in force. */
  stop(): void {
    this.#deps.source.close();
    this.#deps.certificates.close();
  }

  #updated(update: MeshUpdate): void {
    const { tunnel, certificates, kernelPath, clock } = this.#deps;
    // The workers begin while this thread does its own part.
    const told = tunnel.updateMesh(update);
    const done = kernelPath.apply(update, () => this.#model.apply(update));
    this.#count(update);
    certificates.want(this.#model.identitiesOn(this.#node));
    const isFirst = this.#updatedAt === undefined;
    this.#updatedAt = clock.now();
    void this.#tell(Promise.all([told, done]), isFirst);
  }

  /** When an update is in force everywhere. */
  async #tell(done: Promise<unknown>, isFirst: boolean): Promise<void> {
    const { log } = this.#deps;
    const counts = {
      ...{ workloads: this.#workloads.size, services: this.#services.size },
      policies: countOf(this.#model.policies()),
    };
    try {
      await done;
      if (isFirst) log.info(counts, 'the mesh is known');
      else log.debug(counts, 'the mesh has changed');
    } catch (error) {
      log.error({ ...counts, error }, 'an update of the mesh is not in force everywhere');
    }
  }

  #partialPolicies(): string[] {
    const names: string[] = [];
    for (const policy of this.#model.policies()) if (policy.partial === true) names.push(policyName(policy));
    return names.sort().slice(0, MOST_NAMED);
  }

  #count(update: MeshUpdate): void {
    if (update.complete) {
      this.#workloads.clear();
      this.#services.clear();
    }
    for (const { uid } of update.workloads) this.#workloads.add(uid);
    for (const service of update.services) this.#services.add(serviceName(service));
    for (const key of update.removed) {
      this.#workloads.delete(key);
      this.#services.delete(key);
    }
  }
}

/** The status names so many: a mesh may be full of faults. */
const MOST_NAMED = 100;

function countOf(all: Iterable<unknown>): number {
  let count = 0;
  for (const _ of all) count += 1;
  return count;
}

const NOTHING_YET: MeshUpdate = {
  complete: false,
  workloads: [],
  services: [],
  removed: [],
  policies: [],
  removedPolicies: [],
  settings: undefined,
};
