import {
  type Address,
  type Endpoint,
  formatEndpoint,
  type SpiffeId,
  type Workload,
  waypointIdentities,
} from '../mesh/index.ts';
import { type Attempt, type Decision, Guards, type Permit, type PolicyBook, type Rules } from '../policy/index.ts';
import { type Failure, failure } from './errors.ts';
import type { NodeView } from './node-view.ts';
import type { OpenConnection } from './open-connection.ts';
import { endForbidden, type PolicyFacts } from './policy-change.ts';
import type { WorkerLog } from './worker-log.ts';

interface PodPolicyDeps {
  readonly view: Pick<NodeView, 'model' | 'version'>;
  readonly book: PolicyBook;
  readonly log: Pick<WorkerLog, 'info' | 'warn'>;
  /** The pod's own workload, as it is now; undefined: nobody knows it. */
  workload(): Workload | undefined;
  /** What a new connection was answered. */
  decided(decision: Decision): void;
}

/** Somebody who wants to connect to the pod. */
export interface Asker {
  /** Undefined: nothing is proven. */
  readonly identity: SpiffeId | undefined;
  readonly client: Endpoint;
  /** What will be dialled. */
  readonly destination: Endpoint;
}

/** Wire contract, section 5.6. */
const REJECTED = 'connection closed due to policy rejection: ';

/**
 * Who may connect to one pod, in one worker. What it has let in it goes on watching: whatever the mesh's next update forbids
 * is reset.
 */
export class PodPolicy {
  readonly #deps: PodPolicyDeps;
  readonly #guards = new Guards();
  /** The update of the mesh that what follows is of. */
  #version = -1;
  #workload: Workload | undefined;
  /** What new connections are judged by. */
  #rules: Rules;
  /** What open ones were judged by last; undefined: there have never been any rules. */
  #judged: { readonly workload: Workload; readonly rules: Rules } | undefined;
  /** Some connection's answer depends on who the waypoints are. */
  #looksAtWaypoints = false;
  #waypoints: { readonly version: number; readonly identities: ReadonlySet<SpiffeId> } | undefined;

  constructor(deps: PodPolicyDeps) {
    this.#deps = deps;
    this.#rules = deps.book.rulesFor(undefined);
  }

  /** Asks for a connection, which is watched from then on until it is over. */
  admit(connection: OpenConnection, asker: Asker): { readonly permit: Permit } | { readonly denied: Failure } {
    if (this.#version !== this.#deps.view.version) this.recheck();
    const attempt = new PodAttempt(asker, this);
    const guard = this.#guards.enter(attempt, (decision) =>
      endForbidden(connection, attempt.facts(), decision, this.#deps.log),
    );
    const answer = guard.ask(this.#rules);
    connection.guardedBy(guard);
    const decision = 'permit' in answer ? answer.permit.decision : answer.denied;
    this.#deps.decided(decision);
    if (decision.dryRun.length > 0) this.#tellDryRun(attempt, decision);
    if ('permit' in answer) return answer;
    return { denied: failure('policy-denied', REJECTED + decision.text) };
  }

  /**
   * Judges what is open anew, if something has changed that its answers depend on. A pod that nobody knows any more keeps what
   * it has, judged by what it was, and is given nothing new.
   */
  recheck(): void {
    const { view, book } = this.#deps;
    this.#version = view.version;
    this.#workload = this.#deps.workload();
    this.#rules = book.rulesFor(this.#workload);
    const workload = this.#workload ?? this.#judged?.workload;
    if (workload === undefined) return;
    const rules = this.#workload === undefined ? book.rulesFor(workload) : this.#rules;
    const before = this.#judged;
    if (before?.rules === rules && before.workload === workload && !this.#looksAtWaypoints) return;
    this.#judged = { workload, rules };
    this.#looksAtWaypoints = false;
    this.#guards.recheck(rules);
  }

  /** Whether it is a waypoint of the pod's, as the mesh is now. */
  isWaypoint(identity: SpiffeId | undefined): boolean {
    this.#looksAtWaypoints = true;
    const workload = this.#judged?.workload;
    if (identity === undefined || workload === undefined) return false;
    const { version, model } = this.#deps.view;
    if (this.#waypoints?.version !== version)
      this.#waypoints = { version, identities: waypointIdentities(model, workload) };
    return this.#waypoints.identities.has(identity);
  }

  #tellDryRun(attempt: PodAttempt, { dryRun }: Decision): void {
    for (const { policy, would } of dryRun)
      if (would !== 'allow') this.#deps.log.info('policy dry run', { ...attempt.facts(), policy, would });
  }
}

/** What policy looks at of one connection. */
class PodAttempt implements Attempt {
  readonly source: SpiffeId | undefined;
  readonly destination: Endpoint;
  readonly #client: Endpoint;
  readonly #policy: PodPolicy;

  constructor({ identity, client, destination }: Asker, policy: PodPolicy) {
    this.source = identity;
    this.destination = destination;
    this.#client = client;
    this.#policy = policy;
  }

  get sourceAddress(): Address {
    return this.#client.address;
  }

  /** Found out only where a rule asks, and anew each time: waypoints come and go. */
  get throughWaypoint(): boolean {
    return this.#policy.isWaypoint(this.source);
  }

  facts(): PolicyFacts {
    return {
      'src.addr': formatEndpoint(this.#client),
      'src.identity': this.source,
      'dst.addr': formatEndpoint(this.destination),
      direction: 'inbound',
    };
  }
}
