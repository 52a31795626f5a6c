import type { Socket } from 'node:net';
import {
  HboneError,
  type HeaderFields,
  type IncomingRequest,
  type SessionOptions,
  type TunnelConnection,
  type TunnelPeer,
  TunnelPool,
  TunnelServer,
  type TunnelTarget,
} from '../hbone/index.ts';
import { type Endpoint, identityOf, messageOf, type SpiffeId, type Workload } from '../mesh/index.ts';
import type { Decision, PolicyBook } from '../policy/index.ts';
import type { WorkerCertificates } from './certificates.ts';
import type { ChangedAt, NodeView, PodName } from './node-view.ts';
import type { OpenConnection } from './open-connection.ts';
import type { EndpointCosts } from './outbound/endpoints.ts';
import { OutsideConnections } from './outbound/outside.ts';
import type { RetryBudget } from './outbound/retry-budget.ts';
import { PodPolicy } from './pod-policy.ts';
import type { PodSockets } from './ports.ts';
import { endpointOf } from './socket-address.ts';
import { resetSocket } from './socket-leg.ts';
import type { WorkerLog } from './worker-log.ts';

/** What all pods of a worker share of the mesh. */
export interface KnownMesh {
  readonly view: NodeView;
  readonly book: PolicyBook;
  readonly certificates: WorkerCertificates;
  readonly costs: EndpointCosts;
  readonly retries: RetryBudget;
  /** Of the worker's sessions to peers: those of different lanes end at different workers. */
  readonly lane: number;
  /** How long a session of a pool may be idle. */
  readonly poolIdleMs: number;
  /** Of every session, of both ends. */
  readonly session: SessionOptions;
}

interface PodTunnelDeps {
  readonly mesh: KnownMesh;
  readonly sockets: Pick<PodSockets, 'openOutbound'>;
  readonly log: Pick<WorkerLog, 'info' | 'warn'>;
  requested(request: IncomingRequest, peer: TunnelPeer): void;
  /** A peer did not become a session. */
  refused(peer: Endpoint | undefined, text: string): void;
  /** So many sockets of sessions more, or fewer, are open. */
  sessions(more: 1 | -1): void;
  /** So many sockets more, or fewer, that peers have connected are open. */
  accepted(more: 1 | -1): void;
  /** A handshake of ours failed for what one end could not prove. */
  handshakeFailed(): void;
  /** What policy answered to a connection to the pod. */
  decided(decision: Decision): void;
  /** Nothing is open any more. */
  emptied(): void;
}

/** Wire contract, section 6.1: how long a connection waits for the mesh to be known. */
const MESH_WAIT_MS = 5000;

/** `leaving`: peers are taken no more; `draining`: nor are sessions to peers made. */
type State = 'open' | 'leaving' | 'draining';

/** One pod's part in the mesh: its workload, its sessions to peers, and those of peers to it. */
export class PodTunnel {
  readonly mesh: KnownMesh;
  /** What the log says when the mesh does not know the pod (wire contract, section 6.1). */
  readonly unknown: string;
  /** Who may connect to the pod. */
  readonly policy: PodPolicy;
  /** What the pod has open where no tunnel was taken. */
  readonly outside: OutsideConnections;
  readonly #deps: PodTunnelDeps;
  readonly #pod: PodName;
  readonly #netnsFd: number;
  readonly #pool: TunnelPool;
  /** Every socket of a session, from its accept or opening to its close. */
  readonly #sockets = new Set<Socket>();
  /** Failures that were counted: several connections may wait for one handshake. */
  readonly #counted = new WeakSet<HboneError>();
  /** Takes the connections that peers make. */
  #server: { readonly identity: SpiffeId; readonly server: TunnelServer } | undefined;
  /** Those that only finish what they have. */
  readonly #former = new Set<TunnelServer>();
  /** Of peers who have connected before the pod's workload is known. */
  readonly #waiting = new Set<Socket>();
  #state: State = 'open';
  /** What `ownWorkload` found, and in which version of the mesh. */
  #own: Workload | undefined;
  #ownVersion = -1;

  constructor(deps: PodTunnelDeps, pod: PodName, netnsFd: number) {
    this.mesh = deps.mesh;
    this.unknown = `failed to fetch information about local workload: ${pod.serviceAccount}.${pod.namespace} (${pod.name})`;
    this.#deps = deps;
    this.#pod = pod;
    this.#netnsFd = netnsFd;
    const { view, book, certificates, poolIdleMs, session } = deps.mesh;
    const known = { view, book, log: deps.log, workload: () => this.ownWorkload };
    this.policy = new PodPolicy({ ...known, decided: (decision) => deps.decided(decision) });
    this.outside = new OutsideConnections(known);
    this.#pool = new TunnelPool(
      { certificates, open: (nextHop) => this.#open(nextHop), now: () => performance.now() },
      { idleMs: poolIdleMs, session },
    );
  }

  /** Sockets of sessions. */
  get openSockets(): number {
    return this.#sockets.size;
  }

