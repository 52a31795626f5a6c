import type { Address } from '../../mesh/index.ts';
import { plaintextRules, type Rules } from '../../policy/index.ts';
import type { PathWorld } from './decide.ts';

/** Addresses remembered of either kind; beyond that none is told from another. */
const MOST_ADDRESSES = 16_384;

/**
 * Addresses outside that no verdict names any more, and that connections may lead to nevertheless. What is not in it, and is
 * named by no verdict, nobody leads to.
 */
export class PastDestinations {
  #addresses: Set<Address> | undefined = new Set();

  /** They were too many: each address may be one of them, until they are collected again. */
  get isOverfull(): boolean {
    return this.#addresses === undefined;
  }

  add(address: Address): void {
    this.#addresses?.add(address);
    if ((this.#addresses?.size ?? 0) > MOST_ADDRESSES) this.#addresses = undefined;
  }

  mayHave(address: Address): boolean {
    return this.#addresses === undefined || this.#addresses.has(address);
  }

  /** All that still lives is to be added again. */
  clear(): void {
    this.#addresses = new Set();
  }
}

interface Joined {
  readonly network: string;
  readonly address: Address;
  /** By which its flows were let live. */
  readonly rules: Rules;
}

/** Addresses outside that have joined the mesh, whose flows live on because plaintext is let in there. Mostly there are none. */
export class JoinedDestinations {
  readonly #world: Pick<PathWorld, 'model' | 'book'>;
  #joined: Map<string, Joined> | undefined = new Map();

  constructor(world: Pick<PathWorld, 'model' | 'book'>) {
    this.#world = world;
  }

  /** A flow there was let live, by these rules. */
  add(network: string, address: Address, rules: Rules): void {
    this.#joined?.set(`${network} ${address}`, { network, address, rules });
    if ((this.#joined?.size ?? 0) > MOST_ADDRESSES) this.#joined = undefined;
  }

  /** Those at which other rules apply now; undefined: it may be any. */
  changed(): ReadonlySet<Address> | undefined {
    if (this.#joined === undefined) return undefined;
    const changed = new Set<Address>();
    const { model, book } = this.#world;
    for (const { network, address, rules } of this.#joined.values())
      if (plaintextRules(model, book, network, address) !== rules) changed.add(address);
    return changed;
  }

  /** Flows there are about to be judged again. */
  forget(addresses: ReadonlySet<Address>): void {
    for (const [key, { address }] of this.#joined ?? []) if (addresses.has(address)) this.#joined?.delete(key);
  }

  /** All flows are. */
  clear(): void {
    this.#joined = new Map();
  }
}
