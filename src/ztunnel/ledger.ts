import type { Decision, DecisionReason } from '../policy/index.ts';
import { END_REASONS, type EndReason } from './errors.ts';

/** What policy answers to new connections; the order is the ledger's. */
export const DECISION_REASONS = [
  'no-policy',
  'no-allow-policy',
  'allowed',
  'denied',
  'not-allowed',
  'unknown-policy',
  'workload-unknown',
] as const satisfies readonly DecisionReason[];

const FIELDS = [
  /** 1 while the worker accepts, 0 while it has stopped for want of descriptors. */
  'accepting',
  /** How often it stopped, at all or for one pod. */
  'descriptorStops',
  'descriptorsUsed',
  'opened',
  'bytesFromClients',
  'bytesFromServers',
  /** Connections that were relayed, by direction and path. */
  'outboundTunnel',
  'outboundPlain',
  'outboundPassthrough',
  'inboundTunnel',
  'inboundPlain',
  /** TCP connections of the tunnel's sessions, both directions. */
  'sessionsOpened',
  'sessionsOpen',
  /** Accepted sockets that are open: of 15001, and of 15006 and 15008. */
  'outboundSockets',
  'inboundSockets',
  /** Those that never became a session, because one end did not prove to be who it should. */
  'handshakesFailed',
  /** What dry-run policies would have done; a no of ALLOW policies is a denial. */
  'dryRunDenies',
  'dryRunAllows',
  /** Event loop delay of the last second, milliseconds. */
  'delayP50Ms',
  'delayP99Ms',
  'delayMaxMs',
  /** CPU time of the thread, and memory that its JavaScript uses; of the last second. */
  'cpuSeconds',
  'heapBytes',
] as const;
type Field = (typeof FIELDS)[number];

/** How a connection travels. */
export type Path = 'outboundTunnel' | 'outboundPlain' | 'outboundPassthrough' | 'inboundTunnel' | 'inboundPlain';

/** Which listeners an open socket was accepted by. */
export type SocketsOpen = 'outboundSockets' | 'inboundSockets';

/** Those that go on counting when a worker's successor begins. */
export const TOTALS = [
  'descriptorStops',
  'opened',
  'bytesFromClients',
  'bytesFromServers',
  'outboundTunnel',
  'outboundPlain',
  'outboundPassthrough',
  'inboundTunnel',
  'inboundPlain',
  'sessionsOpened',
  'handshakesFailed',
  'dryRunDenies',
  'dryRunAllows',
  'cpuSeconds',
] as const satisfies readonly Field[];
export type Total = (typeof TOTALS)[number];

/** Pods that a ledger has a line for: layout.h's LIMIT_PODS. */
export const LEDGER_PODS = 1024;

const ENDED_AT = FIELDS.length;
const DECIDED_AT = ENDED_AT + END_REASONS.length;
const PODS_AT = DECIDED_AT + DECISION_REASONS.length;
const CELLS = PODS_AT + LEDGER_PODS;

/** Places of cells by name: several are written for each connection. */
const FIELD_AT = placesOf(FIELDS, 0);
const REASON_AT = placesOf(END_REASONS, ENDED_AT);
const DECISION_AT = placesOf(DECISION_REASONS, DECIDED_AT);

function placesOf<Name extends string>(names: readonly Name[], from: number): Readonly<Record<Name, number>> {
  return Object.fromEntries(names.map((name, index) => [name, from + index])) as Record<Name, number>;
}

/**
 * A worker's numbers in memory that the main thread reads whenever it likes: no message, no waiting. One writer; each cell
 * is one aligned 64-bit number, so a reader may be a moment late but never sees half of one.
 */
export class Ledger {
  readonly memory: SharedArrayBuffer;
  readonly #cells: Float64Array;

  constructor(memory = new SharedArrayBuffer(CELLS * Float64Array.BYTES_PER_ELEMENT)) {
    this.memory = memory;
    this.#cells = new Float64Array(memory);
  }

  get(field: Field): number {
    return this.#read(FIELD_AT[field]);
  }

  set(field: Field, value: number): void {
    this.#cells[FIELD_AT[field]] = value;
  }

  add(field: Field, value: number): void {
    this.#add(FIELD_AT[field], value);
  }

  ended(reason: EndReason): number {
    return this.#read(REASON_AT[reason]);
  }

  addEnded(reason: EndReason, count = 1): void {
    this.#add(REASON_AT[reason], count);
  }

  decided(reason: DecisionReason): number {
    return this.#read(DECISION_AT[reason]);
  }

  addDecided(reason: DecisionReason, count = 1): void {
    this.#add(DECISION_AT[reason], count);
  }

  /** What policy has answered, and what dry-run policies would have. */
  addDecision({ reason, dryRun }: Pick<Decision, 'reason' | 'dryRun'>): void {
    this.addDecided(reason);
    for (const { would } of dryRun) this.add(would === 'allow' ? 'dryRunAllows' : 'dryRunDenies', 1);
  }

  /** Open connections of the pod on a line. */
  open(line: number): number {
    return this.#read(PODS_AT + line);
  }

  setOpen(line: number, count: number): void {
    this.#cells[PODS_AT + line] = count;
  }

  /** Open connections of all pods. */
  totalOpen(): number {
    let ended = 0;
    for (let at = ENDED_AT; at < DECIDED_AT; at += 1) ended += this.#read(at);
    return this.get('opened') - ended;
  }

  #add(at: number, value: number): void {
    this.#cells[at] = this.#read(at) + value;
  }

  #read(at: number): number {
    return this.#cells[at] ?? 0;
  }
}
