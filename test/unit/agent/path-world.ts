/** A node with three pods, its kernel path over a kernel in memory, and a hand on everything around it. */
import { KernelPath, type KernelPathOptions, type PathModel, type PathRouting } from '../../../src/agent/index.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type Endpoint,
  type FlowRecord,
  type MeshUpdate,
  matchOf,
  type NetnsCookie,
  type Pod,
  type PolicyMatch,
  ReadModel,
  type Workload,
} from '../../../src/mesh/index.ts';
import { PolicyBook } from '../../../src/policy/index.ts';
import { backendsOf, directTo, isChosenFreely } from '../../../src/ztunnel/index.ts';
import { FakeLog } from '../../contract/fakes/log.ts';
import { meshUpdate, workload } from '../../contract/fakes/mesh.ts';
import { FakePathKernel } from '../../contract/fakes/path-kernel.ts';
import { pod } from '../../contract/fakes/pods.ts';
import { FakeSeriesBook } from '../../contract/fakes/series-book.ts';

export const [WEB, DB, CLI] = [1n, 2n, 3n] as [NetnsCookie, NetnsCookie, NetnsCookie];

export const addressOf = (text: string): Address => text as Address;
export const at = (address: string, port = 80): Endpoint => ({ address: addressOf(address), port });

export const webPod = pod({ uid: 'web', name: 'web-0', serviceAccount: 'web', addresses: ['10.0.0.1', 'fd00::1'] });
export const dbPod = pod({ uid: 'db', name: 'db-0', serviceAccount: 'db', addresses: ['10.0.0.2', 'fd00::2'] });
export const cliPod = pod({ uid: 'cli', name: 'cli-0', serviceAccount: 'cli', addresses: ['10.0.0.3'] });

/** The workload that a pod of this node is. */
export function workloadOf(
  { name, namespace, serviceAccount, addresses }: Pod,
  changes: Partial<Workload> = {},
): Workload {
  return workload({ name, namespace, serviceAccount, addresses, ...changes });
}

export const [web, db, cli] = [workloadOf(webPod), workloadOf(dbPod), workloadOf(cliPod)];
/** A pod of another node. */
export const far = workload({ name: 'far-0', node: 'n2', addresses: [addressOf('10.0.9.9')] });

/** A policy of the namespace `shop` with one match. */
export function policy(
  name: string,
  action: 'allow' | 'deny',
  match: Partial<PolicyMatch>,
  changes: Partial<AuthorizationPolicy> = {},
): AuthorizationPolicy {
  const rules = [{ clauses: [{ matches: [matchOf(match)] }], unlessThroughWaypoint: false }];
  return { namespace: 'shop', name, scope: 'namespace', action, rules, dryRun: false, ...changes };
}

/** For nobody but the pods of this service account. */
export const onlyFor = (serviceAccount: string): AuthorizationPolicy =>
  policy(`only-${serviceAccount}`, 'allow', { serviceAccounts: [{ namespace: 'shop', serviceAccount }] });

/** As the control plane says STRICT. */
export const strict = policy('strict', 'deny', { notPrincipals: [{ kind: 'presence' }] });

/** Time that only the test moves. */
export class HandClock {
  time = 1_000_000;
  readonly #runs = new Set<{ readonly ms: number; next: number; readonly run: () => void }>();

  now(): number {
    return this.time;
  }

  every(ms: number, run: () => void): { stop(): void } {
    const entry = { ms, next: this.time + ms, run };
    this.#runs.add(entry);
    return { stop: () => void this.#runs.delete(entry) };
  }

  advance(ms: number): void {
    const end = this.time + ms;
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.time = next.next;
      next.next += next.ms;
      next.run();
    }
    this.time = end;
  }

  #next(end: number) {
    return [...this.#runs].filter(({ next }) => next <= end).sort((a, b) => a.next - b.next)[0];
  }
}

export class World {
  readonly kernel = new FakePathKernel();
  readonly model = new ReadModel();
  readonly clock = new HandClock();
  readonly log = new FakeLog();
  readonly remembered: FlowRecord[] = [];
  readonly book = new FakeSeriesBook();
  /** Weights of endpoints by their key; 1 where nothing is said. */
  readonly weights = new Map<string, number>();
  readonly groups = new Map<string, { cgroup: bigint; level: number }>();
  readonly path: KernelPath;
  activity = 0;
  /** How often weights were asked for. */
  asked = 0;

  constructor(options: Partial<KernelPathOptions> = {}) {
    const costs = {
      weights: ({ keys }: { readonly keys: readonly string[] }) => {
        this.asked += 1;
        return keys.map((key) => this.weights.get(key) ?? 1);
      },
    };
    const routing: PathRouting = {
      directTo: (source, destination) => directTo(this.model, source, destination),
      backendsOf: (service, port, family, source) => backendsOf(this.model, costs, service, port, family, source),
      isChosenFreely,
      activity: () => this.activity,
    };
    this.path = new KernelPath(
      {
        kernel: this.kernel,
        model: this.model satisfies PathModel,
        book: new PolicyBook(this.model),
        routing,
        flows: { add: (records) => void this.remembered.push(...records) },
        series: { book: this.book },
        groups: { find: (path) => this.groups.get(path) },
        directories: { watch: () => ({ close: () => undefined }) },
        clock: this.clock,
        log: this.log.log,
      },
      { node: 'n1', isOn: true, kubeletPaths: [], ...options },
    );
  }

  enrol(each: Pod, cookie: NetnsCookie): void {
    this.kernel.capture(cookie);
    this.path.podChanged(each, cookie, 'enrolled');
  }

  async update(changes: Partial<MeshUpdate>): Promise<void> {
    const update = meshUpdate(changes);
    await this.path.apply(update, () => this.model.apply(update));
  }

  /** What of the log has this message. */
  told(message: string): Array<Record<string, unknown>> {
    return this.log.entries.filter((entry) => entry.message === message).map(({ fields }) => fields);
  }
}

/** A node on which all three pods are served, and known to the mesh. */
export async function setUp(
  changes: Partial<MeshUpdate> = {},
  options: Partial<KernelPathOptions> = {},
): Promise<World> {
  const world = new World(options);
  world.path.start();
  world.enrol(webPod, WEB);
  world.enrol(dbPod, DB);
  world.enrol(cliPod, CLI);
  world.path.podsKnown();
  await world.update({ complete: true, workloads: [web, db, cli, far], ...changes });
  return world;
}
