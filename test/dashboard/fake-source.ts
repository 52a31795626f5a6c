import type { Address, FlowPath, SpiffeId } from '../../src/mesh/index.ts';
import type {
  DashboardSource,
  EdgeDetails,
  Explanation,
  FlowPage,
  FlowView,
  MapEdge,
  MapNode,
  MapView,
  NodeView,
  Overview,
  OverviewSample,
  PodView,
  PolicyView,
} from '../../src/telemetry/index.ts';

import { CALLS, chance, edgeOf, SERVICES, shopNodes } from './fake-shop.ts';

export interface FakeSourceOptions {
  readonly pods?: number;
  readonly edges?: number;
  /** No traffic, no pods, nothing. */
  readonly isEmpty?: boolean;
}

const SAMPLE_MS = 5_000;
const HOUR_OF_SAMPLES = 720;
const PATHS: readonly FlowPath[] = ['kernel', 'tunnel', 'plain', 'passthrough'];

/** A node with a life of its own: `advance` lets 5 seconds pass. */
export class FakeSource implements DashboardSource {
  readonly #options: FakeSourceOptions;
  readonly #next = chance(7);
  readonly #nodes: MapNode[];
  readonly #edges: MapEdge[];
  readonly #samples: OverviewSample[] = [];
  #flows: FlowView[] = [];
  #now = Date.now() - HOUR_OF_SAMPLES * SAMPLE_MS;
  #round = 0;
  alerts: Overview['alerts'] = [
    {
      severity: 'critical',
      text: 'The certificate of payments/ledger expires in 34 min, and its renewal fails: no answer',
    },
    { severity: 'warning', text: '1 pod is not served: shop/catalog-5d9f-x2kqp, its connections are refused' },
  ];
  asked: string[] = [];

  constructor(options: FakeSourceOptions = {}) {
    this.#options = options;
    const isLarge = (options.edges ?? 0) > 0;
    this.#nodes = options.isEmpty === true ? [] : isLarge ? this.#manyNodes() : shopNodes();
    this.#edges = options.isEmpty === true ? [] : isLarge ? this.#manyEdges() : this.#shopEdges();
    if (options.isEmpty === true) this.alerts = [];
    else for (let at = 0; at < HOUR_OF_SAMPLES; at += 1) this.advance();
  }

