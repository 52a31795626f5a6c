/** One node whose agent knows the kernel path, and what shows which way a connection took. */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import * as addon from '../../native/addon/index.js';
import type { StatusReply } from '../../src/agent/index.ts';
import { decodeService, encodeEndpoint, limit } from '../../src/gen/layout.ts';
import { type Address, decodeAddress, encodeAddress, parseAddress } from '../../src/mesh/index.ts';
import {
  type AgentOptions,
  apps,
  type Captured,
  furnish,
  Lab,
  type LabAgent,
  type LabControl,
  type LabNode,
  type LabPod,
  type Manifest,
  type ManifestFile,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { type Conversation, converse, labOptions, serve, socketKinds } from './conversation.ts';
import { kernelEvents } from './evidence.ts';
import { pinRoot, settled } from './inspect.ts';
import { APP_PORT, HBONE_PORT, podOf, SERVICE_PORT, type Told, tally, VIP } from './tunnel-bed.ts';

/** What is put on the node before control and agent are started. */
export interface PathLayout<Pods> {
  readonly pods: Pods;
  /** Those that the agent enrols. */
  readonly enrolled: readonly LabPod[];
  readonly manifests: Readonly<Record<string, ManifestFile>>;
}

export interface PathBed<Pods> extends AsyncDisposable {
  readonly lab: Lab;
  readonly node: LabNode;
  readonly control: LabControl;
  readonly pods: Pods;
  /** The agent that runs, or has run last. */
  readonly agent: LabAgent;
  /** Starts another after the end of the last. */
  restart(): Promise<LabAgent>;
}

export async function pathBed<Pods>(
  title: string,
  layout: (node: LabNode) => Promise<PathLayout<Pods>>,
  options: AgentOptions = {},
): Promise<PathBed<Pods>> {
  return await furnish(await Lab.create(title, labOptions), async (lab) => {
    const node = await lab.node('n1');
    const { pods, enrolled, manifests } = await layout(node);
    const control = await lab.control({ manifests });
    const start = (): Promise<LabAgent> => node.agent({ control, kernelPath: true, ...options });
    let agent = await start();
    for (const pod of enrolled) await agent.enrol(pod);
    return {
      ...{ lab, node, control, pods },
      get agent() {
        return agent;
      },
      restart: async () => {
        agent = await start();
        return agent;
      },
      [Symbol.asyncDispose]: () => lab.dispose(),
    };
  });
}

type AnyBed = Pick<PathBed<unknown>, 'lab' | 'agent' | 'control'>;

export interface PathPods {
  readonly client: LabPod;
  /** The only endpoint of the service at VIP. */
  readonly server: LabPod;
  /** In no mesh, and nobody knows it. */
  readonly stranger: LabPod;
}

/** The service at VIP, of the pods with these labels. */
export function serviceOf(
  selector: Readonly<Record<string, string>>,
  labels?: Readonly<Record<string, string>>,
): Manifest {
  return serviceManifest('server', {
    namespace: 'shop',
    clusterIps: [VIP.ipv4, VIP.ipv6],
    selector,
    ports: { [SERVICE_PORT]: APP_PORT },
    ...(labels && { labels }),
  });
}

/** The smallest layout: a client and a server, both enrolled, a service, and somebody from outside. All three serve an app that tells. */
export async function trio(node: LabNode): Promise<PathLayout<PathPods>> {
  const names = ['client', 'server', 'stranger'] as const;
  const [client, server, stranger] = await Promise.all(names.map((name) => podOf(node, name)));
  if (client === undefined || server === undefined || stranger === undefined) throw new Error('there are three pods');
  for (const pod of [client, server, stranger]) await tell(pod);
  return {
    pods: { client, server, stranger },
    enrolled: [client, server],
    manifests: {
      'client.yaml': podManifest(client),
      'server.yaml': podManifest(server),
      'service.yaml': serviceOf({ app: 'server' }),
    },
  };
}

export interface QuartetPods extends PathPods {
  /** Another client. */
  readonly other: LabPod;
}

/** A trio and another client, enrolled. */
export async function quartet(node: LabNode): Promise<PathLayout<QuartetPods>> {
  const { pods, enrolled, manifests } = await trio(node);
  const other = await podOf(node, 'other');
  return {
    pods: { ...pods, other },
    enrolled: [...enrolled, other],
    manifests: { ...manifests, 'other.yaml': podManifest(other) },
  };
}

/** Starts an app that tells who its client is. */
export async function tell(pod: LabPod, port = APP_PORT): Promise<void> {
  await serve(pod, apps.echo({ port, mode: 'tell', quiet: true }));
}

/** Edits the manifests, and waits until the edit is in force everywhere on the node. */
export async function changed({ agent, control }: AnyBed, edit: (control: LabControl) => void): Promise<void> {
  const since = agent.process.lines.length;
  edit(control);
  await agent.told({ message: 'the mesh has changed' }, { since });
}

export async function pathStatus(agent: LabAgent): Promise<NonNullable<StatusReply['kernelPath']>> {
  const { kernelPath } = (await agent.status()).status as StatusReply;
  if (kernelPath === null) throw new Error('the agent has no kernel path');
  return kernelPath;
}

/** A conversation, and what the agent's log says of it: of a pod's outbound end, or of how it came in. */
export interface Travelled {
  readonly talk: Conversation;
  readonly told: Told;
}

/** Has a client talk, which must succeed. */
export async function travel({ agent }: AnyBed, from: LabPod, argv: string[]): Promise<Travelled> {
  const since = agent.process.lines.length;
  const talk = await converse(from, argv);
  if (talk.error !== undefined) throw new Error(`${from.name} is not answered: ${JSON.stringify(talk)}`);
  const told = await agent.told({ message: 'connection complete', 'src.addr': talk.local }, { since });
  return { talk, told };
}

/** Has a client talk until a conversation of its goes past the agent: the first one asks, so it is led. Gives the last one. */
export async function direct(bed: AnyBed, from: LabPod, argv: string[]): Promise<Travelled> {
  const last = await settled(
    () => travel(bed, from, argv),
    ({ told }) => told.path === 'kernel',
  );
  if (last.told.path !== 'kernel') throw new Error(`never past the agent: ${JSON.stringify(last.told)}`);
  return last;
}

/** Reasons of the kernel for a connection that goes past the agent. */
const DIRECT = ['direct_local', 'direct_outside', 'direct_plain'] as const;
type Reason = (typeof DIRECT)[number];

/** How many connections of a pod go past the agent meanwhile, by reason. Those without any are left out. */
export async function pastAgent(
  { agent }: AnyBed,
  pod: LabPod,
  work: () => Promise<unknown>,
): Promise<Partial<Record<Reason, number>>> {
  const before = await kernelEvents(agent, pod);
  await work();
  const after = await kernelEvents(agent, pod);
  const more = DIRECT.map((reason) => [reason, (after[reason] ?? 0) - (before[reason] ?? 0)] as const);
  return Object.fromEntries(more.filter(([, count]) => count !== 0));
}

/** Asserts that no connection to these goes past the agent, neither the first one nor those after it. */
export async function assertLed(
  t: ExecutionContext,
  bed: AnyBed,
  from: LabPod,
  ways: readonly Way[],
  path = 'tunnel',
): Promise<void> {
  const count = 8;
  const past = await pastAgent(bed, from, async () => {
    for (const { to, port, argv } of ways) {
      t.is((await travel(bed, from, argv)).told.path, path, argv.join(' '));
      const { errors, asItself } = await tally(from, { to, port, count });
      t.deepEqual([errors, asItself], [{}, count]);
    }
  });
  t.deepEqual(past, {});
}

/** Bytes of tunnels in a capture. */
export function tunnelBytes(captured: Captured): number {
  return captured.payloadBytes(
    ({ sourcePort, destinationPort }) => sourcePort === HBONE_PORT || destinationPort === HBONE_PORT,
  );
}

export interface Kind {
  readonly name: string;
  readonly of: (pod: LabPod) => string;
  readonly options: { readonly mapped?: boolean };
}

/** Something to connect to, and how. */
export interface Way {
  readonly to: string;
  readonly port: number;
  readonly argv: string[];
}

/** Both ways to ask for the server: by its own address, and by its service's. */
export function waysTo(
  server: LabPod,
  { name, of, options }: Kind = socketKinds[0],
  send = 'hello',
): readonly [Way, Way] {
  const way = (to: string, port: number): Way => ({
    to,
    port,
    argv: apps.pythonConnect({ to, port, send, ...options }),
  });
  return [way(of(server), APP_PORT), way(name === 'IPv6' ? VIP.ipv6 : VIP.ipv4, SERVICE_PORT)];
}

/** A service's backends as the kernel chooses among them: weights by endpoint. Undefined: it does not choose. */
export function weightsOf(
  node: LabNode,
  vip: string,
  port = SERVICE_PORT,
): Readonly<Record<string, number>> | undefined {
  const map = addon.pinOpen(join(pinRoot(node), 'maps', 'services'), 'map');
  try {
    const bytes = addon.mapLookup(map, encodeEndpoint({ address: { bytes: encodeAddress(addressIn(vip)) }, port }));
    if (bytes === undefined) return undefined;
    const { backends, count } = decodeService(bytes);
    const sums = backends.slice(0, count);
    return Object.fromEntries(
      sums.map(({ endpoint, sum }, at) => {
        const address = decodeAddress(endpoint.address.bytes);
        return [apps.endpoint(address, endpoint.port), sum - (sums[at - 1]?.sum ?? 0)];
      }),
    );
  } finally {
    addon.close(map);
  }
}

function addressIn(text: string): Address {
  const address = parseAddress(text);
  if (address === undefined) throw new Error(`not an address: ${text}`);
  return address;
}

/** How long ago the agent has last shown that it lives, in milliseconds. */
export function heartbeatAgeMs(node: LabNode): number {
  const map = addon.pinOpen(join(pinRoot(node), 'maps', 'heartbeat'), 'map');
  try {
    const bytes = addon.mapLookup(map, new Uint8Array(4));
    if (bytes === undefined) throw new Error('there is no heartbeat');
    const beat = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
    return Number(process.hrtime.bigint() - beat) / 1e6;
  } finally {
    addon.close(map);
  }
}

/** Waits until the agent's last sign of life is too old for anything to count that it has decided. */
export async function silent(node: LabNode): Promise<void> {
  const age = await settled(
    () => heartbeatAgeMs(node),
    (ms) => ms >= limit.HEARTBEAT_MS,
  );
  if (age < limit.HEARTBEAT_MS) throw new Error(`it showed that it lives ${age} ms ago`);
}
