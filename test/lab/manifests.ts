/** Kubernetes objects that describe what is in a lab, as `culvert control` reads them. */
import type { LabNode } from './node.ts';
import type { LabPod } from './pod.ts';

/** Any Kubernetes object. */
export type Manifest = Readonly<Record<string, unknown>>;

export interface PodManifestOptions {
  /** Default: `{ app: <name> }`. */
  labels?: Readonly<Record<string, string>>;
  /** Whether it is in the mesh: takes tunnelled connections. Default: true. */
  enrolled?: boolean;
  /** Default: true. */
  ready?: boolean;
  annotations?: Readonly<Record<string, string>>;
  /** Named ports of its containers. */
  ports?: Readonly<Record<string, number>>;
}

/** A pod of the lab, running. */
export function podManifest(pod: LabPod, options: PodManifestOptions = {}): Manifest {
  const { name, namespace, uid, serviceAccount, addresses } = pod.request();
  const { labels = { app: name }, enrolled = true, ready = true, annotations = {}, ports = {} } = options;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      uid,
      labels,
      annotations: { ...(enrolled ? { 'ambient.istio.io/redirection': 'enabled' } : {}), ...annotations },
    },
    spec: {
      nodeName: pod.node.name,
      serviceAccountName: serviceAccount,
      containers: [
        {
          name: 'app',
          image: 'app',
          ports: Object.entries(ports).map(([portName, containerPort]) => ({ name: portName, containerPort })),
        },
      ],
    },
    status: {
      phase: 'Running',
      podIP: addresses[0],
      podIPs: addresses.map((ip) => ({ ip })),
      conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
    },
  };
}

/** A node of the lab, with where it is. */
export function nodeManifest(
  node: LabNode,
  locality: { region?: string; zone?: string; subzone?: string } = {},
): Manifest {
  const { region, zone, subzone } = locality;
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name: node.name,
      labels: {
        ...(region === undefined ? {} : { 'topology.kubernetes.io/region': region }),
        ...(zone === undefined ? {} : { 'topology.kubernetes.io/zone': zone }),
        ...(subzone === undefined ? {} : { 'topology.istio.io/subzone': subzone }),
      },
    },
  };
}

export interface ServiceManifestOptions {
  /** Default: `default`. */
  namespace?: string;
  /** Its addresses; empty: headless. */
  clusterIps: readonly string[];
  /** Target port (a number, or a container port's name) by port. */
  ports: Readonly<Record<number, number | string>>;
  /** Labels of its pods. Default: `{ app: <name> }`. Null: none, EndpointSlices name its endpoints. */
  selector?: Readonly<Record<string, string>> | null;
  labels?: Readonly<Record<string, string>>;
  annotations?: Readonly<Record<string, string>>;
  /** Added to its `spec`. */
  spec?: Readonly<Record<string, unknown>>;
}

export function serviceManifest(name: string, options: ServiceManifestOptions): Manifest {
  const { namespace = 'default', clusterIps, ports, selector = { app: name }, labels, annotations, spec } = options;
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels: labels ?? {}, annotations: annotations ?? {} },
    spec: {
      type: 'ClusterIP',
      clusterIP: clusterIps[0] ?? 'None',
      clusterIPs: clusterIps.length === 0 ? ['None'] : [...clusterIps],
      ...(selector === null ? {} : { selector }),
      ports: Object.entries(ports).map(([port, targetPort]) => ({
        name: `tcp-${port}`,
        port: Number(port),
        targetPort,
        protocol: 'TCP',
      })),
      ...spec,
    },
  };
}

export interface EndpointSliceManifestOptions {
  /** Default: `default`. */
  namespace?: string;
  /** Name of the service that it belongs to. */
  service: string;
  /** Pods, by reference; or addresses of something that is no pod. One family only. */
  endpoints: ReadonlyArray<LabPod | string>;
  /** 4 or 6. Default: 4. */
  family?: 4 | 6;
  /** Port of the endpoints by port of the service. */
  ports: Readonly<Record<number, number>>;
  /** Default: true. */
  ready?: boolean;
}

export function endpointSliceManifest(name: string, options: EndpointSliceManifestOptions): Manifest {
  const { namespace = 'default', service, endpoints, family = 4, ports, ready = true } = options;
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name, namespace, labels: { 'kubernetes.io/service-name': service } },
    addressType: `IPv${family}`,
    endpoints: endpoints.map((endpoint) => ({ ...endpointOf(endpoint, family), conditions: { ready } })),
    ports: Object.entries(ports).map(([port, target]) => ({ name: `tcp-${port}`, port: target, protocol: 'TCP' })),
  };
}

function endpointOf(endpoint: LabPod | string, family: 4 | 6): Manifest {
  if (typeof endpoint === 'string') return { addresses: [endpoint] };
  const { name, namespace, uid } = endpoint.request();
  return {
    addresses: [family === 4 ? endpoint.ipv4 : endpoint.ipv6],
    nodeName: endpoint.node.name,
    targetRef: { kind: 'Pod', name, namespace, uid },
  };
}

export interface AuthorizationPolicyOptions {
  /** Default: `shop`. */
  namespace?: string;
  /** Default: `ALLOW`. */
  action?: 'ALLOW' | 'DENY';
  /** As in the object: `from`, `to`, `when`. Default: none, which an ALLOW makes of it that everything is denied. */
  rules?: readonly Manifest[];
  /** Labels of the pods that it is for. Default: all of the namespace. */
  selector?: Readonly<Record<string, string>>;
  annotations?: Readonly<Record<string, string>>;
}

export function authorizationPolicyManifest(name: string, options: AuthorizationPolicyOptions = {}): Manifest {
  const { namespace = 'shop', action = 'ALLOW', rules, selector, annotations } = options;
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace, ...(annotations === undefined ? {} : { annotations }) },
    spec: {
      action,
      ...(selector === undefined ? {} : { selector: { matchLabels: selector } }),
      ...(rules === undefined ? {} : { rules }),
    },
  };
}

export type MtlsMode = 'STRICT' | 'PERMISSIVE' | 'DISABLE' | 'UNSET';

export interface PeerAuthenticationOptions {
  /** Default: `shop`. */
  namespace?: string;
  /** Default: `STRICT`. */
  mode?: MtlsMode;
  selector?: Readonly<Record<string, string>>;
  /** Port of the pod to its mode. */
  ports?: Readonly<Record<number, MtlsMode>>;
}

export function peerAuthenticationManifest(name: string, options: PeerAuthenticationOptions = {}): Manifest {
  const { namespace = 'shop', mode = 'STRICT', selector, ports } = options;
  const byPort = ports && Object.fromEntries(Object.entries(ports).map(([port, of]) => [port, { mode: of }]));
  return {
    apiVersion: 'security.istio.io/v1',
    kind: 'PeerAuthentication',
    metadata: { name, namespace },
    spec: {
      mtls: { mode },
      ...(selector === undefined ? {} : { selector: { matchLabels: selector } }),
      ...(byPort === undefined ? {} : { portLevelMtls: byPort }),
    },
  };
}
