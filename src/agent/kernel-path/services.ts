import {
  type Address,
  type Endpoint,
  familyOf,
  formatEndpoint,
  type MeshUpdate,
  type Service,
  type ServiceName,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';
import type { Clock } from '../ports.ts';
import type { Concern } from './concern.ts';
import type { KernelBackend, PathModel, PathRouting, ServiceTable } from './ports.ts';

interface PublishedServicesDeps {
  readonly table: ServiceTable;
  readonly model: Pick<PathModel, 'service' | 'workloadAt' | 'settings'>;
  readonly routing: Pick<PathRouting, 'backendsOf' | 'isChosenFreely' | 'activity'>;
  readonly clock: Pick<Clock, 'now'>;
}

/** More than this are left to the tunnel (layout.h, LIMIT_BACKENDS). */
const MOST_BACKENDS = 64;
/** What endpoints cost is forgotten by and by, so weights go on changing for so long after the last connection. */
const RESTLESS_MS = 30_000;

interface Standing {
  readonly at: Endpoint;
  /** What was written, as text: the same is not written again. */
  readonly print: string;
}

/**
 * The services of which the kernel chooses a backend itself; this is the only writer of their table. Seen from one of the
 * node's workloads: all of a node see the same endpoints, unless they are on another network.
 */
export class PublishedServices {
  readonly #deps: PublishedServicesDeps;
  readonly #known = new Map<ServiceName, Service>();
  /** Of all known services. An address of several is left to the tunnel, which knows who sees which. */
  readonly #byAddress = new Map<Address, Set<ServiceName>>();
  readonly #standing = new Map<ServiceName, Map<string, Standing>>();
  readonly #due = new Set<ServiceName>();
  /** Services whose weights are still to be looked at in this round. */
  #round: Iterator<ServiceName> | undefined;
  #vantage: Workload | undefined;
  #activity = -1;
  #restlessUntil = 0;

  constructor(deps: PublishedServicesDeps) {
    this.#deps = deps;
  }

  /** Addresses with ports that stand in the table. */
  get count(): number {
    let sum = 0;
    for (const all of this.#standing.values()) sum += all.size;
    return sum;
  }

  /** The workload that services are seen from; undefined: nobody is there to see them. */
  seenFrom(vantage: Workload | undefined): void {
    const isSame = viewOf(vantage) === viewOf(this.#vantage);
    this.#vantage = vantage;
    if (!isSame) this.touchAll();
  }

  /** All of an update of the mesh that is about services. */
  note(update: MeshUpdate, { all, addresses, services }: Concern): void {
    if (update.complete) this.forgetKnown();
    for (const service of update.services) this.put(service);
    for (const key of update.removed) this.delete(key as ServiceName);
    if (all) this.touchAll();
    for (const name of services) this.touch(name);
    for (const address of addresses) this.touchAddress(address);
  }

  /** Has been added or is another than before. */
  put(service: Service): void {
    const name = serviceName(service);
    const before = this.#known.get(name);
    this.#forgetAddresses(name, before);
    this.#known.set(name, service);
    for (const { address } of service.addresses) {
      const names = this.#byAddress.get(address) ?? new Set<ServiceName>();
      this.#byAddress.set(address, names.add(name));
    }
    this.#touchNeighbours(before);
    this.#touchNeighbours(service);
    this.#due.add(name);
  }

  delete(name: ServiceName): void {
    const before = this.#known.get(name);
    if (before === undefined) return;
    this.#known.delete(name);
    this.#forgetAddresses(name, before);
    this.#touchNeighbours(before);
    this.#due.add(name);
  }

  /** Something about it, its endpoints say, is another than before. */
  touch(name: ServiceName): void {
    if (this.#known.has(name)) this.#due.add(name);
  }

  touchAll(): void {
    for (const name of this.#known.keys()) this.#due.add(name);
  }

  /** Something else is at this address than before. */
  touchAddress(address: Address): void {
    for (const name of this.#byAddress.get(address) ?? []) this.#due.add(name);
  }

  /** All that is known has been replaced. */
  forgetKnown(): void {
    this.touchAll();
    this.#known.clear();
    this.#byAddress.clear();
  }

  /** The table has been cleared. */
  clear(): void {
    this.#standing.clear();
    this.touchAll();
  }

  /**
   * Deletes at once what the kernel must no longer choose for: a service that has gone, that has a waypoint, that not
   * everybody sees. What it chooses meanwhile of the others is only not the newest.
   */
  withdraw(): void {
    for (const name of this.#due) {
      const standing = this.#standing.get(name);
      if (standing === undefined) continue;
      for (const [key, { at }] of standing) {
        if (this.#isChoosable(name, at)) continue;
        this.#deps.table.deleteService(at);
        standing.delete(key);
      }
      if (standing.size === 0) this.#standing.delete(name);
    }
  }

  /** Writes what has changed, for as long as `mayGoOn`. True: nothing is left. */
  publish(mayGoOn: () => boolean): boolean {
    for (const name of this.#due) {
      if (!mayGoOn()) return false;
      this.#due.delete(name);
      this.#write(name);
    }
    return true;
  }

  /** Writes what has changed, weights included, for as long as `mayGoOn`; goes on there the next time. Idle, it does nothing. */
  refresh(mayGoOn: () => boolean): void {
    if (!this.publish(mayGoOn) || !this.#isRestless()) return;
    this.#round ??= [...this.#standing.keys()].values();
    for (let next = this.#round.next(); next.done !== true; next = this.#round.next()) {
      if (this.#write(next.value)) this.#restlessUntil = this.#deps.clock.now() + RESTLESS_MS;
      if (!mayGoOn()) return;
    }
    this.#round = undefined;
  }

  #isRestless(): boolean {
    const [now, activity] = [this.#deps.clock.now(), this.#deps.routing.activity()];
    if (activity !== this.#activity) this.#restlessUntil = now + RESTLESS_MS;
    this.#activity = activity;
    return now < this.#restlessUntil;
  }

  /** True: something of it is written otherwise than before. */
  #write(name: ServiceName): boolean {
    const before = this.#standing.get(name);
    const wanted = this.#wanted(name);
    let isChanged = false;
    const standing = new Map<string, Standing>();
    for (const [key, { at, backends }] of wanted) {
      const print = printOf(backends);
      const isSame = before?.get(key)?.print === print;
      if (!isSame && !this.#deps.table.putService(at, backends)) continue;
      isChanged ||= !isSame;
      standing.set(key, { at, print });
    }
    for (const [key, { at }] of before ?? []) {
      if (standing.has(key)) continue;
      this.#deps.table.deleteService(at);
      isChanged = true;
    }
    if (standing.size === 0) this.#standing.delete(name);
    else this.#standing.set(name, standing);
    return isChanged;
  }

  #wanted(name: ServiceName): Map<string, { at: Endpoint; backends: readonly KernelBackend[] }> {
    const wanted = new Map<string, { at: Endpoint; backends: readonly KernelBackend[] }>();
    const service = this.#known.get(name);
    const vantage = this.#vantage;
    if (service === undefined || vantage === undefined) return wanted;
    for (const { network, address } of service.addresses) {
      if (network !== vantage.network || !this.#isItsAlone(network, address)) continue;
      for (const { servicePort } of service.ports) {
        const backends = this.#backends(service, servicePort, familyOf(address), vantage);
        if (backends.length === 0) continue;
        const at = { address, port: servicePort };
        wanted.set(formatEndpoint(at), { at, backends });
      }
    }
    return wanted;
  }

  #backends(service: Service, port: number, family: 4 | 6, vantage: Workload): readonly KernelBackend[] {
    const all = this.#deps.routing.backendsOf(service, port, family, vantage) ?? [];
    if (all.length > MOST_BACKENDS) return [];
    const backends = all.flatMap(({ endpoint, weight }) => (weight > 0 ? [{ endpoint, weight }] : []));
    // One that is left out comes back when its time is over, and nothing else tells of that.
    if (backends.length < all.length) this.#restlessUntil = this.#deps.clock.now() + RESTLESS_MS;
    return backends;
  }

  /** As `#wanted`, but for the backends. */
  #isChoosable(name: ServiceName, at: Endpoint): boolean {
    const service = this.#known.get(name);
    const network = this.#vantage?.network;
    if (service === undefined || network === undefined || !this.#deps.routing.isChosenFreely(service)) return false;
    return (
      service.addresses.some((each) => each.network === network && each.address === at.address) &&
      service.ports.some(({ servicePort }) => servicePort === at.port) &&
      this.#isItsAlone(network, at.address)
    );
  }

  #isItsAlone(network: string, address: Address): boolean {
    const { model } = this.#deps;
    if (network !== model.settings.network || (this.#byAddress.get(address)?.size ?? 0) > 1) return false;
    return model.workloadAt(network, address) === undefined;
  }

  #forgetAddresses(name: ServiceName, service: Service | undefined): void {
    for (const { address } of service?.addresses ?? []) {
      const names = this.#byAddress.get(address);
      names?.delete(name);
      if (names?.size === 0) this.#byAddress.delete(address);
    }
  }

  #touchNeighbours(service: Service | undefined): void {
    for (const { address } of service?.addresses ?? []) this.touchAddress(address);
  }
}

function printOf(backends: readonly KernelBackend[]): string {
  return backends.map(({ endpoint, weight }) => `${formatEndpoint(endpoint)}=${weight}`).join();
}

const views = new WeakMap<Workload, string>();

/** All that a service's endpoints are told apart by, as far as it is the client's. */
export function viewOf(workload: Workload | undefined): string | undefined {
  if (workload === undefined) return undefined;
  const known = views.get(workload);
  if (known !== undefined) return known;
  const { locality, node, clusterId, network } = workload;
  const view = JSON.stringify([locality.region, locality.zone, locality.subzone, node, clusterId, network]);
  views.set(workload, view);
  return view;
}
