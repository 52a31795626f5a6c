/** Pods of a mesh on the loopback of this process: real sockets, real TLS, no kernel programs. Each pod is a worker of its own. */
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import * as addon from '../../../native/addon/index.js';
import {
  type Address,
  type AuthorizationPolicy,
  DEFAULT_SETTINGS,
  type Endpoint,
  encodeAddress,
  identityOf,
  type MeshUpdate,
  policyName,
  type Service,
  type Workload,
} from '../../../src/mesh/index.ts';
import { type Decision, PolicyBook } from '../../../src/policy/index.ts';
import { WorkerCertificates } from '../../../src/ztunnel/certificates.ts';
import type { Path } from '../../../src/ztunnel/ledger.ts';
import { NodeView } from '../../../src/ztunnel/node-view.ts';
import type { ConnectionRecord } from '../../../src/ztunnel/open-connection.ts';
import { EndpointCosts } from '../../../src/ztunnel/outbound/endpoints.ts';
import { RetryBudget } from '../../../src/ztunnel/outbound/retry-budget.ts';
import { PodProxy } from '../../../src/ztunnel/pod-proxy.ts';
import { HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT, type PodSockets } from '../../../src/ztunnel/ports.ts';
import type { HandedListener } from '../../../src/ztunnel/protocol.ts';
import { meshUpdate } from '../../contract/fakes/mesh.ts';
import { fakePodSockets } from '../../contract/fakes/pod-sockets.ts';
import { FakeSeries } from '../../contract/fakes/series.ts';
import { makeAuthority, type TestAuthority } from '../../pki.ts';
import { workload } from './mesh.ts';

const NO_CHANGE = meshUpdate();
const NODE = 'n1';
const LOOPBACK = '127.0.0.1' as Address;

interface PodWish {
  readonly workload?: Parameters<typeof workload>[1];
  /** Not told to the pod's own worker, nor to the others. */
  readonly unknown?: boolean;
  readonly sockets?: (sockets: PodSockets) => PodSockets;
  /** Says whether there is room for a further request. */
  readonly hasOne?: () => boolean;
}

/** A pod with its proxy. Its app is a test's own. */
export class WorldPod {
  readonly workload: Workload;
  readonly address: Address;
  readonly proxy: PodProxy;
  readonly view: NodeView;
  readonly certificates: WorkerCertificates;
  readonly records: ConnectionRecord[] = [];
  readonly paths: Path[] = [];
  readonly logged: Array<{ message: string; [field: string]: unknown }> = [];
  /** What is counted of its connections. */
  readonly series = new FakeSeries();
  readonly sockets = { outboundSockets: 0, inboundSockets: 0 };
  readonly faults: unknown[] = [];
  /** What policy answered. */
  readonly decisions: Decision[] = [];
  /** Destinations that no encryption is due to. */
  readonly direct: Endpoint[] = [];
  /** Identities that were asked for. */
  readonly wanted: string[] = [];
  held = 0;
  sessions = 0;
  sessionsOpened = 0;
  handshakesFailed = 0;
  readonly #destinations: Record<number, Endpoint> = {};
  readonly #picks: Record<number, Endpoint> = {};
  #changed: Array<() => void> = [];
  readonly #sockets: PodSockets;
  #outbound = 0;
  #inbound = 0;
  /** Whom connections to the listener for plaintext are for: what the kernel would have led there. */
  #plainApp: Endpoint | undefined;

