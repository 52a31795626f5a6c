/** Two nodes full of services: every kind of destination that needs neither a waypoint nor another network. */
import {
  apps,
  furnish,
  type LabNode,
  type LabPod,
  type Manifest,
  nodeManifest,
  type PodManifestOptions,
  podManifest,
  type ServiceManifestOptions,
  serviceManifest,
} from '../lab/index.ts';
import { serve } from './conversation.ts';
import { APP_PORT, podOf, type TunnelBed, tunnelBed } from './tunnel-bed.ts';

/** A second app of some pods. */
export const SECOND_PORT = 8081;
/** Where an app of the far node itself listens. */
export const HOST_PORT = 9090;
/** Nobody listens there. */
export const CLOSED_PORT = 9;

export interface ServicePods {
  /** On the near node: */
  readonly client: LabPod;
  /** A server beside the client. */
  readonly local: LabPod;
  /** Enrolled, but no manifest tells of them. */
  readonly unknown: LabPod;
  readonly later: LabPod;
  /** On the far node: */
  readonly one: LabPod;
  readonly two: LabPod;
  /** Not ready. */
  readonly unready: LabPod;
  /** Has IPv6 only. */
  readonly six: LabPod;
  /** In the mesh's manifests, but not enrolled. */
  readonly plain: LabPod;
  /** The mesh believes it to be enrolled. */
  readonly unserved: LabPod;
  /** Neither enrolled nor in the manifests. */
  readonly stranger: LabPod;
}

export type ServiceBed = TunnelBed<ServicePods>;

/** How pods are told of; tests that edit one say what differs. */
export function manifestOf(pods: ServicePods, name: keyof ServicePods, changes: PodManifestOptions = {}): Manifest {
  return podManifest(pods[name], { ...TOLD[name], ...changes });
}

const TOLD: Readonly<Partial<Record<keyof ServicePods, PodManifestOptions>>> = {
  client: { labels: { app: 'client' } },
  local: { labels: { app: 'local', place: 'any', node: 'any' } },
  one: { labels: { tier: 'web', place: 'any', node: 'any', shaky: 'yes' }, ports: { http: APP_PORT } },
  two: { labels: { tier: 'web', shaky: 'half' }, ports: { http: SECOND_PORT } },
  unready: { labels: { tier: 'web', app: 'unready' }, ready: false },
  plain: { enrolled: false },
  unserved: { labels: { shaky: 'yes' } },
};

/** Addresses of the services by name, and what they are. */
export const VIPS = {
  web: '10.96.1.1',
  web6: 'fd00:c:96:1::1',
  all: '10.96.1.2',
  zone: '10.96.1.3',
  node: '10.96.1.4',
  strict: '10.96.1.5',
  away: '10.96.1.6',
  empty: '10.96.1.7',
  unready: '10.96.1.8',
  six: '10.96.1.9',
  self: '10.96.1.10',
  host: '10.96.1.11',
  plain: '10.96.1.12',
  shaky: '10.96.1.13',
  half: '10.96.1.14',
  /** Of ServiceEntries: */
  static: '10.97.0.1',
  weighted: '10.97.0.2',
  block: '10.98.0.0/16',
} as const;

function service(name: string, clusterIp: string, options: Partial<ServiceManifestOptions> = {}): Manifest {
  const ports = { 80: APP_PORT };
  return serviceManifest(name, { namespace: 'shop', clusterIps: [clusterIp], ports, ...options });
}

/** Of its web service, tests edit the one in its own file. */
export function webManifest(): Manifest {
  const ports = { 80: APP_PORT, 81: 'http', 82: 'no-such-name', 83: CLOSED_PORT };
  return service('web', VIPS.web, { clusterIps: [VIPS.web, VIPS.web6], selector: { tier: 'web' }, ports });
}

function services(): Manifest[] {
  return [
    service('all', VIPS.all, { selector: { tier: 'web' }, spec: { publishNotReadyAddresses: true } }),
    service('zone', VIPS.zone, { selector: { place: 'any' }, spec: { trafficDistribution: 'PreferClose' } }),
    service('node', VIPS.node, { selector: { node: 'any' }, spec: { trafficDistribution: 'PreferSameNode' } }),
    service('strict', VIPS.strict, { selector: { place: 'any' }, spec: { internalTrafficPolicy: 'Local' } }),
    service('away', VIPS.away, { selector: { tier: 'web' }, spec: { internalTrafficPolicy: 'Local' } }),
    service('empty', VIPS.empty),
    service('unready', VIPS.unready),
    service('six', VIPS.six),
    service('self', VIPS.self, { selector: { app: 'client' } }),
    service('host', VIPS.host, { ports: { 80: HOST_PORT } }),
    service('plain', VIPS.plain),
    service('shaky', VIPS.shaky, { selector: { shaky: 'yes' } }),
    // One of its endpoints listens there, the other does not.
    service('half', VIPS.half, { selector: { tier: 'web' }, ports: { 80: SECOND_PORT } }),
    serviceManifest('headless', {
      namespace: 'shop',
      clusterIps: [],
      selector: { tier: 'web' },
      ports: { 80: APP_PORT },
    }),
  ];
}

