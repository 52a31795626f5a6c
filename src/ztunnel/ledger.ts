import { END_REASONS, type EndReason } from './errors.ts';

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
  /** Those that never became a session, because one end did not prove to be who it should. */
  'handshakesFailed',
  /** Event loop delay of the last second, milliseconds. */
  'delayP50Ms',
  'delayP99Ms',
  'delayMaxMs',
] as const;
type Field = (typeof FIELDS)[number];

/** How a connection travels. */
export type Path = 'outboundTunnel' | 'outboundPlain' | 'outboundPassthrough' | 'inboundTunnel' | 'inboundPlain';

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
] as const satisfies readonly Field[];
export type Total = (typeof TOTALS)[number];

/** Pods that a ledger has a line for: layout.h's LIMIT_PODS. */
export const LEDGER_PODS = 1024;

const ENDED_AT = FIELDS.length;
const PODS_AT = ENDED_AT + END_REASONS.length;
const CELLS = PODS_AT + LEDGER_PODS;

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
    return this.#read(FIELDS.indexOf(field));
  }

  set(field: Field, value: number): void {
    this.#cells[FIELDS.indexOf(field)] = value;
  }

  add(field: Field, value: number): void {
    this.set(field, this.get(field) + value);
  }

  ended(reason: EndReason): number {
    return this.#read(ENDED_AT + END_REASONS.indexOf(reason));
  }

  addEnded(reason: EndReason, count = 1): void {
    const at = ENDED_AT + END_REASONS.indexOf(reason);
    this.#cells[at] = this.#read(at) + count;
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
    for (let at = ENDED_AT; at < PODS_AT; at += 1) ended += this.#read(at);
    return this.get('opened') - ended;
  }

  #read(at: number): number {
    return this.#cells[at] ?? 0;
  }
}