  constructor(workload: Workload, wish: PodWish) {
    const [own] = workload.addresses;
    if (own === undefined) throw new Error('a pod has an address');
    this.workload = workload;
    this.view = new NodeView(workload.node);
    this.address = own;
    this.certificates = new WorkerCertificates({ want: (identity) => this.wanted.push(identity) });
    const fake = fakePodSockets({ destinations: this.#destinations, picks: this.#picks });
    const sockets: PodSockets = {
      ...fake,
      // The port is in use by the client itself: both are on this machine.
      openInbound: (netnsFd, destination, client) => {
        const socket = fake.openInbound(netnsFd, destination, { ...client, port: 0 });
        const app = destination.port === this.#inbound ? this.#plainApp : undefined;
        if (app !== undefined) {
          const connect = socket.connect.bind(socket);
          socket.connect = () => connect({ host: app.address, port: app.port });
        }
        return socket;
      },
    };
    this.#sockets = sockets;
    this.proxy = new PodProxy(
      {
        sockets: wish.sockets?.(sockets) ?? sockets,
        timeouts: { followTimeouts: () => undefined, pollTimeouts: () => undefined },
        meter: { measure: () => ({ roundTripUs: 42, retransmits: 1 }) },
        series: this.series.table(),
        mesh: {
          view: this.view,
          book: new PolicyBook(this.view.model),
          certificates: this.certificates,
          costs: new EndpointCosts({ memory: EndpointCosts.allocate(1), worker: 0 }),
          retries: new RetryBudget({ workers: 1 }),
          lane: 0,
          poolIdleMs: 300_000,
          session: {},
        },
        log: {
          info: (message, fields) => this.#note(() => this.logged.push({ message, ...fields })),
          warn: (message, fields) => this.#note(() => this.logged.push({ message, ...fields })),
        },
        hasOne: () => wish.hasOne?.() ?? true,
        holds: (descriptors) => this.#note(() => (this.held += descriptors)),
        opened: () => undefined,
        relayed: (path) => this.#note(() => this.paths.push(path)),
        ended: (record) => this.#note(() => this.records.push(record)),
        decided: (decision) => this.#note(() => this.decisions.push(decision)),
        directly: (destination) => this.#note(() => this.direct.push(destination)),
        accepted: (sockets, more) => this.#note(() => (this.sockets[sockets] += more)),
        session: (more) =>
          this.#note(() => {
            this.sessions += more;
            if (more === 1) this.sessionsOpened += 1;
          }),
        handshakeFailed: () => this.#note(() => (this.handshakesFailed += 1)),
        outOfDescriptors: () => undefined,
        failed: (error) => this.#note(() => this.faults.push(error)),
      },
      {
        pod: workload,
        netnsFd: 0,
        backlog: 128,
      },
    );
  }

  async serve(): Promise<void> {
    const [outbound, hbone, inbound] = await Promise.all([
      openListener(LOOPBACK, 0),
      openListener(this.address, HBONE_PORT),
      openListener(this.address, 0),
    ]);
    this.#outbound = outbound.at;
    this.#inbound = inbound.at;
    await this.proxy.accept([
      { port: OUTBOUND_PORT, fd: outbound.fd },
      { port: HBONE_PORT, fd: hbone.fd },
      { port: INBOUND_PORT, fd: inbound.fd },
    ] satisfies HandedListener[]);
  }