function serviceEntry(name: string, spec: Readonly<Record<string, unknown>>): Manifest {
  return {
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: { name, namespace: 'shop' },
    spec: { hosts: [`${name}.example`], ports: [{ number: 80, name: 'tcp', targetPort: APP_PORT }], ...spec },
  };
}

/** A machine that takes tunnelled connections. */
function workloadEntry(pod: LabPod, weight: number): Manifest {
  const labels = { app: 'weighted', 'networking.istio.io/tunnel': 'http' };
  return {
    apiVersion: 'networking.istio.io/v1',
    kind: 'WorkloadEntry',
    metadata: { name: `weighted-${pod.name}`, namespace: 'shop' },
    spec: { address: pod.ipv4, labels, weight, serviceAccount: pod.name },
  };
}

function entries({ one, two, plain, stranger }: ServicePods): Manifest[] {
  return [
    serviceEntry('static', { addresses: [VIPS.static], resolution: 'STATIC', endpoints: [{ address: plain.ipv4 }] }),
    serviceEntry('block', { addresses: [VIPS.block], resolution: 'STATIC', endpoints: [{ address: plain.ipv4 }] }),
    serviceEntry('none', {
      addresses: [stranger.ipv4],
      resolution: 'NONE',
      ports: [{ number: APP_PORT, name: 'tcp', targetPort: CLOSED_PORT }],
    }),
    serviceEntry('weighted', {
      addresses: [VIPS.weighted],
      resolution: 'STATIC',
      workloadSelector: { labels: { app: 'weighted' } },
    }),
    workloadEntry(one, 4),
    workloadEntry(two, 1),
  ];
}

function hostPod(node: LabNode): Manifest {
  const status = {
    phase: 'Running',
    podIP: node.ipv4,
    podIPs: [{ ip: node.ipv4 }],
    conditions: [{ type: 'Ready', status: 'True' }],
  };
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'host', namespace: 'shop', uid: 'host', labels: { app: 'host' } },
    spec: { nodeName: node.name, serviceAccountName: 'host', hostNetwork: true, containers: [] },
    status,
  };
}

/** The near node is in zone a; the far one where it is said to be. */
export function nodesManifest([near, far]: readonly [LabNode, LabNode], farZone: string): Manifest[] {
  return [nodeManifest(near, { region: 'r', zone: 'a' }), nodeManifest(far, { region: 'r', zone: farZone })];
}

export async function serviceBed(title: string): Promise<ServiceBed> {
  const bed = await tunnelBed(title, async (near, far) => {
    const pods: ServicePods = {
      client: await podOf(near, 'client'),
      local: await podOf(near, 'local'),
      unknown: await podOf(near, 'unknown'),
      later: await podOf(near, 'later'),
      one: await podOf(far, 'one'),
      two: await podOf(far, 'two'),
      unready: await podOf(far, 'unready'),
      six: await podOf(far, 'six', { ipv4: false }),
      plain: await podOf(far, 'plain'),
      unserved: await podOf(far, 'unserved'),
      stranger: await podOf(far, 'stranger'),
    };
    const { plain, unserved, stranger, unknown, later, ...enrolled } = pods;
    const told: Array<keyof ServicePods> = ['client', 'local', 'one', 'two', 'unready', 'six', 'plain', 'unserved'];
    return {
      pods,
      enrolled: [...Object.values(enrolled), unknown, later],
      manifests: {
        'nodes.yaml': nodesManifest([near, far], 'b'),
        ...Object.fromEntries(told.map((name) => [`pod-${name}.yaml`, manifestOf(pods, name)])),
        'host.yaml': hostPod(far),
        'web.yaml': webManifest(),
        'services.yaml': services(),
        'entries.yaml': entries(pods),
      },
    };
  });
  return await furnish(bed, async () => {
    await serveAll(bed);
    return bed;
  });
}

async function serveAll({ pods, nodes: [, far] }: ServiceBed): Promise<void> {
  const { client, local, one, two, unready, six, plain, unserved, stranger, later } = pods;
  const servers = [client, local, one, two, unready, six, plain, unserved, stranger, later];
  const tell = (place: LabPod | LabNode, port: number) => serve(place, apps.pythonEcho({ port, mode: 'tell' }));
  await Promise.all([...servers.map((pod) => tell(pod, APP_PORT)), tell(two, SECOND_PORT), tell(far, HOST_PORT)]);
}
