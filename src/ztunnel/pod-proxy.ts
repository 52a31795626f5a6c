import { createServer, type Server, type Socket } from 'node:net';
import type { IncomingRequest, TunnelPeer } from '../hbone/index.ts';
import { type Endpoint, formatEndpoint } from '../mesh/index.ts';
import type { Decision } from '../policy/index.ts';
import type { SeriesTable } from '../telemetry/index.ts';
import { type Client, RequestClient, SocketClient } from './client.ts';
import { type EndReason, errnoOf, ZtunnelError } from './errors.ts';
import type { Subject } from './flow-subjects.ts';
import { serveInbound } from './inbound/connection.ts';
import { serveTunnelled } from './inbound/tunnel.ts';
import type { Path, SocketsOpen } from './ledger.ts';
import type { ChangedAt, PodName } from './node-view.ts';
import { type ConnectionRecord, OpenConnection, type OpenConnectionDeps } from './open-connection.ts';
import { serveOutbound } from './outbound/connection.ts';
import { type KnownMesh, PodTunnel } from './pod-tunnel.ts';
import { HBONE_PORT, OUTBOUND_PORT, type PodSockets, type SocketMeter, type TimeoutFollower } from './ports.ts';
import type { HandedListener } from './protocol.ts';
import type { WorkerLog } from './worker-log.ts';

/** What a pod's proxy tells its worker. */
interface PodProxyDeps {
  readonly sockets: PodSockets;
  readonly timeouts: TimeoutFollower;
  readonly meter: SocketMeter;
  /** Where connections are counted. */
  readonly series: SeriesTable;
  /** Undefined: there is no mesh. */
  readonly mesh: KnownMesh | undefined;
  readonly log: Pick<WorkerLog, 'info' | 'warn'>;
  /** Whether one more descriptor may be held, for a request on an open session. */
  hasOne(): boolean;
  /** So many descriptors more, or fewer, may be held from now on. */
  holds(descriptors: number): void;
  opened(): void;
  relayed(path: Path): void;
  /** See `OpenConnectionDeps`. */
  readonly addressed?: OpenConnectionDeps['addressed'];
  ended(record: ConnectionRecord): void;
  /** What policy answered to a connection to the pod. */
  decided(decision: Decision): void;
  /** A connection of the pod has been connected to where no encryption is due. */
  directly(destination: Endpoint): void;
  /** So many sockets more, or fewer, that the pod's listeners have accepted are open. */
  accepted(sockets: SocketsOpen, more: 1 | -1): void;
  session(more: 1 | -1): void;
  handshakeFailed(): void;
  /** The process has no descriptor left, whatever the budget said. */
  outOfDescriptors(): void;
  /** A fault that is not the connection's. */
  failed(error: unknown): void;
}

interface PodProxyOptions {
  readonly pod: PodName;
  /** Of the pod's namespace; open for as long as there is this proxy. */
  readonly netnsFd: number;
  /** Backlog of the listeners. */
  readonly backlog: number;
}

/** Held at most per leg before its peer is no longer read. */
const HIGH_WATER_BYTES = 131_072;

/** One pod in one worker: its listeners here, its open connections, and its sessions with peers. */
export class PodProxy {
  readonly #deps: PodProxyDeps;
  readonly #options: PodProxyOptions;
  readonly #open = new Set<OpenConnection>();
  readonly #tunnel: PodTunnel | undefined;
  readonly #beforeEnd: (socket: Socket) => void;
  #servers: Server[] = [];
  #isLeaving = false;
  #onEmpty: Array<() => void> = [];

  constructor(deps: PodProxyDeps, options: PodProxyOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#beforeEnd = (socket) => deps.sockets.setResetOnDeath(socket, false);
    this.#tunnel = deps.mesh && this.#createTunnel(deps.mesh);
  }

  get openConnections(): number {
    return this.#open.size;
  }

  /** Whether it is of this pod, and still of use. */
  serves({ namespace, name, serviceAccount }: PodName): boolean {
    const { pod } = this.#options;
    const isSame = pod.namespace === namespace && pod.name === name && pod.serviceAccount === serviceAccount;
    return isSame && !this.#isLeaving;
  }

  /** Neither a connection nor a session is open. */
  get isEmpty(): boolean {
    return this.#open.size === 0 && (this.#tunnel?.openSockets ?? 0) === 0;
  }

  get isAccepting(): boolean {
    return this.#servers.length > 0;
  }

