import { connect, type Socket } from 'node:net';
import { type Clock, IdentityError, type SignedCertificate, type SigningRequest } from '../identity/index.ts';
import { type MeshUpdate, messageOf } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { LineReader } from './lines.ts';
import { encodeFollow, encodeSign, type FromControl, MAX_CONTROL_LINE_BYTES, parseFromControl } from './wire.ts';

export interface LinkDeps {
  readonly log: Log;
  readonly clock: Clock;
}

export interface LinkOptions {
  /** The node's socket, `<run>/<node>.sock`. */
  readonly path: string;
  /** The node that this agent is on. */
  readonly node: string;
  /** Longest wait for a certificate. Default: 10,000 ms. */
  readonly signDeadlineMs?: number;
  /** How long the control process may say nothing; it says something every 5 s. Default: 15,000 ms. */
  readonly silenceMs?: number;
  /** Longest update that is held until it is whole. Default: 128 MiB. */
  readonly maxUpdateBytes?: number;
}

interface Pending {
  readonly resolve: (signed: SignedCertificate) => void;
  readonly reject: (error: Error) => void;
  readonly deadline: { cancel(): void };
}

export interface LinkEvents {
  heard(message: FromControl): void;
  /** A line has been understood; one of several of an update too. Called before `heard`. */
  counted(message: FromControl, bytes: number): void;
  /** Called once, if not closed before. `clean`: the control process closed it. */
  ended(reason: string, clean: boolean): void;
}

const CLOSED = 'the control process closed the connection';

/** One connection, from the attempt to its end. */
export class Link {
  readonly #deps: LinkDeps;
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #heardAt: number;
  #silence: { cancel(): void };
  /** Lines of an update whose last has not come. */
  #parts: MeshUpdate[] = [];
  #partBytes = 0;
  #over = false;

  constructor(deps: LinkDeps, options: LinkOptions, events: LinkEvents) {
    this.#deps = deps;
    this.#options = options;
    this.#events = events;
    this.#heardAt = deps.clock.now();
    this.#silence = this.#listenFor(this.#silenceMs);
    const reader = new LineReader(MAX_CONTROL_LINE_BYTES, (line) => this.#take(line));
    let failure = CLOSED;
    this.#socket = connect(options.path);
    this.#socket.on('error', (error) => {
      failure = messageOf(error);
    });
    this.#socket.once('close', () => this.#end(failure));
    this.#socket.on('data', (chunk: Buffer) => {
      if (this.#over) return;
      this.#heardAt = this.#deps.clock.now();
      try {
        reader.take(chunk);
      } catch (error) {
        this.#deps.log.error({ error }, 'what the control process says cannot be used');
        this.#end(messageOf(error));
      }
    });
    this.#socket.write(encodeFollow(options.node));
  }

  sign(request: SigningRequest): Promise<SignedCertificate> {
    const { promise, resolve, reject } = Promise.withResolvers<SignedCertificate>();
    const id = this.#nextId++;
    const { signDeadlineMs = 10_000 } = this.#options;
    const deadline = this.#deps.clock.after(signDeadlineMs, () => {
      this.#pending.delete(id);
      reject(unreachable(`the control process gave no certificate within ${signDeadlineMs} ms`));
    });
    this.#pending.set(id, { resolve, reject, deadline });
    this.#socket.write(encodeSign(id, request));
    return promise;
  }

  /** Ends it without a word to `ended`. */
  close(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#silence.cancel();
    this.#parts = [];
    this.#socket.destroy();
    for (const { reject, deadline } of this.#pending.values()) {
      deadline.cancel();
      reject(unreachable(`the connection to the control process ended: ${reason}`));
    }
    this.#pending.clear();
  }

  #end(reason: string): void {
    if (this.#over) return;
    this.close(reason);
    this.#events.ended(reason, reason === CLOSED);
  }

  get #silenceMs(): number {
    return this.#options.silenceMs ?? 15_000;
  }

  #listenFor(ms: number): { cancel(): void } {
    return this.#deps.clock.after(ms, () => {
      const left = this.#heardAt + this.#silenceMs - this.#deps.clock.now();
      if (left > 0) this.#silence = this.#listenFor(left);
      else this.#end(`the control process said nothing for ${this.#silenceMs} ms`);
    });
  }

  #take(line: Buffer): void {
    if (this.#over) return;
    const message = parseFromControl(line);
    this.#events.counted(message, line.length);
    if (message.kind === 'update') this.#takePart(message.update, message.more, line.length);
    else {
      if (message.kind === 'signed' || message.kind === 'refused') this.#settle(message);
      this.#events.heard(message);
    }
  }

  #takePart(update: MeshUpdate, more: boolean, bytes: number): void {
    const { maxUpdateBytes = 128 * 1024 * 1024 } = this.#options;
    this.#parts.push(update);
    this.#partBytes += bytes;
    if (this.#partBytes > maxUpdateBytes) throw new RangeError(`an update is longer than ${maxUpdateBytes} bytes`);
    if (more) return;
    const whole = joined(this.#parts);
    this.#parts = [];
    this.#partBytes = 0;
    this.#events.heard({ kind: 'update', update: whole, more: false });
  }

  #settle(message: FromControl & { kind: 'signed' | 'refused' }): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return; // Its deadline was earlier.
    this.#pending.delete(message.id);
    pending.deadline.cancel();
    if (message.kind === 'signed') pending.resolve({ chain: message.chain, roots: message.roots });
    else if (message.code === 'UNAVAILABLE') pending.reject(unreachable(message.message));
    else pending.reject(new IdentityError(message.code, message.message));
  }
}

/** The parts of one update as one. */
function joined(parts: readonly MeshUpdate[]): MeshUpdate {
  const [first] = parts;
  if (first !== undefined && parts.length === 1) return first;
  return {
    complete: parts.some(({ complete }) => complete),
    workloads: parts.flatMap(({ workloads }) => workloads),
    services: parts.flatMap(({ services }) => services),
    removed: parts.flatMap(({ removed }) => removed),
    policies: parts.flatMap(({ policies }) => policies),
    removedPolicies: parts.flatMap(({ removedPolicies }) => removedPolicies),
    settings: parts.findLast(({ settings }) => settings !== undefined)?.settings,
  };
}

export function unreachable(message: string): IdentityError {
  return new IdentityError('CA_UNREACHABLE', message);
}
