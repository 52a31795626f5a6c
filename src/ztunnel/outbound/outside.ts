import { type Address, type Endpoint, familyOf, formatEndpoint, type Workload } from '../../mesh/index.ts';
import { type Attempt, type Decision, type PolicyBook, plaintextRules, type Rules } from '../../policy/index.ts';
import type { ChangedAt, NodeView } from '../node-view.ts';
import type { OpenConnection } from '../open-connection.ts';
import { endForbidden, type PolicyFacts } from '../policy-change.ts';
import type { WorkerLog } from '../worker-log.ts';

interface OutsideDeps {
  readonly view: Pick<NodeView, 'model'>;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
  readonly log: Pick<WorkerLog, 'warn'>;
  /** The pod's own workload, as it is now; undefined: nobody knows it. */
  workload(): Workload | undefined;
}

/** A connection of the pod's in the clear. */
export interface Leaving {
  /** Of the pod. */
  readonly source: Workload;
  readonly client: Endpoint;
  /** As dialled. */
  readonly destination: Endpoint;
}

/**
 * What one pod has open, in one worker, to destinations that took no tunnel when it was dialled. Its agent is the only one that
 * can end it when somebody joins the mesh there: the one at the other end has never seen it.
 */
export class OutsideConnections {
  readonly #deps: OutsideDeps;
  readonly #open = new Map<Address, Set<Outside>>();
  /** Whose addresses they are. */
  #network = '';

  constructor(deps: OutsideDeps) {
    this.#deps = deps;
  }

  /** Watches a connection until it is over, or is guarded by something else. To be called before it is dialled. */
  watch(connection: OpenConnection, leaving: Leaving): void {
    this.#network = leaving.source.network;
    const { address } = leaving.destination;
    const all = this.#open.get(address) ?? new Set();
    const outside: Outside = new Outside(connection, leaving, () => {
      if (all.delete(outside) && all.size === 0) this.#open.delete(address);
    });
    this.#open.set(address, all.add(outside));
    connection.guardedBy(outside);
  }

  /**
   * The mesh has changed: ends what leads to somebody who takes the tunnel by now, and lets in nobody like this without
   * identity. What policy lets in lives on, although the next one goes through the tunnel.
   */
  recheck(changed: ChangedAt): void {
    if (this.#open.size === 0) return;
    const { view, book, log } = this.#deps;
    const network = this.#deps.workload()?.network ?? this.#network;
    const addresses = network === this.#network ? changed : 'anywhere';
    this.#network = network;
    // All are decided first: the end of one may be the end of others, and these are to know why.
    const forbidden: Outside[] = [];
    for (const [address, all] of this.#at(addresses)) {
      const rules = plaintextRules(view.model, book, network, address);
      if (rules !== undefined) for (const each of all) if (each.isForbiddenBy(rules)) forbidden.push(each);
    }
    for (const each of forbidden) each.end(log);
  }

  /** Looks at the shorter list. */
  *#at(addresses: ChangedAt): Iterable<readonly [Address, ReadonlySet<Outside>]> {
    if (addresses === 'anywhere') yield* this.#open;
    else if (addresses.size > this.#open.size) {
      for (const entry of this.#open) if (addresses.has(entry[0])) yield entry;
    } else
      for (const address of addresses) {
        const all = this.#open.get(address);
        if (all !== undefined) yield [address, all];
      }
  }
}

/** One of them. */
class Outside {
  decision: Decision | undefined;
  readonly leave: () => void;
  readonly #connection: OpenConnection;
  readonly #leaving: Leaving;

  constructor(connection: OpenConnection, leaving: Leaving, leave: () => void) {
    this.#connection = connection;
    this.#leaving = leaving;
    this.leave = leave;
  }

  isForbiddenBy(rules: Rules): boolean {
    this.decision = rules.decide(this.#attempt());
    return !this.decision.allowed;
  }

  end(log: Pick<WorkerLog, 'warn'>): void {
    if (this.decision !== undefined) endForbidden(this.#connection, this.#facts(), this.decision, log);
  }

  #attempt(): Attempt {
    const { destination } = this.#leaving;
    return { source: undefined, sourceAddress: sourceAddressOf(this.#leaving), destination, throughWaypoint: false };
  }

  #facts(): PolicyFacts {
    const { client, destination } = this.#leaving;
    return {
      'src.addr': formatEndpoint(client),
      'src.identity': undefined,
      'dst.addr': formatEndpoint(destination),
      direction: 'outbound',
    };
  }
}

/** An endpoint of a service may be of another family than what the client asked for: it is dialled from another address of the pod's. */
function sourceAddressOf({ source, client, destination }: Leaving): Address {
  const family = familyOf(destination.address);
  if (familyOf(client.address) === family) return client.address;
  return source.addresses.find((address) => familyOf(address) === family) ?? client.address;
}
