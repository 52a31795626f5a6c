/** One short connection of an app: what both its ends say of it, and what the agent has counted meanwhile. */
import {
  apps,
  furnish,
  Lab,
  type LabAgent,
  type LabNode,
  type LabOptions,
  type LabPod,
  type Outcome,
  type RunOptions,
} from '../lab/index.ts';

/** What a client app prints. Addresses are in their plain form (`plain`). */
export interface Conversation {
  /** getpeername and getsockname of the client. */
  readonly peer?: string;
  readonly local?: string;
  readonly reply?: string;
  /** What the server says of itself, where it tells or greets. */
  readonly server?: { readonly peer: string; readonly local: string };
  readonly error?: string;
  /** During which call the error came. */
  readonly at?: string;
}

/** `[::ffff:10.0.0.1]:80`, as dual-stack sockets write it, is `10.0.0.1:80`. */
export function plain(endpoint: string): string {
  return endpoint.replace(/^\[::ffff:([\d.]+)\]/, '$1');
}

/** The address of `10.0.0.1:80` or `[fd00::1]:80`. */
export function addressOf(endpoint: string | undefined): string {
  return plain(endpoint ?? '')
    .replace(/:\d+$/, '')
    .replaceAll(/[[\]]/g, '');
}

/** The port of an endpoint. */
export function portOf(endpoint: string | undefined): number {
  return Number(endpoint?.slice(endpoint.lastIndexOf(':') + 1));
}

/** Reads what `apps.connect` and `apps.pythonConnect` have printed. */
export function parseConversation(outcome: Outcome): Conversation {
  let printed: Record<string, string>;
  try {
    printed = JSON.parse(outcome.stdout) as Record<string, string>;
  } catch (cause) {
    throw new Error(`not a client's report: ${outcome.stdout}${outcome.stderr}`, { cause });
  }
  return conversationOf(printed);
}

/** Of what a client has printed. */
export function conversationOf({ peer, local, reply, error, at }: Readonly<Record<string, string>>): Conversation {
  return {
    ...(peer === undefined ? {} : { peer: plain(peer) }),
    ...(local === undefined ? {} : { local: plain(local) }),
    ...(reply === undefined ? {} : { reply }),
    ...(reply?.startsWith('{') ? { server: parseSeen(reply) } : {}),
    ...(error === undefined ? {} : { error }),
    ...(at === undefined ? {} : { at }),
  };
}

/** Reads `{peer, local}`, as servers say it. */
export function parseSeen(text: string): { peer: string; local: string } {
  const { peer = '', local = '' } = JSON.parse(text) as Record<string, string>;
  return { peer: plain(peer), local: plain(local) };
}

/** Runs one client app to its end. */
export async function converse(place: LabPod | LabNode, argv: string[], options?: RunOptions): Promise<Conversation> {
  return parseConversation(await place.exec(argv, options));
}

/** What the agent knows of connections: what the kernel led, and how many its workers accepted. */
export interface Counts {
  readonly accepted: number;
  readonly captured_outbound: number;
  readonly captured_inbound: number;
  readonly excluded_outbound: number;
  readonly excluded_inbound: number;
}

export const nothing: Counts = {
  accepted: 0,
  captured_outbound: 0,
  captured_inbound: 0,
  excluded_outbound: 0,
  excluded_inbound: 0,
};

/** Reads metrics: the sum of the series of a name, of those with a label where one is given; 0 when there are none. */
export async function readMetrics(agent: LabAgent): Promise<(name: string, label?: string) => number> {
  const { metrics } = await agent.request({ method: 'metrics' });
  const lines = `${metrics}`.split('\n');
  return (name, label = '') =>
    lines
      .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{${label}`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** One of them. */
export async function metric(agent: LabAgent, name: string, label?: string): Promise<number> {
  return (await readMetrics(agent))(name, label);
}

async function counts(agent: LabAgent): Promise<Counts> {
  const metric = await readMetrics(agent);
  const reason = (name: string): number => metric('culvert_kernel_events_total', `reason="${name}"`);
  return {
    accepted: metric('culvert_connections_opened_total'),
    captured_outbound: reason('captured_outbound'),
    captured_inbound: reason('captured_inbound'),
    excluded_outbound: reason('excluded_outbound'),
    excluded_inbound: reason('excluded_inbound'),
  };
}

/** How much the agent has counted while something was done. */
export async function counted(agent: LabAgent, work: () => Promise<unknown>): Promise<Counts> {
  const before = await counts(agent);
  await work();
  const after = await counts(agent);
  return {
    accepted: after.accepted - before.accepted,
    captured_outbound: after.captured_outbound - before.captured_outbound,
    captured_inbound: after.captured_inbound - before.captured_inbound,
    excluded_outbound: after.excluded_outbound - before.excluded_outbound,
    excluded_inbound: after.excluded_inbound - before.excluded_inbound,
  };
}

/** Gives a pod further addresses. */
export async function addAddresses(pod: LabPod, addresses: readonly string[]): Promise<void> {
  for (const address of addresses) {
    const block = address.includes(':')
      ? ['-6', 'address', 'add', `${address}/64`, 'nodad']
      : ['address', 'add', `${address}/16`];
    const { code, stderr } = await pod.exec(['ip', ...block, 'dev', 'eth0'], { restricted: false });
    if (code !== 0) throw new Error(`cannot give ${pod.name} the address ${address}: ${stderr}`);
  }
}

/** Starts a server and waits until it listens. */
export async function serve(place: LabPod | LabNode, argv: string[]): Promise<ReturnType<LabPod['run']>> {
  const server = place.run(argv);
  await server.json({ event: 'listening' });
  return server;
}

/** A node with its agent, two pods in the mesh and one that is not. */
export interface Scene extends AsyncDisposable {
  readonly lab: Lab;
  readonly node: LabNode;
  readonly agent: LabAgent;
  /** Enrolled. */
  readonly client: LabPod;
  /** Enrolled. */
  readonly server: LabPod;
  /** Not enrolled. */
  readonly outside: LabPod;
}

/** By hand, `CULVERT_LAB_SHARED=1` runs a file beside other labs, without waiting for its turn. */
export const labOptions: LabOptions = { shared: process.env.CULVERT_LAB_SHARED === '1' };

export async function scene(title: string): Promise<Scene> {
  return await furnish(await Lab.create(title, labOptions), async (lab) => {
    const node = await lab.node('n1');
    const [client, server, outside] = [await node.pod('client'), await node.pod('server'), await node.pod('outside')];
    const agent = await node.agent();
    await agent.enrol(client);
    await agent.enrol(server);
    return { lab, node, agent, client, server, outside, [Symbol.asyncDispose]: () => lab.dispose() };
  });
}

/** The families, each with the pod's address in it and what an app may bind. */
export const families = [
  { name: 'IPv4', of: (pod: LabPod) => pod.ipv4, loopback: '127.0.0.1', options: {} },
  { name: 'IPv6', of: (pod: LabPod) => pod.ipv6, loopback: '::1', options: {} },
] as const;

/** The same as a client's socket may be: an AF_INET6 socket speaks IPv4 too. */
export const socketKinds = [
  ...families,
  { name: 'v4-mapped', of: (pod: LabPod) => pod.ipv4, loopback: '127.0.0.1', options: { mapped: true } },
] as const;

export { apps };
