import type { Address } from './address.ts';
import type { Workload } from './workload.ts';

/** Workloads by something that they nearly always have to themselves: one is kept as it is, only several as an array. */
class WorkloadsBy<Key> {
  readonly #found = new Map<Key, Workload | readonly Workload[]>();

  /** The newest first. */
  all(key: Key): readonly Workload[] {
    const found = this.#found.get(key);
    if (found === undefined) return [];
    return isSeveral(found) ? found : [found];
  }

  /** `one` unless there are several; then the one of the highest rank, among equals the newest. */
  best(key: Key, rankOf: (workload: Workload) => number): Workload | undefined {
    const found = this.#found.get(key);
    if (found === undefined || !isSeveral(found)) return found;
    return found.reduce((best, each) => (rankOf(each) > rankOf(best) ? each : best));
  }

  add(key: Key, workload: Workload): void {
    this.#found.set(key, this.#found.has(key) ? [workload, ...this.all(key)] : workload);
  }

  /** Returns whether nothing is left at all. */
  delete(key: Key, workload: Workload): boolean {
    const rest = this.all(key).filter((each) => each !== workload);
    const [first] = rest;
    if (first === undefined) this.#found.delete(key);
    else this.#found.set(key, rest.length === 1 ? first : rest);
    return this.#found.size === 0;
  }

  *values(): Generator<Workload> {
    for (const found of this.#found.values())
      if (isSeveral(found)) yield* found;
      else yield found;
  }
}

function isSeveral(found: Workload | readonly Workload[]): found is readonly Workload[] {
  return Array.isArray(found);
}

/** Workloads by uid, by address in a network, by node and name, and by hostname. */
export class WorkloadIndex {
  readonly #byUid = new Map<string, Workload>();
  /** The outer keys are networks. Those in host network mode are not in it: their address is their node's. */
  readonly #byAddress = new Map<string, WorkloadsBy<Address>>();
  /** The outer keys are nodes. */
  readonly #byName = new Map<string, WorkloadsBy<string>>();
  /** Keys are `namespace/hostname`; few workloads have one. */
  readonly #byHostname = new WorkloadsBy<string>();

  get(uid: string): Workload | undefined {
    return this.#byUid.get(uid);
  }

  /** Of several, a pod before anything else, and then one in the mesh (wire contract, section 6.6). */
  at(network: string, address: Address): Workload | undefined {
    return this.#byAddress.get(network)?.best(address, rankAtAddress);
  }

  onNode(node: string): Iterable<Workload> {
    return this.#byName.get(node)?.values() ?? [];
  }

  /** Those of a name, of any namespace. */
  named(node: string, name: string): readonly Workload[] {
    return this.#byName.get(node)?.all(name) ?? [];
  }

  withHostname(namespace: string, hostname: string): Workload | undefined {
    return this.#byHostname.all(`${namespace}/${hostname}`)[0];
  }

  values(): Iterable<Workload> {
    return this.#byUid.values();
  }

  /** Returns the one that it replaces. */
  put(workload: Workload): Workload | undefined {
    const old = this.delete(workload.uid);
    this.#byUid.set(workload.uid, workload);
    if (workload.networkMode === 'standard')
      for (const address of workload.addresses) innerOf(this.#byAddress, workload.network).add(address, workload);
    if (workload.node !== '') innerOf(this.#byName, workload.node).add(workload.name, workload);
    if (workload.hostname !== '') this.#byHostname.add(hostnameKey(workload), workload);
    return old;
  }

  /** Returns the one that was there. */
  delete(uid: string): Workload | undefined {
    const old = this.#byUid.get(uid);
    if (old === undefined) return undefined;
    this.#byUid.delete(uid);
    if (old.networkMode === 'standard')
      for (const address of old.addresses) deleteFrom(this.#byAddress, old.network, address, old);
    if (old.node !== '') deleteFrom(this.#byName, old.node, old.name, old);
    if (old.hostname !== '') this.#byHostname.delete(hostnameKey(old), old);
    return old;
  }
}

function rankAtAddress(workload: Workload): number {
  return (workload.uid.includes('//Pod/') ? 2 : 0) + (workload.protocol === 'hbone' ? 1 : 0);
}

function hostnameKey({ namespace, hostname }: Workload): string {
  return `${namespace}/${hostname}`;
}

function innerOf<Key>(outer: Map<string, WorkloadsBy<Key>>, key: string): WorkloadsBy<Key> {
  const found = outer.get(key);
  if (found !== undefined) return found;
  const made = new WorkloadsBy<Key>();
  outer.set(key, made);
  return made;
}

function deleteFrom<Key>(outer: Map<string, WorkloadsBy<Key>>, key: string, inner: Key, workload: Workload): void {
  if (outer.get(key)?.delete(inner, workload) === true) outer.delete(key);
}
