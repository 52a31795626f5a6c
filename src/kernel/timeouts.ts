import { readFileSync } from 'node:fs';
import type net from 'node:net';
import type { BpfObject } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import {
  decodeInquiry,
  decodeInquiryHeader,
  encodeInquiry,
  encodeInquiryHeader,
  INQUIRY_BYTES,
  INQUIRY_HEADER_BYTES,
  limit,
  type Timeouts as RawTimeouts,
} from '../gen/layout.ts';
import { type Address, encodeAddress } from '../mesh/index.ts';
import { readU64 } from './bytes.ts';
import { SO_NETNS_COOKIE, SOL_SOCKET } from './constants.ts';
import { descriptorOf } from './descriptor.ts';
import { errnoOf, KernelError } from './errors.ts';
import { inquiryObject } from './paths.ts';
import { type Timeouts, timeoutOptions } from './socket-options.ts';

const program = 'on_inquiry';
/** Of a socket on which nothing is set. */
export const noTimeouts: RawTimeouts = {
  userMs: 0,
  idleJiffies: 0,
  intervalJiffies: 0,
  probes: 0,
  keepalive: 0,
};

/** Reads what apps have set on their sockets: a kernel program that the agent runs itself, in the apps' namespace. */
export class Inquiry {
  readonly #object: BpfObject;
  readonly #jiffiesPerSecond: number;

