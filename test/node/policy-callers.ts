/** Apps that connect whenever they are told to, and what may become of it. */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { AgentOptions, LabPod, LabProcess } from '../lab/index.ts';
import { type Conversation, conversationOf } from './conversation.ts';
import { hangMs, Policies, type PolicyBed, type PolicyPods, policyBed, reached } from './policy-bed.ts';
import { APP_PORT } from './tunnel-bed.ts';

/** What became of one connection; `bytes` that had come before an error. */
export interface Call extends Conversation {
  readonly bytes: number;
}

/** An app of a pod that connects whenever it is told to. See caller.py. */
export class Caller {
  readonly pod: LabPod;
  readonly #app: LabProcess;
  #calls = 0;

  private constructor(pod: LabPod, app: LabProcess) {
    this.pod = pod;
    this.#app = app;
  }

  static async start(pod: LabPod): Promise<Caller> {
    const app = pod.run(['/usr/bin/python3', join(import.meta.dirname, 'caller.py')]);
    await app.json({ event: 'started' }, hangMs);
    return new Caller(pod, app);
  }

  /** Connects and waits for an answer. */
  async call(to: string, port: number): Promise<Call> {
    return await this.#first({ to, port });
  }

  /** Connects, and stays connected. */
  async open(to: string, port: number): Promise<OpenCall> {
    const first = this.#first({ to, port, hold: true });
    const id = this.#calls;
    return new OpenCall(this.pod, this.#app, id, await first);
  }

  async #first(wanted: Readonly<Record<string, unknown>>): Promise<Call> {
    this.#calls += 1;
    const id = this.#calls;
    this.#app.write(`${JSON.stringify({ id, ...wanted })}\n`);
    const { bytes = 0, ...told } = await this.#app.told({ id }, { deadlineMs: hangMs * 2 });
    return { ...conversationOf(told as Record<string, string>), bytes: Number(bytes) };
  }
}

/** A connection that its app keeps open. */
export class OpenCall {
  readonly pod: LabPod;
  /** Its first word. */
  readonly call: Call;
  readonly #app: LabProcess;
  readonly #id: number;
  #talks = 0;

  constructor(pod: LabPod, app: LabProcess, id: number, call: Call) {
    this.pod = pod;
    this.call = call;
    this.#app = app;
    this.#id = id;
    if (call.error !== undefined) throw new Error(`${pod.name} cannot connect: ${JSON.stringify(call)}`);
  }

  /** Sends a line, and waits for the answer to it. */
  async talk(): Promise<void> {
    this.#talks += 1;
    this.#tell({ talk: this.#talks });
    await this.#app.told({ id: this.#id, event: 'talk', talk: this.#talks }, { deadlineMs: hangMs });
  }

  /** How it ended: waits until it has. */
  async over(): Promise<string> {
    const { how } = await this.#app.told({ id: this.#id, event: 'over' }, { deadlineMs: hangMs });
    return `${how}`;
  }

  /** Whether it has ended. */
  get isOver(): boolean {
    return this.#app.records.some(({ id, event }) => id === this.#id && event === 'over');
  }

  close(): void {
    this.#tell({ close: true });
  }

  #tell(order: Readonly<Record<string, unknown>>): void {
    this.#app.write(`${JSON.stringify({ id: this.#id, ...order })}\n`);
  }
}

/** One for each pod. */
export type Callers = Readonly<Record<keyof PolicyPods, Caller>>;

async function callersOf({ pods }: PolicyBed): Promise<Callers> {
  const started = Object.entries(pods).map(async ([name, pod]) => [name, await Caller.start(pod)] as const);
  return Object.fromEntries(await Promise.all(started)) as Record<keyof PolicyPods, Caller>;
}

/** Asserts that nothing came back, and that it did not look like an end in good order. */
export function assertRefused(t: ExecutionContext, { error, at, bytes }: Call, who: string): void {
  // ENOTCONN, EPIPE: the reset was there before the app asked for the peer's name, or sent.
  t.true(['ECONNRESET', 'ECONNREFUSED', 'ENOTCONN', 'EPIPE'].includes(error ?? 'none'), `${who}: ${error} at ${at}`);
  t.is(bytes, 0, who);
}

/** Asserts that it was answered by the server, which saw who it is. */
export function assertLetIn(t: ExecutionContext, talk: Call, who: string): void {
  t.is(talk.error, undefined, `${who}: ${JSON.stringify(talk)}`);
  t.is(talk.server?.peer, talk.local, who);
}

/** All but the server. */
export type PartyName = Exclude<keyof PolicyPods, 'server'>;
export const everybody = [
  'client',
  'teller',
  'outsider',
  'neighbour',
  'stranger',
] as const satisfies readonly PartyName[];

/** Everything that a scenario of policy needs. */
export interface PolicyScene {
  readonly bed: PolicyBed;
  readonly callers: Callers;
  readonly policies: Policies;
}

export async function policyScene(title: string, agents: AgentOptions = {}): Promise<PolicyScene> {
  const bed = await policyBed(title, agents);
  return { bed, callers: await callersOf(bed), policies: new Policies(bed) };
}

/** One open connection of each to the server, in both families by turns. */
export async function opened(
  { bed, callers }: PolicyScene,
  names: readonly PartyName[],
): Promise<Array<readonly [PartyName, OpenCall]>> {
  const { ipv4, ipv6 } = bed.pods.server;
  return await Promise.all(
    names.map(async (name, at) => [name, await callers[name].open(at % 2 ? ipv6 : ipv4, APP_PORT)] as const),
  );
}

/** Asserts who of these is let in to the server now. */
export async function assertNew(
  t: ExecutionContext,
  { bed, callers }: PolicyScene,
  all: readonly PartyName[],
  refused: readonly PartyName[],
): Promise<void> {
  const before = await reached(bed);
  for (const [at, name] of all.entries()) {
    const { ipv4, ipv6 } = bed.pods.server;
    const call = await callers[name].call(at % 2 ? ipv4 : ipv6, APP_PORT);
    if (refused.includes(name)) assertRefused(t, call, name);
    else assertLetIn(t, call, name);
  }
  t.is((await reached(bed)) - before, all.length - refused.length, 'who is refused does not reach the app');
}