  /** The pod's own workload, if it is known. */
  get ownWorkload(): Workload | undefined {
    const { view } = this.mesh;
    if (this.#ownVersion !== view.version) {
      this.#own = view.workloadOf(this.#pod);
      this.#ownVersion = view.version;
    }
    return this.#own;
  }

  /** The pod's own workload; undefined: it is not known in time, or the connection is over. */
  async workload(connection: OpenConnection): Promise<Workload | undefined> {
    const { view } = this.mesh;
    return (
      this.ownWorkload ??
      (await connection.wait((found: (workload: Workload) => void) => view.whenKnown(this.#pod, found), MESH_WAIT_MS))
    );
  }

  /** The mesh has changed: ends what policy forbids now. */
  recheck(changed: ChangedAt): void {
    this.policy.recheck();
    this.outside.recheck(changed);
  }

  async connect(
    target: TunnelTarget,
    authority: string,
    headers: HeaderFields,
    signal: AbortSignal,
  ): Promise<TunnelConnection> {
    try {
      return await this.#pool.connect(target, authority, headers, signal);
    } catch (error) {
      this.#countHandshake(error);
      throw error;
    }
  }

  /** Takes a connection that a peer has made to the pod's HBONE port. */
  accept(socket: Socket): void {
    this.#deps.accepted(1);
    socket.once('close', () => this.#deps.accepted(-1));
    this.#keep(socket);
    const known = this.ownWorkload;
    if (known === undefined && this.#state === 'open') this.#acceptLater(socket);
    else this.#acceptAs(known, socket);
  }

  /**
   * GOAWAY to those who connect to the pod: it takes nothing more of them, but finishes what it has begun. What it has to
   * ask of peers itself it may still ask. For good, idempotent.
   */
  leave(): void {
    if (this.#state === 'open') this.#state = 'leaving';
    for (const socket of this.#waiting) resetSocket(socket);
    this.#drainServer();
  }

  /** For good: sessions end with their last stream, and no new ones are made. Idempotent. */
  drain(): void {
    this.#state = 'draining';
    this.#pool.drain();
    this.leave();
  }

  /** Ends everything at once. Idempotent. */
  close(): void {
    this.drain();
    this.#pool.close();
    for (const server of this.#former) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** @param workload undefined: it is not known */
  #acceptAs(workload: Workload | undefined, socket: Socket): void {
    if (this.#state !== 'open' || workload === undefined) {
      resetSocket(socket);
      return;
    }
    try {
      this.#serverOf(identityOf(workload)).accept(socket);
    } catch (error) {
      // Its names make no identity.
      this.#deps.refused(endpointOf(socket.remoteAddress, socket.remotePort), messageOf(error));
      resetSocket(socket);
    }
  }

  #drainServer(): void {
    if (this.#server === undefined) return;
    const { server } = this.#server;
    this.#server = undefined;
    this.#former.add(server);
    server.drain();
    void server.emptied().then(() => this.#former.delete(server));
  }

  #serverOf(identity: SpiffeId): TunnelServer {
    if (this.#server?.identity === identity) return this.#server.server;
    this.#drainServer();
    const { certificates, session } = this.mesh;
    const server = new TunnelServer(
      {
        certificates,
        onRequest: (request, peer) => this.#deps.requested(request, peer),
        onRefused: ({ endpoint, error }) => {
          if (error.code !== 'CLOSED') this.#deps.handshakeFailed();
          this.#deps.refused(endpoint, error.message);
        },
      },
      { identity, session },
    );
    this.#server = { identity, server };
    return server;
  }

  #acceptLater(socket: Socket): void {
    const { view } = this.mesh;
    const peer = endpointOf(socket.remoteAddress, socket.remotePort);
    const done = (): void => {
      clearTimeout(timer);
      forget();
      this.#waiting.delete(socket);
      socket.off('close', done);
    };
    const timer = setTimeout(() => {
      done();
      resetSocket(socket);
      this.#deps.refused(peer, this.unknown);
    }, MESH_WAIT_MS).unref();
    const forget = view.whenKnown(this.#pod, (workload) => {
      done();
      this.#acceptAs(workload, socket);
    });
    this.#waiting.add(socket);
    socket.on('error', ignore);
    socket.on('close', done);
  }

  #open(nextHop: Endpoint): Socket {
    if (this.#state === 'draining') throw new HboneError('CLOSED', 'the pod is leaving');
    // What is lost with a session is told by its frames: whatever closes it, streams that have not ended are reset.
    const socket = this.#deps.sockets.openOutbound(this.#netnsFd, nextHop, undefined, {
      resetOnDeath: false,
      lane: this.mesh.lane,
    });
    this.#keep(socket);
    return socket;
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    this.#deps.sessions(1);
    socket.once('close', () => {
      this.#sockets.delete(socket);
      this.#deps.sessions(-1);
      if (this.#sockets.size === 0) this.#deps.emptied();
    });
  }

  #countHandshake(error: unknown): void {
    if (!(error instanceof HboneError) || this.#counted.has(error)) return;
    if (error.code !== 'TLS_FAILED' && error.code !== 'PEER_IDENTITY') return;
    this.#counted.add(error);
    this.#deps.handshakeFailed();
  }
}

function ignore(): void {}