  /**
   * Adopts listeners in place of those it has. The descriptors are its own from now on.
   *
   * @throws ZtunnelError LISTEN_FAILED: one of them is no listener; none is served then
   */
  async accept(listeners: readonly HandedListener[]): Promise<void> {
    const before = this.#servers;
    const servers = listeners.map(({ port }) => this.#createServer(port));
    this.#servers = servers;
    const results = await Promise.allSettled(
      servers.map((server, at) => listen(server, listeners[at], this.#options.backlog)),
    );
    for (const server of before) server.close();
    const failure = results.find((result) => result.status === 'rejected');
    if (failure === undefined) return;
    if (this.#servers === servers) this.#servers = [];
    for (const server of servers) server.close();
    throw new ZtunnelError('LISTEN_FAILED', `cannot take over a listener: ${failure.reason}`, {
      cause: failure.reason,
    });
  }

  /** Closes the duplicates; what is open lives on, and what comes waits in the kernel for whoever adopts the next ones. */
  stopAccepting(): void {
    for (const server of this.#servers) server.close();
    this.#servers = [];
  }

  /**
   * As `stopAccepting`, for good, and peers are told to ask for nothing more on the sessions that they have. When no
   * connection is open any more, the sessions end too. Once it has been empty after this, it stays so. Idempotent.
   */
  leave(): void {
    this.stopAccepting();
    this.#isLeaving = true;
    this.#tunnel?.leave();
    this.#endIfIdle();
  }

  /** Resets whatever is open. */
  resetAll(reason: EndReason): void {
    for (const connection of this.#open) connection.reset(reason);
    this.#tunnel?.close();
  }

  /** The mesh has changed: ends what policy does not let in any more, here or at the other end. */
  recheck(changed: ChangedAt): void {
    this.#tunnel?.recheck(changed);
  }

  /** What is known of the connections that are open. */
  *subjects(): Generator<Subject> {
    for (const { subject } of this.#open) if (subject !== undefined) yield subject;
  }

  /** Finds out about resets that nothing else would tell of. */
  probeAll(): void {
    for (const connection of this.#open) connection.probe();
  }

  /** Resolves when neither a connection nor a session is open. */
  async emptied(): Promise<void> {
    if (this.isEmpty) return;
    await new Promise<void>((resolve) => {
      this.#onEmpty.push(resolve);
    });
  }

  #createTunnel(mesh: KnownMesh): PodTunnel {
    const { sockets, log } = this.#deps;
    const tunnel: PodTunnel = new PodTunnel(
      {
        mesh,
        sockets,
        log,
        requested: (request, peer) => this.#requested(tunnel, request, peer),
        refused: (peer, text) =>
          log.warn('peer refused', {
            'src.addr': peer && formatEndpoint(peer),
            direction: 'inbound',
            error: text,
          }),
        sessions: (more) => {
          this.#deps.holds(more);
          this.#deps.session(more);
        },
        accepted: (more) => this.#deps.accepted('inboundSockets', more),
        handshakeFailed: () => this.#deps.handshakeFailed(),
        decided: (decision) => this.#deps.decided(decision),
        emptied: () => this.#tellIfEmpty(),
      },
      this.#options.pod,
      this.#options.netnsFd,
    );
    return tunnel;
  }

  #createServer(port: number): Server {
    // What else their sockets need, they inherit from the listener.
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, highWaterMark: HIGH_WATER_BYTES });
    server.on('connection', (client) => this.#accepted(port, client));
    server.on('error', (error) => {
      if (errnoOf(error) === 'EMFILE' || errnoOf(error) === 'ENFILE') this.#deps.outOfDescriptors();
    });
    return server;
  }

  #accepted(port: number, socket: Socket): void {
    const tunnel = this.#tunnel;
    if (port === HBONE_PORT && tunnel !== undefined) {
      tunnel.accept(socket);
      return;
    }
    const isOutbound = port === OUTBOUND_PORT;
    const client = new SocketClient(socket, this.#beforeEnd);
    const connection = this.#register(client, isOutbound ? 'outboundSockets' : 'inboundSockets');
    const { sockets, timeouts, relayed, directly } = this.#deps;
    const deps = { sockets, timeouts, netnsFd: this.#options.netnsFd, tunnel, relayed, directly };
    this.#serve(
      connection,
      isOutbound ? serveOutbound(connection, socket, deps) : serveInbound(connection, socket, deps),
    );
  }

  #requested(tunnel: PodTunnel, request: IncomingRequest, peer: TunnelPeer): void {
    // Sent before the peer had read of the leave: somebody else may serve it.
    const refusal = this.#isLeaving ? 'the pod is leaving' : this.#deps.hasOne() ? undefined : 'no descriptors left';
    if (refusal !== undefined) {
      request.refuse(503);
      this.#deps.log.warn('request refused', {
        'src.addr': formatEndpoint(peer.endpoint),
        'src.identity': peer.identity,
        direction: 'inbound',
        error: refusal,
      });
      return;
    }
    const client = new RequestClient(request);
    const connection = this.#register(client, undefined);
    const { sockets, relayed } = this.#deps;
    const { netnsFd, pod } = this.#options;
    const deps = { sockets, netnsFd, pod, tunnel, relayed };
    this.#serve(connection, serveTunnelled(connection, { request, peer, client }, deps));
  }

  /**
   * Counted before anything else.
   *
   * @param socket as what its accepted socket counts; undefined: it has none of its own
   */
  #register(client: Client, socket: SocketsOpen | undefined): OpenConnection {
    const { holds, series, meter, addressed } = this.#deps;
    const connection = new OpenConnection(client, { holds, series, meter, addressed, beforeEnd: this.#beforeEnd });
    this.#open.add(connection);
    this.#deps.opened();
    if (socket !== undefined) this.#deps.accepted(socket, 1);
    void connection.over.then((record) => {
      if (socket !== undefined) this.#deps.accepted(socket, -1);
      this.#over(connection, record);
    });
    return connection;
  }

  #serve(connection: OpenConnection, served: Promise<void>): void {
    served.catch((error: unknown) => {
      this.#deps.failed(error);
      connection.reset('internal');
    });
  }

  #over(connection: OpenConnection, record: ConnectionRecord): void {
    this.#open.delete(connection);
    if (record.ended === 'no-descriptors') this.#deps.outOfDescriptors();
    this.#deps.ended(record);
    this.#endIfIdle();
    this.#tellIfEmpty();
  }

  #endIfIdle(): void {
    if (this.#isLeaving && this.#open.size === 0) this.#tunnel?.drain();
  }

  #tellIfEmpty(): void {
    if (!this.isEmpty) return;
    for (const resolve of this.#onEmpty.splice(0)) resolve();
  }
}

async function listen(server: Server, listener: HandedListener | undefined, backlog: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // Given as an option, the backlog of a descriptor would be ignored, and listen(2) called with Node's own 511.
    server.listen({ fd: listener?.fd }, backlog, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
