import type { Socket } from 'node:net';
import type { HeaderFields, IncomingRequest } from '../hbone/index.ts';
import type { EndReason } from './errors.ts';
import type { Leg } from './relay.ts';
import { probeSocket, resetSocket, SocketLeg } from './socket-leg.ts';

/** Whoever asked for a connection, while there is no other leg yet. */
export interface Client {
  /** Descriptors that it holds by itself. */
  readonly descriptors: number;
  /** Its bytes come as the tunnel brings them: many small chunks at a time. */
  readonly isStream: boolean;
  /** Says who is told when it goes away before there is an answer. */
  onGone(gone: (error: Error) => void): void;
  /** The connection cannot be. */
  refuse(reason: EndReason): void;
  /** There is another leg: it may be relayed. */
  accept(gathers: boolean): Leg;
  /** Finds out whether it is gone, where nothing else would tell. */
  probe(): void;
}

/**
 * An accepted socket. It is paused until the server answers: what it sends early waits in the kernel. It learns of a
 * connection that cannot be by a reset.
 */
export class SocketClient implements Client {
  readonly descriptors = 1;
  readonly isStream = false;
  readonly socket: Socket;
  readonly #beforeEnd: (socket: Socket) => void;
  #gone: (error: Error) => void = () => {};

  constructor(socket: Socket, beforeEnd: (socket: Socket) => void) {
    this.socket = socket;
    this.#beforeEnd = beforeEnd;
  }

  onGone(gone: (error: Error) => void): void {
    this.#gone = gone;
    this.socket.on('error', gone);
  }

  refuse(): void {
    resetSocket(this.socket);
  }

  accept(gathers: boolean): Leg {
    const leg = new SocketLeg(this.socket, this.#beforeEnd, { gathers });
    this.socket.off('error', this.#gone);
    return leg;
  }

  probe(): void {
    probeSocket(this.socket);
  }
}

/** A request that came through the tunnel. It learns of a connection that cannot be by a status. */
export class RequestClient implements Client {
  readonly descriptors = 0;
  readonly isStream = true;
  readonly #request: IncomingRequest;
  #isAnswered = false;
  #answer: HeaderFields = [];

  constructor(request: IncomingRequest) {
    this.#request = request;
  }

  onGone(gone: (error: Error) => void): void {
    this.#request.onCancel((error) => {
      this.#isAnswered = true;
      gone(error);
    });
  }

  /** The header fields of the 200. */
  answerWith(headers: HeaderFields): void {
    this.#answer = headers;
  }

  refuse(reason: EndReason): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    this.#request.refuse(statusOf(reason));
  }

  accept(): Leg {
    this.#isAnswered = true;
    return this.#request.accept(this.#answer);
  }

  /** Its session tells. */
  probe(): void {}
}

/** What a peer is answered (wire contract, section 2.4). */
export function statusOf(reason: EndReason): 400 | 401 | 503 {
  switch (reason) {
    case 'bad-request':
      return 400;
    case 'policy-denied':
    case 'policy-changed':
      return 401;
    default:
      return 503;
  }
}