  /** An app of the pod asks for a connection, and its agent has it. */
  open(destination: Endpoint, picked?: Endpoint): Socket {
    this.#destinations[this.#outbound] = destination;
    if (picked === undefined) delete this.#picks[this.#outbound];
    else this.#picks[this.#outbound] = picked;
    return connect({ host: LOOPBACK, port: this.#outbound, allowHalfOpen: true, noDelay: true }).on('error', () => {});
  }

  /** Somebody outside connects in plain to an app of the pod, and its agent has it. */
  openPlain(app: Endpoint): Socket {
    this.#plainApp = app;
    return connect({ host: this.address, port: this.#inbound, allowHalfOpen: true, noDelay: true }).on(
      'error',
      () => {},
    );
  }

  /** A socket of the agent's own in the pod. */
  socket(to: Endpoint): Socket {
    return this.#sockets.openOutbound(0, to, undefined, { resetOnDeath: false });
  }

  /** Resolves when it is so; something is told of with every change. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#changed.push(resolve));
  }

  #note(what: () => unknown): void {
    what();
    for (const resolve of this.#changed.splice(0)) resolve();
  }
}

/** An app that hands out its connections one by one. */
export interface WorldApp {
  readonly endpoint: Endpoint;
  readonly server: Server;
  accepted(): Promise<Socket>;
}

export class World {
  readonly #prefix = `127.${randomInt(1, 255)}.${randomInt(0, 256)}`;
  readonly #authority: TestAuthority;
  readonly #pods: WorldPod[] = [];
  readonly #workloads: Workload[] = [];
  readonly #services: Service[] = [];
  readonly #servers: Server[] = [];
  #policies: readonly AuthorizationPolicy[] = [];
  #hosts = 1;

  constructor(authority: TestAuthority) {
    this.#authority = authority;
  }

  static async create(t: { teardown(run: () => void): void }): Promise<World> {
    const world = new World(await makeAuthority());
    t.teardown(() => world.close());
    return world;
  }

  /** An address of this world that nobody has. */
  address(): Address {
    this.#hosts += 1;
    return `${this.#prefix}.${this.#hosts}` as Address;
  }

  /** A pod in the mesh, with a certificate. */
  async pod(name: string, wish: PodWish = {}): Promise<WorldPod> {
    const it = workload(name, { addresses: [this.address()], node: NODE, ...wish.workload });
    const pod = new WorldPod(it, wish);
    this.#pods.push(pod);
    if (wish.unknown !== true) this.#workloads.push(it);
    await pod.serve();
    await this.certify(pod);
    return pod;
  }

  async certify(pod: WorldPod, wish: Parameters<TestAuthority['issue']>[0] = {}): Promise<void> {
    const certificate = await this.#authority.issue({ identity: identityOf(pod.workload), ...wish });
    // What it is issued for and what it names may differ: a test's own wish.
    pod.certificates.apply({
      kind: 'issued',
      certificate: { ...certificate, identity: identityOf(pod.workload) },
    });
  }

  /** Everybody learns of everything. */
  tell(services: readonly Service[] = [], workloads: readonly Workload[] = []): void {
    this.#services.push(...services);
    this.#workloads.push(...workloads);
    this.#applyAll(this.#update());
  }

  /** These policies, and no others, are in force everywhere. */
  rule(...policies: readonly AuthorizationPolicy[]): void {
    const names = new Set(policies.map(policyName));
    const removedPolicies = this.#policies.map(policyName).filter((name) => !names.has(name));
    this.#policies = policies;
    this.#applyAll({ ...NO_CHANGE, policies, removedPolicies });
  }

  /** Something else has changed. */
  change(update: Partial<MeshUpdate>): void {
    this.#applyAll({ ...NO_CHANGE, ...update });
  }

  /** An app listens at a pod's address. */
  async app(pod: { readonly address: Address }, port = 0): Promise<WorldApp> {
    const ready: Socket[] = [];
    const waiting: Array<(socket: Socket) => void> = [];
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (socket) => {
      socket.on('error', () => {});
      const next = waiting.shift();
      if (next === undefined) ready.push(socket);
      else next(socket);
    });
    this.#servers.push(server);
    server.listen(port, pod.address);
    await once(server, 'listening');
    return {
      endpoint: { address: pod.address, port: (server.address() as AddressInfo).port },
      server,
      accepted: () => {
        const socket = ready.shift();
        return socket === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(socket);
      },
    };
  }

  #applyAll(update: MeshUpdate): void {
    for (const pod of this.#pods) {
      pod.proxy.recheck(pod.view.apply(update));
    }
  }

  close(): void {
    for (const { proxy } of this.#pods) {
      proxy.stopAccepting();
      proxy.resetAll('pod-dropped');
    }
    for (const server of this.#servers) server.close();
  }

  #update(): MeshUpdate {
    return {
      complete: true,
      workloads: this.#workloads,
      services: this.#services,
      removed: [],
      policies: this.#policies,
      removedPolicies: [],
      settings: DEFAULT_SETTINGS,
    };
  }
}

/** A listener as the kernel room makes them; who accepts from it has the descriptor. */
async function openListener(address: Address, port: number): Promise<{ fd: number; at: number }> {
  const fd = addon.socketOpen({
    family: 4,
    bind: { address: encodeAddress(address), port },
    reusePort: true,
    backlog: 128,
  });
  const probe = createServer().listen({ fd: addon.duplicate(fd) });
  await once(probe, 'listening');
  const { port: at } = probe.address() as AddressInfo;
  probe.close();
  return { fd, at };
}
