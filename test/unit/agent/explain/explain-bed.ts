/** A node of a small mesh, and what it says when it is asked. Routing and policy are the real ones. */
import { type ExplainDeps, NodeExplain, type PathAnswer, RecentFlows } from '../../../../src/agent/index.ts';
import type { CertificateStatus } from '../../../../src/agent/ports.ts';
import type { PodRecord } from '../../../../src/agent/reconcile.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type FlowRecord,
  type MeshUpdate,
  type NetnsCookie,
  type Pod,
  ReadModel,
  type Service,
  type SpiffeId,
  serviceName,
  type Workload,
} from '../../../../src/mesh/index.ts';
import { PolicyBook } from '../../../../src/policy/index.ts';
import type { Explanation } from '../../../../src/telemetry/index.ts';
import { type EndpointHealth, endpointsOf, likelyRoute } from '../../../../src/ztunnel/index.ts';
import { meshUpdate, service, workload } from '../../../contract/fakes/mesh.ts';
import { pod } from '../../../contract/fakes/pods.ts';
import { policy } from '../path-world.ts';

/** What a conclusion must be. */
export const ONE_SENTENCE = /^[^.?]+(\.\S[^.?]*)*\.$/;

export const NOW = 1_700_000_000_000;
export const addressOf = (text: string): Address => text as Address;

const member = (of: Service): Workload['services'] => ({ [serviceName(of)]: of.ports });

/** `shop/db` at 10.96.0.1:80, whose endpoints are db-0 (here) and db-1 (on node n2), port 8080. */
export const dbService = service({ name: 'db' });
/** On this node, enrolled. */
export const web = workload({ name: 'web-0', serviceAccount: 'web' });
export const db = workload({
  ...{ name: 'db-0', serviceAccount: 'db', addresses: [addressOf('10.0.0.2')], services: member(dbService) },
});
/** On another node. */
export const far = workload({
  ...{
    name: 'db-1',
    serviceAccount: 'db',
    addresses: [addressOf('10.0.9.2')],
    node: 'n2',
    services: member(dbService),
  },
});
/** On another node, a client. */
export const teller = workload({
  ...{ name: 'teller-0', namespace: 'bank', serviceAccount: 'teller', addresses: [addressOf('10.0.9.9')], node: 'n2' },
});
/** On this node, not enrolled. */
export const legacy = workload({ name: 'legacy-0', addresses: [addressOf('10.0.0.7')], protocol: 'tcp' });

export const webPod = pod({ uid: 'web', name: 'web-0', serviceAccount: 'web' });
export const dbPod = pod({ uid: 'db', name: 'db-0', serviceAccount: 'db', addresses: [addressOf('10.0.0.2')] });
export const [WEB, DB] = [1n, 2n] as [NetnsCookie, NetnsCookie];

export const enrolled = (of: Pod, cookie: NetnsCookie): PodRecord => ({ kind: 'enrolled', pod: of, cookie });

/** What a PeerAuthentication that says STRICT becomes. */
export const strict = policy('istio_converted_static_strict', 'deny', { notPrincipals: [{ kind: 'presence' }] });

export interface Scene {
  readonly workloads?: readonly Workload[];
  readonly services?: readonly Service[];
  readonly policies?: readonly AuthorizationPolicy[];
  readonly pods?: readonly PodRecord[];
  readonly faults?: ReadonlyArray<{ readonly name: string; readonly fault: string }>;
  readonly counts?: Readonly<Record<string, number>>;
  readonly path?: Partial<PathAnswer>;
  readonly certificates?: ReadonlyArray<Partial<CertificateStatus>>;
  readonly link?: ReturnType<ExplainDeps['link']['status']>;
  readonly flows?: readonly FlowRecord[];
  readonly health?: Readonly<Record<string, Partial<EndpointHealth>>>;
  readonly isKnown?: boolean;
}

export function explainer(scene: Scene = {}) {
  const { workloads = [web, db, far, teller, legacy], services = [dbService], policies = [] } = scene;
  const mesh = new ReadModel();
  const update: MeshUpdate = meshUpdate({ complete: true, workloads, services, policies });
  if (scene.isKnown !== false) mesh.apply(update);
  const flows = new RecentFlows();
  flows.podChanged(webPod, WEB, 'enrolled');
  flows.podChanged(dbPod, DB, 'enrolled');
  flows.add(scene.flows ?? []);
  const costs = {
    weights: ({ weights, keys }: { weights: readonly number[]; keys: readonly string[] }) =>
      weights.map((weight, index) => (scene.health?.[keys[index] ?? '']?.isEjected === true ? 0 : weight)),
    healthOf: (key: string): EndpointHealth | undefined =>
      scene.health?.[key] && { isEjected: false, failures: 0, connectMs: 1, open: 0, ...scene.health[key] },
  };
  const explain = new NodeExplain(
    {
      mesh,
      book: new PolicyBook(mesh),
      routing: {
        route: (source, destination) => likelyRoute(mesh, costs, source, destination),
        endpointsOf: (of, port, source) => endpointsOf(mesh, costs, of, port, source),
      },
      path: { answerOn: () => ({ state: 'on', may: 'not-on-node', isWritten: false, ...scene.path }) },
      certificates: { status: () => (scene.certificates ?? CERTIFICATES).map(certificate) },
      link: { status: () => scene.link ?? { connected: true, since: NOW - 60_000 } },
      flows,
    },
    { node: 'n1' },
  );
  const node = {
    pods: scene.pods ?? [enrolled(webPod, WEB), enrolled(dbPod, DB)],
    faults: scene.faults ?? [],
    counts: () => scene.counts ?? {},
    now: NOW,
  };
  return {
    pair: (from: string, to: string): Explanation => explain.pair({ from, to }, node),
    flow: (id: string): Explanation => explain.flow(id, NOW),
  };
}

const CERTIFICATES: ReadonlyArray<Partial<CertificateStatus>> = [
  { identity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId },
  { identity: 'spiffe://cluster.local/ns/shop/sa/db' as SpiffeId },
];

function certificate(changes: Partial<CertificateStatus>): CertificateStatus {
  return {
    identity: 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId,
    ...{ state: 'available', notBefore: NOW - 1_000, notAfter: NOW + 12 * 3_600_000 },
    ...{ chain: undefined, roots: [], lastError: undefined },
    ...changes,
  };
}

/** The steps of a topic, their details included, as one text. */
export function said({ steps }: Explanation, topic: string): string {
  return steps
    .filter((step) => step.topic === topic)
    .flatMap(({ state, text, details }) => [`[${state}] ${text}`, ...details])
    .join('\n');
}
