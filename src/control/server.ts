import { lstatSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock, SignedCertificate, SigningRequest } from '../identity/index.ts';
import type { MeshUpdate } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { NodeNames } from './node-names.ts';
import { NodeSocket, nodeOfSocket } from './node-socket.ts';
import { isSubdomain } from './objects/names.ts';
import { encodeRoots, encodeUpdate } from './wire.ts';

/** The CA, as it signs for agents. */
export interface NodeSigner {
  /** @throws an error with the code REFUSED if the identity is none of a pod on that node */
  sign(node: string, request: SigningRequest): Promise<SignedCertificate>;
  /** PEM. */
  roots(): readonly string[];
  onRoots(listener: (roots: readonly string[]) => void): void;
}

/** The mesh as the control process knows it; `ReadModel` fits. */
export interface ServedMesh {
  apply(update: MeshUpdate): void;
  snapshot(): MeshUpdate;
}

export interface ControlServerDeps {
  readonly mesh: ServedMesh;
  readonly signer: NodeSigner;
  readonly log: Log;
  readonly clock: Clock;
}

export interface ControlServerOptions {
  /** Directory of the nodes' sockets, this process's own. */
  readonly directory: string;
  /** Clients of one node at a time: its agent, and its successor for a while. Default: 8. */
  readonly maxClients?: number;
  /** What may wait for one client to read it, beside a complete update. Default: 16 MiB. */
  readonly maxBufferedBytes?: number;
  /** How long a client may read nothing of what waits for it. Default: 30,000 ms. */
  readonly stallMs?: number;
  /** `sign` requests of one client that are carried out at a time. Default: 16. */
  readonly maxSigning?: number;
  /** Default: 5,000 ms. */
  readonly heartbeatMs?: number;
}

/**
 * Tells the agents what the mesh looks like and passes their requests for certificates on, over one unix socket for each
 * node that has workloads. Every update is encoded once, however many agents there are.
 */
export class ControlServer {
  readonly #deps: ControlServerDeps;
  readonly #options: ControlServerOptions;
  readonly #sockets = new Map<string, NodeSocket>();
  readonly #nodes = new NodeNames();
  /** Made when somebody needs it, until the next update. */
  #wholeMesh: readonly Buffer[] | undefined;
  #roots: Buffer;
  #heartbeat: { cancel(): void } | undefined;
  /** Nodes that have been complained about. */
  readonly #unusable = new Set<string>();

  constructor(deps: ControlServerDeps, options: ControlServerOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#roots = encodeRoots(deps.signer.roots());
  }

  /** Begins to serve. Nodes' sockets that a dead process left in the directory are removed. */
  start(): void {
    const { signer } = this.#deps;
    this.#removeDeadSockets();
    signer.onRoots((roots) => {
      this.#roots = encodeRoots(roots);
      this.#tell([this.#roots]);
    });
    this.#beatLater();
  }

  /** Takes an update into the mesh and tells everybody. Resolves when the sockets of new nodes listen. */
  async publish(update: MeshUpdate): Promise<void> {
    this.#deps.mesh.apply(update);
    this.#nodes.apply(update);
    this.#wholeMesh = undefined;
    if (this.#sockets.size > 0) this.#tell(encodeUpdate(update));
    await this.#openAndClose(this.#nodes.names());
  }

  /** Names of the nodes that are served. */
  nodes(): string[] {
    return [...this.#sockets.keys()];
  }

  close(): void {
    this.#heartbeat?.cancel();
    for (const socket of this.#sockets.values()) socket.close('now');
    this.#sockets.clear();
  }

  #removeDeadSockets(): void {
    const { directory } = this.#options;
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      if (isSubdomain(nodeOfSocket(name)) && lstatSync(path).isSocket()) rmSync(path, { force: true });
    }
  }

  #beatLater(): void {
    this.#heartbeat = this.#deps.clock.after(this.#options.heartbeatMs ?? 5_000, () => {
      for (const socket of this.#sockets.values()) socket.beat();
      this.#beatLater();
    });
  }

  #tell(lines: readonly Buffer[]): void {
    for (const socket of this.#sockets.values()) socket.tell(lines);
  }

  async #openAndClose(wanted: ReadonlySet<string>): Promise<void> {
    for (const [node, socket] of this.#sockets) {
      if (wanted.has(node)) continue;
      socket.close('after-reading');
      this.#sockets.delete(node);
    }
    const opened = [...wanted].filter((node) => !this.#sockets.has(node)).map((node) => this.#open(node));
    await Promise.all(opened);
  }

  async #open(node: string): Promise<void> {
    const { log } = this.#deps;
    if (!isSubdomain(node)) {
      if (!this.#unusable.has(node))
        log.error({ node }, 'a workload names a node that is no Kubernetes name; that node gets no socket');
      this.#unusable.add(node);
      return;
    }
    const socket = this.#make(node);
    this.#sockets.set(node, socket);
    try {
      await socket.listen();
    } catch (error) {
      if (this.#sockets.get(node) === socket) this.#sockets.delete(node);
      log.error({ error, node }, 'a node gets no socket; its agent cannot follow the mesh');
    }
  }

  #make(node: string): NodeSocket {
    const { log, signer, clock } = this.#deps;
    const { directory, maxClients = 8, maxBufferedBytes = 16 * 1024 * 1024 } = this.#options;
    const { stallMs = 30_000, maxSigning = 16 } = this.#options;
    return new NodeSocket(
      {
        log,
        beginning: () => this.#beginning(),
        sign: (request) => signer.sign(node, request),
        now: () => clock.now(),
      },
      { node, directory, maxClients, maxBufferedBytes, stallMs, maxSigning },
    );
  }

  #beginning(): readonly Buffer[] {
    this.#wholeMesh ??= encodeUpdate(this.#deps.mesh.snapshot());
    return [this.#roots, ...this.#wholeMesh];
  }
}
