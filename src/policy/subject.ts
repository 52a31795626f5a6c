import { type Address, encodeAddress, familyOf, parseSpiffeId, type SpiffeId } from '../mesh/index.ts';
import type { Attempt } from './attempt.ts';

/** What of an identity policies compare. */
export interface Source {
  /** Without `spiffe://`; undefined: nobody, or an id of another form than ours, which proves nothing here. */
  readonly principal: string | undefined;
  /** Empty: nobody. */
  readonly namespace: string;
  /** `namespace/account`. */
  readonly account: string | undefined;
}

export const NOBODY: Source = { principal: undefined, namespace: '', account: undefined };

const SCHEME = 'spiffe://';
/** A peer may come with as many identities as its CA gives it. */
const MAX_SOURCES = 1024;
const sources = new Map<SpiffeId, Source>();

/** Reading an id costs more than the rest of most decisions, so those that came lately are kept. */
function sourceOf(id: SpiffeId): Source {
  const known = sources.get(id);
  if (known !== undefined) return known;
  const source = readSource(id);
  for (const oldest of sources.keys()) {
    if (sources.size < MAX_SOURCES) break;
    sources.delete(oldest);
  }
  sources.set(id, source);
  return source;
}

function readSource(id: SpiffeId): Source {
  const identity = parseSpiffeId(id);
  if (identity === undefined) return NOBODY;
  const { namespace, serviceAccount } = identity;
  return { principal: id.slice(SCHEME.length), namespace, account: `${namespace}/${serviceAccount}` };
}

/** An address as numbers of 32 bits: one of IPv4, four of IPv6. */
export type Words = readonly number[];

export function wordsOf(address: Address): Words {
  if (familyOf(address) === 4) return [wordOf4(address)];
  const bytes = encodeAddress(address);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return [0, 4, 8, 12].map((at) => view.getInt32(at));
}

const DOT = 0x2e;
const ZERO = 0x30;

function wordOf4(address: Address): number {
  let word = 0;
  let byte = 0;
  for (let index = 0; index < address.length; index += 1) {
    const code = address.charCodeAt(index);
    if (code === DOT) {
      word = (word << 8) | byte;
      byte = 0;
    } else byte = byte * 10 + code - ZERO;
  }
  return (word << 8) | byte;
}

/** An attempt as rules look at it. Addresses are read only if a rule asks for one. */
export class Subject {
  readonly attempt: Attempt;
  readonly source: Source;
  readonly port: number;
  readonly throughWaypoint: boolean;
  #sourceWords: Words | undefined;
  #destinationWords: Words | undefined;

  constructor(attempt: Attempt) {
    this.attempt = attempt;
    this.source = attempt.source === undefined ? NOBODY : sourceOf(attempt.source);
    this.port = attempt.destination.port;
    // Nobody is no waypoint.
    this.throughWaypoint = this.source.principal !== undefined && attempt.throughWaypoint;
  }

  get sourceWords(): Words {
    this.#sourceWords ??= wordsOf(this.attempt.sourceAddress);
    return this.#sourceWords;
  }

  get destinationWords(): Words {
    this.#destinationWords ??= wordsOf(this.attempt.destination.address);
    return this.#destinationWords;
  }
}
