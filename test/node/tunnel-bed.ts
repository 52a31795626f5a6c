/** Two linked nodes, each with an agent that follows one control process: scenarios through the tunnel are set in it. */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import type { SpiffeId } from '../../src/mesh/index.ts';
import {
  type AgentOptions,
  apps,
  type Captured,
  type ControlOptions,
  furnish,
  Lab,
  type LabAgent,
  type LabControl,
  type LabLink,
  type LabNode,
  type LabPod,
  type LinkOptions,
  type ManifestFile,
  type PodOptions,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { type Conversation, labOptions } from './conversation.ts';

export const HBONE_PORT = 15008;
/** Where apps of servers listen, unless a test says otherwise. */
export const APP_PORT = 8080;
/** Port of the pair's service, which has APP_PORT too. */
export const SERVICE_PORT = 80;
/** Addresses of the pair's service. */
export const VIP = { ipv4: '10.96.0.1', ipv6: 'fd00:c:96::1' } as const;

/** Of the pods of a tunnel's scenarios: all are in the namespace `shop`. */
export function identity(serviceAccount: string, trustDomain = 'cluster.local'): SpiffeId {
  return `spiffe://${trustDomain}/ns/shop/sa/${serviceAccount}` as SpiffeId;
}

/** Both endpoints of a pod's app. */
export function endpointsOf(pod: LabPod): string[] {
  return pod.addresses.map((address) => apps.endpoint(address, APP_PORT));
}

/** What is put on the nodes before control and agents are started. */
interface Layout<Pods> {
  readonly pods: Pods;
  /** Those that the agents enrol. */
  readonly enrolled: readonly LabPod[];
  readonly manifests: Readonly<Record<string, ManifestFile>>;
}

export interface TunnelBed<Pods> extends AsyncDisposable {
  readonly lab: Lab;
  readonly link: LabLink;
  readonly nodes: readonly [near: LabNode, far: LabNode];
  readonly agents: readonly [near: LabAgent, far: LabAgent];
  readonly control: LabControl;
  readonly pods: Pods;
}

/** What is around the agents, where it is not as usual. */
interface Surroundings {
  readonly control?: ControlOptions;
  readonly link?: LinkOptions;
}

/** @param agents options of both agents; their log level is `debug` unless it says otherwise, which tells of connections */
export async function tunnelBed<Pods>(
  title: string,
  layout: (near: LabNode, far: LabNode) => Promise<Layout<Pods>>,
  agents: AgentOptions = {},
  surroundings: Surroundings = {},
): Promise<TunnelBed<Pods>> {
  return await furnish(await Lab.create(title, labOptions), (lab) => setUp(lab, layout, agents, surroundings));
}

async function setUp<Pods>(
  lab: Lab,
  layout: (near: LabNode, far: LabNode) => Promise<Layout<Pods>>,
  options: AgentOptions,
  surroundings: Surroundings,
): Promise<TunnelBed<Pods>> {
  const nodes = [await lab.node('near'), await lab.node('far')] as const;
  const link = await lab.link(...nodes, surroundings.link);
  const { pods, enrolled, manifests } = await layout(...nodes);
  const control = await lab.control({
    manifests,
    ...(options.logLevel && { logLevel: options.logLevel }),
    ...surroundings.control,
  });
  const [near, far] = await Promise.all(nodes.map((node) => node.agent({ ...options, control })));
  if (near === undefined || far === undefined) throw new Error('there are two agents');
  for (const pod of enrolled) await (pod.node === near.node ? near : far).enrol(pod);
  return {
    lab,
    link,
    nodes,
    agents: [near, far],
    control,
    pods,
    [Symbol.asyncDispose]: () => lab.dispose(),
  };
}

/** A pod of the namespace `shop`, whose service account is called as it is. */
export function podOf(node: LabNode, name: string, options: PodOptions = {}): Promise<LabPod> {
  return node.pod(name, { namespace: 'shop', serviceAccount: name, ...options });
}

export interface Pair {
  /** On the near node. */
  readonly client: LabPod;
  /** On the far node: the endpoint of the service at VIP. */
  readonly server: LabPod;
}

/** The smallest layout: a client and a server, both enrolled, and a service. */
export async function pair(near: LabNode, far: LabNode): Promise<Layout<Pair>> {
  const [client, server] = [await podOf(near, 'client'), await podOf(far, 'server')];
  return {
    pods: { client, server },
    enrolled: [client, server],
    manifests: {
      'pair.yaml': [
        podManifest(client),
        podManifest(server),
        serviceManifest('server', {
          namespace: 'shop',
          clusterIps: [VIP.ipv4, VIP.ipv6],
          ports: { [SERVICE_PORT]: APP_PORT, [APP_PORT]: APP_PORT },
        }),
      ],
    },
  };
}

/** Who answered how many connections, by the endpoint that they have themselves. */
export interface Tally {
  readonly answers: Readonly<Record<string, number>>;
  /** Connections of which the server saw the client's own address and port. */
  readonly asItself: number;
  /** Connections that nobody answered, by errno name. */
  readonly errors: Readonly<Record<string, number>>;
}

/** Opens connections to servers that tell: `atOnce` (default: 1) together, until there were `count`. See tally.py. */
export async function tally(
  client: LabPod,
  { to, port, count, atOnce = 1 }: { to: string; port: number; count: number; atOnce?: number },
): Promise<Tally> {
  const script = join(import.meta.dirname, 'tally.py');
  const argv = ['--to', to, '--port', `${port}`, '--count', `${count}`, '--at-once', `${atOnce}`];
  const { stdout, stderr } = await client.exec(['/usr/bin/python3', script, ...argv]);
  if (!stdout.startsWith('{')) throw new Error(`tally.py: ${stderr}`);
  return JSON.parse(stdout) as Tally;
}

type AnyBed = TunnelBed<unknown>;

/**
 * Asserts that all TCP between the nodes meanwhile is with an HBONE port, and that none of the texts is seen in it.
 *
 * @returns what `work` returns
 */
export async function sealed<T>(
  t: ExecutionContext,
  { lab, link }: AnyBed,
  texts: readonly string[],
  work: () => Promise<T>,
): Promise<T> {
  const capture = await lab.capture(link);
  const result = await work();
  const crossed = (await capture.stop()).filter(({ protocol }) => protocol === 'tcp');
  t.true(crossed.packets.length > 0, 'something crosses the link');
  t.deepEqual(besideHbone(crossed), [], 'nothing but HBONE crosses the link');
  for (const text of texts) t.false(crossed.contains(text), `${text} crosses the link in the clear`);
  return result;
}

/** Ends of TCP connections that are not with an HBONE port. */
export function besideHbone({ packets }: Captured): string[] {
  const others = packets.filter((packet) => packet.sourcePort !== HBONE_PORT && packet.destinationPort !== HBONE_PORT);
  return [
    ...new Set(
      others.map(
        ({ source = '', sourcePort = 0, destination = '', destinationPort = 0 }) =>
          `${apps.endpoint(source, sourcePort)} > ${apps.endpoint(destination, destinationPort)}`,
      ),
    ),
  ];
}

/** What an agent has logged of a connection at its end; fields of `connection complete` or `connection failed`. */
export type Told = Readonly<Record<string, unknown>>;

/**
 * Remembers how far an agent's log is. What it returns finds the first line after that of a connection with these fields:
 * `src.addr` is the client's own endpoint.
 */
export function listen(agent: LabAgent): (fields: Readonly<Record<string, string | undefined>>) => Promise<Told> {
  const since = agent.process.lines.length;
  return (fields) => agent.told(fields, { since });
}

/** One conversation that came through the tunnel, as everybody saw it. */
export interface Tunnelled {
  readonly talk: Conversation;
  readonly near: Told;
  readonly far: Told;
}

/** Has a client of the near node talk, and asserts that both agents tell of the same tunnel. */
export async function tunnelled(
  t: ExecutionContext,
  { agents: [near, far] }: AnyBed,
  converse: () => Promise<Conversation>,
): Promise<Tunnelled> {
  const [nearLog, farLog] = [listen(near), listen(far)];
  const talk = await converse();
  t.is(talk.error, undefined, JSON.stringify(talk));
  const own = { 'src.addr': talk.local };
  const told = { talk, near: await nearLog(own), far: await farLog(own) };
  for (const each of [told.near, told.far]) t.is(each.path, 'tunnel', JSON.stringify(each));
  for (const name of ['src.identity', 'dst.identity', 'dst.hbone_addr']) {
    t.truthy(told.near[name], name);
    t.is(told.near[name], told.far[name], name);
  }
  return told;
}

/** HBONE connections that a pod has made and that are open, each with its own port: of the kernel, not of the agent. */
export async function sessionsOf(pod: LabPod): Promise<string[]> {
  const { stdout } = await pod.exec(['ss', '-Htn', 'state', 'established', `dport = :${HBONE_PORT}`]);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.trim().split(/\s+/)[2] ?? '');
}
