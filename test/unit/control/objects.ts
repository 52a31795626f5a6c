/** Kubernetes objects for tests: written as YAML, checked as manifests are. */
import { type BuiltMesh, buildMesh } from '../../../src/control/build/mesh-builder.ts';
import { parseManifest } from '../../../src/control/manifests/parse.ts';
import type { KubernetesObject } from '../../../src/control/objects/index.ts';
import type { AuthorizationPolicy, PolicyMatch, Service, Workload } from '../../../src/mesh/index.ts';

/** The objects of some YAML documents; throws if there is anything wrong with them. */
export function objects(...texts: readonly string[]): readonly KubernetesObject[] {
  const { objects: placed, issues } = parseManifest(texts.join('\n---\n'));
  if (issues.length > 0) throw new Error(issues.map(({ line, text }) => `${line}: ${text}`).join('\n'));
  return placed.map(({ object }) => object);
}

export function build(...texts: readonly string[]): BuiltMesh {
  return buildMesh(objects(...texts));
}

export function workloadsOf({ workloads }: BuiltMesh): readonly Workload[] {
  return [...workloads.values()];
}

/** The only workload of that name. */
export function workloadOf(mesh: BuiltMesh, name = 'web-1'): Workload {
  const [found, ...more] = workloadsOf(mesh).filter((each) => each.name === name);
  if (found === undefined || more.length > 0) throw new Error(`${more.length + 1} workloads named ${name}`);
  return found;
}

/** The only service of that hostname. */
export function serviceOf(mesh: BuiltMesh, hostname = 'web.shop.svc.cluster.local'): Service {
  const [found, ...more] = [...mesh.services.values()].filter((each) => each.hostname === hostname);
  if (found === undefined || more.length > 0) throw new Error(`${more.length + 1} services named ${hostname}`);
  return found;
}

/** The policy of that name, `namespace/name`, if agents are told of one. */
export function policyOf({ policies }: BuiltMesh, name = 'shop/only'): AuthorizationPolicy | undefined {
  return policies.get(name as `${string}/${string}`);
}

/** What matches ask for, without the fields in which they ask for nothing. */
export function asked(match: PolicyMatch): Partial<PolicyMatch> {
  return Object.fromEntries(Object.entries(match).filter(([, values]) => values.length > 0));
}

/** The clauses of each rule of a policy, as what their matches ask for. */
export function clausesOf(policy: AuthorizationPolicy | undefined): ReadonlyArray<readonly unknown[]> | undefined {
  return policy?.rules.map(({ clauses }) => clauses.map(({ matches }) => matches.map(asked)));
}

/** What a pod, service or entry says besides what is usual, each as a line of YAML in flow style. */
export interface Said {
  readonly name?: string;
  readonly namespace?: string;
  readonly labels?: string;
  readonly annotations?: string;
  /** Further lines of `metadata`, `spec` and `status`. */
  readonly metadata?: readonly string[];
  readonly spec?: readonly string[];
  readonly status?: readonly string[];
}

function head(apiVersion: string, kind: string, name: string, said: Said): string[] {
  return [
    `apiVersion: ${apiVersion}`,
    `kind: ${kind}`,
    'metadata:',
    `  name: ${said.name ?? name}`,
    `  namespace: ${said.namespace ?? 'shop'}`,
    `  labels: ${said.labels ?? '{}'}`,
    `  annotations: ${said.annotations ?? '{}'}`,
    ...indented(said.metadata),
  ];
}

function indented(lines: readonly string[] = []): string[] {
  return lines.map((line) => `  ${line}`);
}

/** A ready pod of app web on node n1; lines of `status` take the place of the usual ones. */
export function pod(said: Said = {}): string {
  const status = said.status ?? ['podIP: 10.0.0.1', 'conditions: [{type: Ready, status: "True"}]'];
  return [
    ...head('v1', 'Pod', 'web-1', { labels: '{app: web}', ...said }),
    'spec:',
    '  nodeName: n1',
    ...indented(said.spec),
    'status:',
    ...indented(status),
  ].join('\n');
}

/** A service at 10.96.0.1, port 80 to 8080; lines of `spec` take the place of the usual ones. */
export function service(said: Said = {}): string {
  const spec = said.spec ?? ['clusterIP: 10.96.0.1', 'selector: {app: web}', 'ports: [{port: 80, targetPort: 8080}]'];
  return [...head('v1', 'Service', 'web', said), 'spec:', ...indented(spec)].join('\n');
}

export function namespace(name: string, said: Said = {}): string {
  return head('v1', 'Namespace', name, said).join('\n');
}

export function serviceEntry(said: Said): string {
  return [
    ...head('networking.istio.io/v1', 'ServiceEntry', 'entry', said),
    'spec:',
    ...indented(said.spec),
    ...(said.status === undefined ? [] : ['status:', ...indented(said.status)]),
  ].join('\n');
}

export function workloadEntry(said: Said): string {
  const top = head('networking.istio.io/v1beta1', 'WorkloadEntry', 'vm', said);
  return [...top, 'spec:', ...indented(said.spec ?? ['address: 10.9.0.1'])].join('\n');
}

/** A slice of IPv4 endpoints of service web. */
export function slice(said: Said & { readonly top: readonly string[] }): string {
  const labels = said.labels ?? '{kubernetes.io/service-name: web}';
  return [...head('discovery.k8s.io/v1', 'EndpointSlice', 'web-x', { ...said, labels }), ...said.top].join('\n');
}

/** A waypoint that is ready; lines of `spec` and `status` take the place of the usual ones. */
export function gateway(said: Said = {}): string {
  const spec = said.spec ?? ['gatewayClassName: istio-waypoint', 'listeners: [{port: 15008, protocol: HBONE}]'];
  const status = said.status ?? ['addresses: [{type: IPAddress, value: 10.96.9.9}]'];
  const top = head('gateway.networking.k8s.io/v1', 'Gateway', 'waypoint', said);
  return [...top, 'spec:', ...indented(spec), 'status:', ...indented(status)].join('\n');
}

export function meshConfig(...lines: readonly string[]): string {
  const data = ['data:', '  mesh.yaml: |', ...lines.map((line) => `    ${line}`)];
  return [...head('v1', 'ConfigMap', 'culvert', { namespace: 'istio-system' }), ...data].join('\n');
}

/** Of namespace shop; an ALLOW unless it says otherwise. */
export function authorizationPolicy(said: Said = {}): string {
  const top = head('security.istio.io/v1', 'AuthorizationPolicy', 'only', said);
  return [...top, 'spec:', ...indented(said.spec ?? ['{}'])].join('\n');
}

export function peerAuthentication(said: Said = {}): string {
  const top = head('security.istio.io/v1', 'PeerAuthentication', 'strict', said);
  return [...top, 'spec:', ...indented(said.spec ?? ['mtls: {mode: STRICT}'])].join('\n');
}
