/** One agent's connection to its node's socket, seen from the control process. */

import type { Socket } from 'node:net';
import type { SignedCertificate, SigningRequest } from '../identity/index.ts';
import { codeOf, messageOf } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { LineReader } from './lines.ts';
import {
  encodeRefused,
  encodeSigned,
  type FromAgent,
  HEARTBEAT,
  MAX_AGENT_LINE_BYTES,
  parseFromAgent,
  type SignFailure,
} from './wire.ts';

export interface FollowerDeps {
  readonly log: Log;
  /** Everything that one who begins to follow must be told: roots and the whole mesh. */
  beginning(): readonly Buffer[];
  sign(request: SigningRequest): Promise<SignedCertificate>;
  now(): number;
}

export interface FollowerOptions {
  /** Whose socket it is. */
  readonly node: string;
  /** What may wait to be read by the agent, beside a complete update. */
  readonly maxBufferedBytes: number;
  /** Longest time in which the agent reads nothing of what waits for it. */
  readonly stallMs: number;
  /** `sign` requests carried out at a time. */
  readonly maxSigning: number;
}

type FollowerState =
  /** Has not asked to follow yet. */
  | { readonly kind: 'connected' }
  | { readonly kind: 'following' }
  /** Is heard no more, but reads what is on its way. */
  | { readonly kind: 'ending' }
  | { readonly kind: 'gone' };

export class Follower {
  readonly #deps: FollowerDeps;
  readonly #options: FollowerOptions;
  readonly #socket: Socket;
  #state: FollowerState = { kind: 'connected' };
  #signing = 0;
  /**
   * What is still to be written. A socket that was given all of it would write it in one go, and say nothing before the last
   * of it is read; so it is given no more than it asks for, and each time that it asks, the agent has read.
   */
  #queue: Buffer[] = [];
  #queuedBytes = 0;
  /** Of a complete update that has not been read to its end. */
  #allowance = 0;
  /** Since when the agent has read nothing of what waits for it. */
  #fullSince: number | undefined;

  constructor(socket: Socket, deps: FollowerDeps, options: FollowerOptions) {
    this.#socket = socket;
    this.#deps = deps;
    this.#options = options;
    const reader = new LineReader(MAX_AGENT_LINE_BYTES, (line) => this.#take(line));
    socket.on('error', () => undefined);
    socket.once('close', () => this.#leave());
    socket.on('drain', () => {
      this.#fullSince = undefined;
      this.#write();
    });
    socket.on('data', (chunk: Buffer) => {
      if (!this.#isHeard()) return;
      try {
        reader.take(chunk);
      } catch (error) {
        this.#cutOff({ error }, 'an agent said something that is not understood');
      }
    });
    socket.once('end', () => this.end());
  }

  /** Passes on what has changed, if it follows. */
  tell(lines: readonly Buffer[]): void {
    if (this.#state.kind === 'following') this.#send(lines);
  }

  /** Says that the control process lives, and looks whether the agent does. */
  beat(): void {
    if (this.#fullSince !== undefined && this.#deps.now() - this.#fullSince >= this.#options.stallMs)
      this.#cutOff({}, 'an agent does not read; it must connect again');
    else if (this.#state.kind === 'following') this.#send([HEARTBEAT]);
  }

  /** Closes when what is on its way has been read, or when the agent takes too long for it. */
  end(): void {
    if (!this.#isHeard()) return;
    this.#setState({ kind: 'ending' });
    this.#write();
    const patience = setTimeout(() => this.#socket.destroy(), this.#options.stallMs);
    patience.unref();
    this.#socket.once('close', () => clearTimeout(patience));
  }

  close(): void {
    this.#leave();
    this.#socket.destroy();
  }

  #leave(): void {
    this.#setState({ kind: 'gone' });
    this.#queue = [];
    this.#queuedBytes = 0;
  }

  #isHeard(): boolean {
    return this.#state.kind === 'connected' || this.#state.kind === 'following';
  }

  #take(line: Buffer): void {
    if (!this.#isHeard()) return;
    const message: FromAgent = parseFromAgent(line);
    switch (message.kind) {
      case 'follow':
        this.#follow(message.node);
        break;
      case 'sign':
        void this.#sign(message.id, message.request);
        break;
      case 'bad-sign':
        this.#send([encodeRefused(message.id, 'BAD_CSR', message.reason)]);
        break;
    }
  }

  #follow(node: string): void {
    if (this.#state.kind !== 'connected') return;
    if (node !== this.#options.node) {
      this.#cutOff({ asked: node }, "an agent of another node connected to this node's socket; check its --control");
      return;
    }
    this.#setState({ kind: 'following' });
    const beginning = this.#deps.beginning();
    this.#allowance = beginning.reduce((sum, { length }) => sum + length, 0);
    this.#send(beginning);
  }

  async #sign(id: number, request: SigningRequest): Promise<void> {
    if (this.#signing >= this.#options.maxSigning) {
      this.#send([encodeRefused(id, 'UNAVAILABLE', `${this.#signing} requests of this agent are being carried out`)]);
      return;
    }
    this.#signing += 1;
    let answer: Buffer;
    try {
      answer = encodeSigned(id, await this.#deps.sign(request));
    } catch (error) {
      answer = encodeRefused(id, this.#failureOf(error, request), messageOf(error));
    } finally {
      this.#signing -= 1;
    }
    this.#send([answer]);
  }

  #failureOf(error: unknown, { identity }: SigningRequest): SignFailure {
    const code = codeOf(error);
    // Of these the CA tells itself.
    if (code === 'REFUSED' || code === 'BAD_CSR') return code;
    this.#deps.log.error({ error, node: this.#options.node, identity }, 'the CA cannot sign');
    return 'UNAVAILABLE';
  }

  #send(lines: readonly Buffer[]): void {
    if (!this.#isHeard()) return;
    for (const line of lines) {
      this.#queue.push(line);
      this.#queuedBytes += line.length;
    }
    this.#write();
    if (this.#queuedBytes > this.#allowance + this.#options.maxBufferedBytes)
      this.#cutOff({}, 'an agent reads too slowly; it must connect again');
  }

  #write(): void {
    const socket = this.#socket;
    if (socket.destroyed || !socket.writable) return;
    let written = 0;
    for (; written < this.#queue.length && !socket.writableNeedDrain; written += 1) {
      const line = this.#queue[written];
      if (line === undefined) break;
      this.#queuedBytes -= line.length;
      socket.write(line);
    }
    if (written > 0) this.#queue.splice(0, written);
    if (this.#queue.length === 0) {
      this.#allowance = 0;
      if (this.#state.kind === 'ending') socket.end();
    }
    if (socket.writableNeedDrain) this.#fullSince ??= this.#deps.now();
  }

  #cutOff(fields: object, why: string): void {
    if (!this.#isHeard()) return;
    this.#deps.log.warn({ ...fields, node: this.#options.node }, why);
    this.close();
  }

  #setState(state: FollowerState): void {
    this.#state = state;
  }
}
