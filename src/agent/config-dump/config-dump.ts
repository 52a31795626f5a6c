/** What the agent knows, as `istioctl ztunnel-config` reads it (wire contract, section 9.5). */
import {
  type Endpoint,
  formatEndpoint,
  type NetnsCookie,
  type Pod,
  type ReadModel,
  type ServiceName,
  type Workload,
} from '../../mesh/index.ts';
import { certificateJson, type ShownCertificate } from './certificates.ts';
import type { JsonSection } from './json-stream.ts';
import { policyJson } from './policies.ts';
import { endpointJson, portPairs, serviceJson, workloadJson } from './workloads.ts';

/** A connection of a pod of this node that is open. */
export interface ShownConnection {
  readonly pod: NetnsCookie;
  readonly direction: 'inbound' | 'outbound';
  readonly client: Endpoint;
  /** As it was asked for; undefined: not known. */
  readonly asked: Endpoint | undefined;
  /** Where it really leads; undefined: it does not yet. */
  readonly actual: Endpoint | undefined;
  readonly isTunnelled: boolean;
}

export interface ShownPod {
  readonly pod: Pod;
  readonly cookie: NetnsCookie | undefined;
  readonly isServed: boolean;
}

export interface ConfigDumpSources {
  /** Undefined: the agent follows no control process. */
  readonly mesh: Pick<ReadModel, 'snapshot' | 'service' | 'members'> | undefined;
  readonly pods: readonly ShownPod[];
  readonly connections: readonly ShownConnection[];
  readonly certificates: readonly ShownCertificate[];
  /** The effective settings, in camel case. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly version: string;
}

/** The dump's sections; each is made when it is asked for. */
export function* configDump(sources: ConfigDumpSources): Generator<JsonSection> {
  const { mesh } = sources;
  const { workloads, services, policies } = mesh?.snapshot() ?? { workloads: [], services: [], policies: [] };
  yield { kind: 'list', key: 'workloads', items: mapped(workloads, workloadJson) };
  yield {
    kind: 'list',
    key: 'services',
    items: mapped(services, (service) => serviceJson(service, mesh?.members(service) ?? [])),
  };
  yield { kind: 'list', key: 'policies', items: mapped(policies, policyJson) };
  yield { kind: 'value', key: 'stagedServices', value: stagedServices(workloads, (name) => mesh?.service(name)) };
  yield { kind: 'map', key: 'workloadState', entries: workloadStates(sources.pods, sources.connections) };
  yield { kind: 'value', key: 'staticConfig', value: { workloads: [], policies: [], services: [] } };
  yield { kind: 'value', key: 'version', value: versionJson(sources.version) };
  yield { kind: 'value', key: 'config', value: sources.config };
  yield { kind: 'list', key: 'certificates', items: mapped(sortedByIdentity(sources.certificates), certificateJson) };
}

/** Endpoints that wait for their service: by service, then by workload. */
function stagedServices(
  workloads: readonly Workload[],
  serviceOf: (name: ServiceName) => unknown,
): Record<string, Record<string, unknown>> {
  const staged = new Map<string, Record<string, unknown>>();
  for (const workload of workloads)
    for (const [name, ports] of Object.entries(workload.services)) {
      if (serviceOf(name as ServiceName) !== undefined) continue;
      const endpoints = staged.get(name) ?? {};
      endpoints[workload.uid] = endpointJson(workload, portPairs(ports));
      staged.set(name, endpoints);
    }
  return Object.fromEntries(staged);
}

function* workloadStates(
  pods: readonly ShownPod[],
  connections: readonly ShownConnection[],
): Generator<readonly [string, unknown]> {
  const byPod = Map.groupBy(connections, ({ pod }) => pod);
  for (const { pod, cookie, isServed } of pods) {
    const open = cookie === undefined ? [] : (byPod.get(cookie) ?? []);
    const of = (direction: ShownConnection['direction']): unknown[] =>
      open.filter((each) => each.direction === direction).map(connectionJson);
    const { name, namespace, serviceAccount } = pod;
    yield [
      pod.uid,
      {
        state: isServed ? 'Up' : 'Pending',
        connections: { inbound: of('inbound'), outbound: of('outbound') },
        info: { name, namespace, serviceAccount },
      },
    ];
  }
}

function connectionJson({ client, asked, actual, isTunnelled }: ShownConnection): Record<string, unknown> {
  return {
    src: formatEndpoint(client),
    originalDst: asked === undefined ? null : formatEndpoint(asked),
    actualDst: actual === undefined ? null : formatEndpoint(actual),
    protocol: isTunnelled ? 'HBONE' : 'TCP',
  };
}

function versionJson(version: string): Record<string, string> {
  return {
    version,
    gitRevision: 'unknown',
    rustVersion: 'none',
    buildProfile: 'release',
    buildStatus: 'unknown',
    istioVersion: 'unknown',
    cryptoProvider: `openssl ${process.versions.openssl}`,
    nodeVersion: process.versions.node,
  };
}

function sortedByIdentity(certificates: readonly ShownCertificate[]): readonly ShownCertificate[] {
  return certificates.toSorted((a, b) => (a.identity < b.identity ? -1 : Number(a.identity > b.identity)));
}

function* mapped<T, U>(items: Iterable<T>, to: (item: T) => U): Generator<U> {
  for (const item of items) yield to(item);
}