  /** @throws KernelError NO_PROGRAMS, KERNEL_REFUSED */
  constructor() {
    try {
      this.#object = addon.objectOpen(inquiryObject);
    } catch (cause) {
      throw new KernelError('NO_PROGRAMS', `${inquiryObject} is missing: build it with ./dev setup`, cause);
    }
    try {
      addon.objectLoad(this.#object);
      this.#jiffiesPerSecond = this.#measureJiffies();
    } catch (cause) {
      addon.close(this.#object);
      if (cause instanceof KernelError) throw cause;
      throw new KernelError(
        'KERNEL_REFUSED',
        "the kernel refused the program that reads apps' time-outs: run culvert preflight for the reason",
        cause,
      );
    }
  }

  /** @returns undefined when the app has set nothing */
  decode(raw: RawTimeouts): Timeouts | undefined {
    if (raw.userMs === 0 && raw.keepalive === 0) return undefined;
    const seconds = (jiffies: number): number => Math.ceil(jiffies / this.#jiffiesPerSecond);
    const keepAlive = raw.keepalive !== 0;
    return {
      userMs: raw.userMs,
      keepAlive,
      idleSeconds: keepAlive ? seconds(raw.idleJiffies) : 0,
      intervalSeconds: keepAlive ? seconds(raw.intervalJiffies) : 0,
      probes: keepAlive ? raw.probes : 0,
    };
  }

  /**
   * @param socket any socket in the namespace of the questions
   * @param questions encoded inquiries, at most limit.INQUIRIES
   * @returns for each: what is set, or `gone` when there is no such socket any more
   */
  ask(socket: net.Socket, questions: readonly Uint8Array[]): Array<Timeouts | undefined | 'gone'> {
    const answer = addon.programRun(this.#object, program, packetOf(questions), descriptorOf(socket));
    return questions.map((_, index) => {
      const at = INQUIRY_HEADER_BYTES + index * INQUIRY_BYTES;
      const { found, timeouts } = decodeInquiry(answer.subarray(at, at + INQUIRY_BYTES));
      return found === 1 ? this.decode(timeouts) : 'gone';
    });
  }

  close(): void {
    addon.close(this.#object);
  }

  /** The kernel does not tell its HZ; but one value it tells in both units. */
  #measureJiffies(): number {
    const seconds = Number(readFileSync('/proc/sys/net/ipv4/tcp_keepalive_time', 'utf8'));
    const { defaultIdleJiffies } = decodeInquiryHeader(addon.programRun(this.#object, program, packetOf([])));
    const hertz = defaultIdleJiffies / seconds;
    if (Number.isInteger(hertz) && hertz > 0) return hertz;
    throw new KernelError(
      'KERNEL_REFUSED',
      `net.ipv4.tcp_keepalive_time is ${seconds} s and ${defaultIdleJiffies} jiffies, which tells nothing: set it to another value`,
    );
  }
}

function packetOf(questions: readonly Uint8Array[]): Uint8Array {
  const packet = new Uint8Array(INQUIRY_HEADER_BYTES + questions.length * INQUIRY_BYTES);
  packet.set(encodeInquiryHeader({ ethernet: new Uint8Array(16), count: questions.length, defaultIdleJiffies: 0 }));
  for (const [index, question] of questions.entries())
    packet.set(question, INQUIRY_HEADER_BYTES + index * INQUIRY_BYTES);
  return packet;
}

/** The question after the app's end of a socket's connection; undefined when the socket is not connected any more. */
function questionOf(socket: net.Socket): Uint8Array | undefined {
  const { localAddress, localPort, remoteAddress, remotePort } = socket;
  if (localAddress === undefined || remoteAddress === undefined) return undefined;
  return encodeInquiry({
    local: { address: { bytes: encodeAddress(remoteAddress as Address) }, port: remotePort ?? 0 },
    remote: { address: { bytes: encodeAddress(localAddress as Address) }, port: localPort ?? 0 },
    timeouts: noTimeouts,
    found: 0,
  });
}

/** Apps that set anything mostly do so right after connect or accept. So many calls of `poll` look at a connection each time. */
const YOUNG_POLLS = 20;
/** Afterwards, one call of so many does. */
const OLD_POLLS = 20;

interface Followed {
  readonly app: net.Socket;
  readonly far: net.Socket;
  question: Uint8Array | undefined;
  timeouts: Timeouts | undefined;
  polls: number;
}

/**
 * Sets on one leg of each connection what the app at the end of the other leg has set on its socket: keepalive and user
 * time-out. The kernel tells nobody of such a change, so `poll` asks.
 */
export class FollowedTimeouts {
  readonly #inquiry: Inquiry;
  readonly #pods = new Map<bigint, Set<Followed>>();

  constructor(inquiry: Inquiry) {
    this.#inquiry = inquiry;
  }

  /**
   * Follows the app until one of the sockets is closed.
   *
   * @param app the agent's socket that leads to the app
   * @param far the agent's other socket, connected or not yet
   * @param timeouts what `far` has been given already
   */
  follow(app: net.Socket, far: net.Socket, timeouts: Timeouts | undefined): void {
    if (app.destroyed || far.destroyed) return;
    const netns = readU64(addon.socketOption(descriptorOf(app), SOL_SOCKET, SO_NETNS_COOKIE, 8));
    const pod = this.#pods.get(netns) ?? new Set();
    this.#pods.set(netns, pod.add({ app, far, question: undefined, timeouts, polls: 0 }));
  }

  /** Asks after all that are due, and passes on what has changed. To be called about four times a second. */
  poll(): void {
    for (const [netns, pod] of this.#pods) {
      const due = this.#due(pod);
      if (pod.size === 0) this.#pods.delete(netns);
      for (let at = 0; at < due.length; at += limit.INQUIRIES) this.#ask(due.slice(at, at + limit.INQUIRIES));
    }
  }

  #due(pod: Set<Followed>): Followed[] {
    const due: Followed[] = [];
    for (const followed of pod) {
      if (followed.app.destroyed || followed.far.destroyed) {
        pod.delete(followed);
        continue;
      }
      followed.polls += 1;
      if (followed.polls > YOUNG_POLLS && followed.polls % OLD_POLLS !== 0) continue;
      followed.question ??= questionOf(followed.app);
      if (followed.question !== undefined) due.push(followed);
    }
    return due;
  }

  #ask(due: readonly Followed[]): void {
    const [first] = due;
    if (first === undefined) return;
    try {
      const answers = this.#inquiry.ask(
        first.app,
        due.map(({ question }) => question ?? new Uint8Array(INQUIRY_BYTES)),
      );
      for (const [index, answer] of answers.entries()) {
        const followed = due[index];
        if (followed !== undefined && answer !== 'gone') passOn(followed, answer);
      }
    } catch (error) {
      // No descriptor or memory left, or a connection that has just ended: the next call asks again.
      if (errnoOf(error) === undefined) throw error;
    }
  }
}

function passOn(followed: Followed, timeouts: Timeouts | undefined): void {
  if (isSame(followed.timeouts, timeouts)) return;
  // First: what fails once is not tried again at every call.
  followed.timeouts = timeouts;
  const fd = descriptorOf(followed.far);
  for (const { level, option, value } of timeoutOptions(timeouts)) addon.socketOption(fd, level, option, value);
}

function isSame(a: Timeouts | undefined, b: Timeouts | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.userMs === b.userMs &&
    a.keepAlive === b.keepAlive &&
    a.idleSeconds === b.idleSeconds &&
    a.intervalSeconds === b.intervalSeconds &&
    a.probes === b.probes
  );
}