  /** What another 5 seconds bring. */
  advance(): void {
    this.#now += SAMPLE_MS;
    this.#round += 1;
    const wave = 1 + 0.35 * Math.sin(this.#round / 40) + 0.12 * this.#next();
    const isStorm = this.#round % 300 > 270;
    this.#samples.push({
      at: this.#now,
      opened: { kernel: 210 * wave, tunnel: 84 * wave, plain: 31 * wave, passthrough: 6 * this.#next() },
      open: Math.round(412 * wave),
      failed: isStorm ? 4 * this.#next() : 0.2 * Math.round(this.#next()),
      denied: isStorm ? 0 : 0.6 * Math.round(this.#next() * 0.7),
      bytesSent: 2_700_000 * wave,
      bytesReceived: 8_100_000 * wave + 900_000 * this.#next(),
      connectP50Ms: 0.42 * wave,
      connectP99Ms: (isStorm ? 48 : 3.1) * wave * (1 + 0.3 * this.#next()),
    });
    this.#samples.splice(0, this.#samples.length - HOUR_OF_SAMPLES);
    for (let at = 0; at < 3; at += 1) this.#flows.push(this.#makeFlow(this.#flows.length + 1));
  }

  overview(): Overview {
    this.asked.push('overview');
    return {
      node: 'node-a',
      version: '0.1.0',
      state: 'serving',
      startedAt: Date.now() - 3 * 86_400_000,
      pods: { enrolled: this.pods().length, notServed: this.#options.isEmpty === true ? 0 : 1 },
      control: { connected: true, since: Date.now() - 86_400_000 },
      alerts: this.alerts,
      samples: this.#samples,
    };
  }

  map(): MapView {
    this.asked.push('map');
    return { nodes: this.#nodes, edges: this.#edges, isCut: false };
  }

  /** Makes an edge fail, or be well again. */
  setEdge(id: string, change: Partial<MapEdge>): void {
    const at = this.#edges.findIndex((edge) => edge.id === id);
    const edge = this.#edges[at];
    if (edge !== undefined) this.#edges[at] = { ...edge, ...change };
  }

  edge(id: string): EdgeDetails | undefined {
    const edge = this.#edges.find((each) => each.id === id);
    const from = this.#nodes.find((node) => node.id === edge?.from);
    const to = this.#nodes.find((node) => node.id === edge?.to);
    if (edge === undefined || from === undefined || to === undefined) return undefined;
    return {
      edge,
      from,
      to,
      ended:
        edge.health === 'bad'
          ? { 'policy-denied': 412 }
          : { clean: 18_240, 'server-reset': 31, 'connect-timed-out': 4 },
      paths: edge.security === 'kernel' ? { kernel: 17_904, tunnel: 371 } : { tunnel: 18_275 },
      identities: [
        {
          source: `spiffe://cluster.local/ns/${from.namespace}/sa/${from.name}`,
          destination: `spiffe://cluster.local/ns/${to.namespace}/sa/${to.name}`,
          count: 18_275,
        },
      ],
      flows: this.#flows.slice(-8).reverse(),
    };
  }

  pods(): readonly PodView[] {
    if (this.#options.isEmpty === true) return [];
    const next = chance(3);
    const templates = SERVICES.filter(([, , isHere]) => isHere);
    return Array.from({ length: this.#options.pods ?? 24 }, (_, at): PodView => {
      const [namespace, name] = templates[at % templates.length] ?? ['shop', 'web'];
      const isBroken = at === 5;
      return {
        uid: `uid-${at}`,
        name: `${name}-${(next() * 1e9).toString(36).slice(0, 5)}-${at}`,
        namespace,
        addresses: [`10.1.${Math.floor(at / 200)}.${(at % 200) + 2}`],
        state: isBroken ? 'failed' : 'enrolled',
        ...(isBroken ? { error: 'the namespace cannot be opened' } : {}),
        identity: `spiffe://cluster.local/ns/${namespace}/sa/${name}`,
        openConnections: Math.round(next() * 60),
        openedPerSecond: next() * 22,
        bytesPerSecond: next() ** 3 * 4_000_000,
        failedPerSecond: at % 9 === 4 ? next() : 0,
        uncaptured: at % 7 === 2 ? { udp: 412, 'excluded-outbound': 12 } : {},
      };
    });
  }

  flows({ after, limit, pod, from, to, verdict }: Parameters<DashboardSource['flows']>[0]): FlowPage {
    this.asked.push(`flows ${JSON.stringify({ after, pod, from, to, verdict })}`);
    const isWanted = (flow: FlowView): boolean =>
      flow.sequence > after &&
      (pod === undefined || `${flow.podNamespace}/${flow.podName}`.includes(pod)) &&
      (from === undefined || `${flow.source?.namespace}/${flow.source?.workload}`.includes(from)) &&
      (to === undefined || (flow.service?.hostname ?? '').includes(to)) &&
      (verdict === undefined ||
        (verdict === 'denied' ? flow.decision?.allowed === false : (flow.ended === 'clean') === (verdict === 'clean')));
    const found = this.#flows.filter(isWanted);
    return { flows: found.slice(-limit), next: this.#flows.length, missed: 0 };
  }

  policies(): readonly PolicyView[] {
    if (this.#options.isEmpty === true) return [];
    const policy = (name: string, namespace: string, rest: Partial<PolicyView>): PolicyView => ({
      ...{ name, namespace, action: 'allow', scope: 'namespace', dryRun: false, allowed: 0, denied: 0, wouldDeny: 0 },
      ...rest,
    });
    return [
      policy('web-to-cart', 'shop', {
        scope: 'workload',
        allowed: 182_402,
        denied: 3,
        lastDenied: Date.now() - 7_200_000,
      }),
      policy('ledger-callers', 'payments', {
        scope: 'workload',
        allowed: 40_112,
        denied: 412,
        lastDenied: Date.now() - 4_000,
      }),
      policy('deny-debug-ports', 'shop', { action: 'deny', denied: 12, lastDenied: Date.now() - 640_000 }),
      policy('strict-mtls', 'payments', { action: 'deny', scope: 'namespace' }),
      policy('tighten-catalog', 'shop', { dryRun: true, wouldDeny: 1_204, scope: 'workload' }),
      policy('by-path', 'shop', { allowed: 912, condition: 'rules about HTTP paths need a waypoint; they deny here' }),
      policy('default-deny', 'data', { allowed: 0, denied: 0 }),
    ];
  }

  node(): NodeView {
    const isEmpty = this.#options.isEmpty === true;
    return {
      workers: [
        { slot: 0, state: 'serving', openConnections: 212, delayP99Ms: 1.24, cpuShare: 0.38 + 0.02 * this.#next() },
        { slot: 1, state: 'serving', openConnections: 198, delayP99Ms: 14.8, cpuShare: 0.41 },
      ],
      namespaces: isEmpty
        ? []
        : [
            {
              namespace: 'shop',
              cpuSeconds: 812.4,
              memoryBytes: 41_200_000,
              bytes: 812_000_000_000,
              connections: 18_204_112,
            },
            {
              namespace: 'payments',
              cpuSeconds: 211.9,
              memoryBytes: 12_100_000,
              bytes: 9_100_000_000,
              connections: 2_110_482,
            },
            {
              namespace: 'data',
              cpuSeconds: 96.2,
              memoryBytes: 8_300_000,
              bytes: 112_000_000_000,
              connections: 310_229,
            },
            { namespace: 'edge', cpuSeconds: 31.5, memoryBytes: 2_900_000, bytes: 4_700_000_000, connections: 92_018 },
          ],
      maps: [
        { name: 'pods', entries: 24, capacity: 1_024 },
        { name: 'verdicts', entries: 4_812, capacity: 65_536 },
        { name: 'flows', entries: 51_201, capacity: 65_536 },
        { name: 'services', entries: 212, capacity: 16_384 },
        { name: 'handovers', entries: 3, capacity: 65_536 },
      ],
      programs: ['connect4', 'connect6', 'getpeername4', 'getpeername6', 'sockops', 'bind4', 'bind6'].map((name) => ({
        name,
        state: 'attached',
      })),
      certificates: isEmpty
        ? []
        : [
            { identity: 'spiffe://cluster.local/ns/shop/sa/web', state: 'available', expires: Date.now() + 71_000_000 },
            { identity: 'spiffe://cluster.local/ns/shop/sa/cart', state: 'renewing', expires: Date.now() + 42_000_000 },
            {
              identity: 'spiffe://cluster.local/ns/payments/sa/ledger',
              state: 'available',
              expires: Date.now() + 2_040_000,
              lastError: 'the control process does not answer',
            },
          ],
      memoryBytes: 118_000_000,
      descriptors: { open: 1_204, limit: 1_048_576 },
    };
  }

  explain(question: Parameters<DashboardSource['explain']>[0]): Explanation {
    this.asked.push(`explain ${JSON.stringify(question)}`);
    const flow = 'flow' in question ? this.#flows.find(({ id }) => id === question.flow) : undefined;
    if ('flow' in question && flow === undefined) throw new Error('this flow is not kept any more');
    const connects = flow === undefined || flow.ended === 'clean';
    return {
      connects,
      steps: [
        {
          topic: 'source',
          state: 'good',
          text: 'shop/web-1 is a pod of this node and in the mesh',
          details: ['identity spiffe://cluster.local/ns/shop/sa/web'],
        },
        { topic: 'capture', state: 'good', text: 'its connections are captured', details: [] },
        {
          topic: 'route',
          state: 'good',
          text: 'cart.shop.svc.cluster.local:80 leads to 3 endpoints, 1 of them on this node',
          details: [
            '10.1.0.7:8080 healthy, this node',
            '10.2.0.4:8080 healthy',
            '10.2.0.9:8080 ejected 12 s ago: 5 failures in a row',
          ],
        },
        { topic: 'waypoint', state: 'note', text: 'none', details: [] },
        connects
          ? { topic: 'policy', state: 'good', text: 'allowed by shop/web-to-cart, rule 1', details: [] }
          : {
              topic: 'policy',
              state: 'bad',
              text: 'payments/ledger-callers allows payments/gateway only',
              details: ['would have had to match: principals cluster.local/ns/payments/sa/gateway'],
            },
        {
          topic: 'flows',
          state: 'unknown',
          text: 'no connection of the last 10 minutes tells of the certificate',
          details: [],
        },
      ],
      conclusion: connects
        ? 'It would connect over the kernel path, allowed by shop/web-to-cart.'
        : 'It is denied: payments/ledger-callers lets nobody in but payments/gateway.',
    };
  }

  #makeFlow(sequence: number): FlowView {
    const next = this.#next;
    const [from, to] = CALLS[1 + Math.floor(next() * 12)] ?? ['shop/web', 'shop/cart'];
    const [sourceNamespace = '', sourceName = ''] = from.split('/');
    const [namespace = '', name = ''] = to.split('/');
    const isDenied = to === 'payments/ledger' && sourceNamespace === 'shop';
    const isFailed = !isDenied && next() < 0.06;
    const path = PATHS[Math.floor(next() ** 2 * 4)] ?? 'kernel';
    const party = (ns: string, service: string) => ({
      ...{ workload: `${service}-7f9c-${sequence % 4}`, namespace: ns, cluster: 'Kubernetes', workloadName: service },
      ...{ canonicalName: service, canonicalRevision: 'latest', region: undefined, zone: undefined },
      identity: `spiffe://cluster.local/ns/${ns}/sa/${service}` as SpiffeId,
    });
    return {
      id: sequence.toString(16).padStart(32, '0'),
      sequence,
      podUid: `uid-${sequence % 24}`,
      podName: `${sourceName}-7f9c-${sequence % 4}`,
      podNamespace: sourceNamespace,
      direction: 'outbound',
      path,
      client: { address: '10.1.0.4' as Address, port: 40_000 + (sequence % 20_000) },
      asked: { address: '10.96.0.12' as Address, port: 80 },
      server: { address: '10.1.0.7' as Address, port: 8080 },
      dialled: { address: '10.1.0.7' as Address, port: 8080 },
      authority: undefined,
      source: party(sourceNamespace, sourceName),
      destination: party(namespace, name),
      sourceIdentity: `spiffe://cluster.local/ns/${sourceNamespace}/sa/${sourceName}` as SpiffeId,
      destinationIdentity: `spiffe://cluster.local/ns/${namespace}/sa/${name}` as SpiffeId,
      service: { name, namespace, hostname: `${name}.${namespace}.svc.cluster.local` },
      waypoint: undefined,
      security: path === 'kernel' ? 'kernel' : path === 'tunnel' ? 'mutual_tls' : 'none',
      stage: isDenied || isFailed ? 'addressed' : 'connected',
      endedAt: this.#now,
      durationMs: next() ** 4 * 60_000 + 2,
      ended: isDenied ? 'policy-denied' : isFailed ? 'connect-timed-out' : 'clean',
      error: isFailed ? 'no answer from 10.1.0.7:8080 within 5 s' : undefined,
      decision: {
        allowed: !isDenied,
        reason: isDenied ? 'not-allowed' : 'allowed',
        policy: isDenied ? 'payments/ledger-callers' : 'shop/web-to-cart',
        text: isDenied ? 'no rule of payments/ledger-callers matches' : 'rule 1 of shop/web-to-cart matches',
      },
      dryRun: sequence % 11 === 0 ? [{ policy: 'shop/tighten-catalog', would: 'deny' }] : [],
      attempts: 1,
      bytesSent: Math.round(next() ** 3 * 90_000),
      bytesReceived: Math.round(next() ** 3 * 2_900_000),
      connectMs: 0.4,
      firstByteMs: 1.2,
      roundTripUs: 210,
      retransmits: 0,
      kind: undefined,
    };
  }

  #shopEdges(): MapEdge[] {
    return CALLS.map(([from, to, bytes, kind]) => edgeOf(from, to, bytes, kind));
  }

  #manyNodes(): MapNode[] {
    return Array.from({ length: this.#options.pods ?? 250 }, (_, at): MapNode => {
      const namespace = `team-${at % 17}`;
      return {
        id: `${namespace}/service-${at}`,
        name: `service-${at}`,
        namespace,
        kind: 'service',
        isHere: at % 3 === 0,
      };
    });
  }

  #manyEdges(): MapEdge[] {
    const edges = new Map<string, MapEdge>();
    while (edges.size < (this.#options.edges ?? 0)) {
      const from = this.#nodes[Math.floor(this.#next() ** 2 * this.#nodes.length)];
      const to = this.#nodes[Math.floor(this.#next() * this.#nodes.length)];
      if (from === undefined || to === undefined || from === to) continue;
      const kind =
        this.#next() < 0.02 ? 'bad' : this.#next() < 0.05 ? 'degraded' : this.#next() < 0.5 ? 'kernel' : 'tunnel';
      const made = edgeOf(from.id, to.id, this.#next() ** 6 * 9_000_000, kind);
      edges.set(made.id, made);
    }
    return [...edges.values()];
  }
}
