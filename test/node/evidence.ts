/** What proves that a connection was captured: the agent's own numbers, what the server saw, and what crossed the wire. */
import type { ExecutionContext } from 'ava';
import { apps, type LabAgent, type LabPod, type LabProcess, type Outcome } from '../lab/index.ts';

export const port = 8080;

/** What a client app prints. */
export interface Told {
  readonly peer?: string;
  readonly local?: string;
  readonly reply?: string;
  readonly error?: string;
  readonly at?: string;
}

export function told(outcome: Pick<Outcome, 'stdout' | 'stderr'>): Told {
  const line = outcome.stdout.trim().split('\n').at(-1) ?? '';
  if (!line.startsWith('{')) throw new Error(`not a client's output: ${outcome.stdout}${outcome.stderr}`);
  return JSON.parse(line) as Told;
}

export function portOf(endpoint: string | undefined): number {
  const number = Number(endpoint?.slice(endpoint.lastIndexOf(':') + 1));
  if (!Number.isInteger(number)) throw new Error(`no port in ${endpoint}`);
  return number;
}

interface PodStatus {
  readonly uid: string;
  readonly path: string;
  readonly netnsCookie: string;
  readonly openConnections: number;
  readonly kernelEvents: Readonly<Record<string, number>>;
}

export interface AgentStatus {
  readonly pods: readonly PodStatus[];
  readonly totals: { readonly accepted: number; readonly unattributed: number };
  readonly workers: ReadonlyArray<{ readonly state: string; readonly restarts: number }>;
}

export async function statusOf(agent: LabAgent): Promise<AgentStatus> {
  const { status } = await agent.status();
  return status as AgentStatus;
}

/** What the kernel did with a pod's connections, by reason. */
export async function kernelEvents(agent: LabAgent, pod: LabPod): Promise<Readonly<Record<string, number>>> {
  const { pods } = await statusOf(agent);
  const found = pods.find(({ uid }) => uid === pod.uid);
  if (found === undefined) throw new Error(`the agent does not know ${pod.name}`);
  return found.kernelEvents;
}

/** By how much each of a pod's kernel counts grows while `run` runs. Reasons that did not grow are left out. */
export async function grown(
  agent: LabAgent,
  pod: LabPod,
  run: () => Promise<void>,
): Promise<Readonly<Record<string, number>>> {
  const before = await kernelEvents(agent, pod);
  await run();
  const after = await kernelEvents(agent, pod);
  return Object.fromEntries(
    Object.entries(after)
      .map(([reason, count]): [string, number] => [reason, count - (before[reason] ?? 0)])
      .filter(([, count]) => count !== 0),
  );
}

/** Starts a server and waits until it listens. */
export async function serving(pod: LabPod, argv: readonly string[], restricted = true): Promise<LabProcess> {
  const server = pod.run(argv, { restricted });
  await server.json({ event: 'listening' });
  return server;
}

/** A client in an enrolled pod and a server in one that is not. */
export interface Road {
  readonly agent: LabAgent;
  readonly client: LabPod;
  readonly server: LabPod;
  /** Prints `accepted` with the peer of each connection. */
  readonly app: LabProcess;
}

/**
 * Asserts that what `connect` opens from the client's pod goes through the agent: the agent accepts it, and the server sees a
 * connection of the pod's address that is another than the client's own, whose port never shows on the pod's wire.
 */
export async function assertLed(t: ExecutionContext, road: Road, connect: () => Promise<Told>): Promise<Told> {
  const { agent, client, app } = road;
  const capture = await client.node.lab.capture(client);
  const before = await statusOf(agent);
  let outcome: Told = {};
  const events = await grown(agent, client, async () => {
    outcome = await connect();
  });
  t.is(outcome.error, undefined, JSON.stringify(outcome));
  const seen = await app.json({ event: 'accepted' });
  const packets = await capture.stop();
  const own = portOf(outcome.local);
  t.is(events.captured_outbound, 1);
  t.is((await statusOf(agent)).totals.accepted, before.totals.accepted + 1);
  t.true(
    client.addresses.some((address) => `${seen.peer}`.includes(address)),
    `${seen.peer}`,
  );
  t.not(portOf(`${seen.peer}`), own);
  t.is(packets.filter(({ sourcePort, protocol }) => protocol === 'tcp' && sourcePort === own).packets.length, 0);
  t.true(packets.contains('hello'));
  return outcome;
}

/** Asserts that the client gets no connection, that the server sees none, and that nothing it sent left the pod. */
export async function assertRefused(
  t: ExecutionContext,
  road: Road,
  connect: () => Promise<Told>,
): Promise<Readonly<Record<string, number>>> {
  const { agent, client, app } = road;
  const capture = await client.node.lab.capture(client);
  const accepted = app.lines.length;
  const events = await grown(agent, client, async () => {
    const outcome = await connect();
    t.truthy(outcome.error, JSON.stringify(outcome));
    t.is(outcome.reply, undefined);
  });
  const packets = await capture.stop();
  t.is(
    packets.payloadBytes(({ protocol }) => protocol === 'tcp'),
    0,
  );
  t.is(app.lines.length, accepted);
  return events;
}

export const { endpoint } = apps;
