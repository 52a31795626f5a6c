/** Joins what the agent's main thread knows and decides of the mesh. */
import { join, resolve } from 'node:path';
import {
  type ExplainRouting,
  KernelPath,
  type MeshSource,
  type NodeCertificates,
  NodeExplain,
  NodeMesh,
  NodePolicy,
  type PathKernel,
  type PathRouting,
  type PathSeriesBook,
  RecentFlows,
  SeriesJournal,
  type SeriesJournalOptions,
  systemClock,
  systemDirectories,
} from '../agent/index.ts';
import { ControlClient } from '../control/index.ts';
import { CertificateStore, systemClock as timer } from '../identity/index.ts';
import { findControlGroup, type Kernel } from '../kernel/index.ts';
import { type FlowSink, ReadModel } from '../mesh/index.ts';
import { PolicyBook } from '../policy/index.ts';
import { FlowFan, type LabelOptions, type Log } from '../telemetry/index.ts';
import {
  backendsOf,
  directTo,
  type EndpointCosts,
  endpointsOf,
  isChosenFreely,
  likelyRoute,
  type TunnelWorkers,
} from '../ztunnel/index.ts';

export interface MeshOptions {
  /** This node's name. */
  readonly node: string;
  /** Path of the node's socket of the control process; a relative one is resolved against the working directory. */
  readonly control: string;
  /** Seconds, as all that follow. A session of the pool may be idle for so long. */
  readonly poolIdle: number;
  /** PING after so much silence. */
  readonly pingInterval: number;
  /** No answer to it in time: the peer is gone. */
  readonly pingTimeout: number;
  /** False: every connection goes through the tunnel. */
  readonly kernelPath: boolean;
  /** The kubelet's control group. Default: where systemd usually has it. */
  readonly kubeletCgroup: string | undefined;
  /** Connections that are remembered of each pod. */
  readonly flowsPerPod: number;
}

/** Where systemd has the kubelet, below the mount of cgroup v2: of kubeadm and most distributions; of kind; of managed clusters. */
const KUBELET_GROUPS = [
  'system.slice/kubelet.service',
  'kubelet.slice/kubelet.service',
  'runtime.slice/kubelet.service',
  'podruntime.slice/kubelet.service',
];

export interface JoinedMesh {
  readonly mesh: NodeMesh;
  /** The main thread's; `mesh` alone writes it. */
  readonly model: ReadModel;
  readonly source: ControlClient;
  readonly certificates: CertificateStore;
  readonly kernelPath: KernelPath;
  readonly policy: NodePolicy;
  readonly flows: RecentFlows;
  readonly explain: NodeExplain;
}

interface MeshRooms {
  readonly kernel: Kernel;
  readonly tunnel: TunnelWorkers;
  readonly log: Log;
  /** Is told of connections on the kernel path that have ended, beside those whom `JoinedMesh` has. */
  readonly flows: FlowSink;
  readonly series: PathSeriesBook;
}

/** How the kernel path is counted. */
interface CountOptions extends LabelOptions {
  /** Mount of cgroup v2, below which the kubelet is looked for. */
  readonly cgroup: string;
  readonly journal: SeriesJournalOptions;
  readonly seriesIdleSeconds: number;
}

/** Why what is at the path cannot be the kubelet's group; undefined: it may be, if not today. */
export function kubeletFault(path: string): string | undefined {
  if (findControlGroup(path)?.level !== 0) return undefined;
  return `${path} is the root of all control groups, so every process would count as the kubelet; give its service's group`;
}

/** The control process, the certificates of this node, policy, the kernel path, and the tunnel. */
export function joinMesh(
  { kernel, tunnel, log, flows: told, series }: MeshRooms,
  options: MeshOptions,
  { cgroup, journal, kernelPathAs, seriesIdleSeconds }: CountOptions,
): JoinedMesh {
  const { node, control } = options;
  const directories = systemDirectories(log);
  const model = new ReadModel();
  const book = new PolicyBook(model);
  const flows = new RecentFlows({ perPod: options.flowsPerPod });
  const kernelPath: KernelPath = new KernelPath(
    {
      kernel: kernel satisfies PathKernel,
      model,
      book,
      routing: routingOf(tunnel, model),
      flows: new FlowFan({ log }, [flows, told]),
      series: { book: series, journal: new SeriesJournal({ log }, journal) },
      groups: { find: findControlGroup },
      directories,
      clock: systemClock,
      log,
    },
    {
      node,
      isOn: options.kernelPath,
      kubeletPaths:
        options.kubeletCgroup === undefined
          ? KUBELET_GROUPS.map((each) => join(cgroup, each))
          : [resolve(options.kubeletCgroup)],
      kernelPathAs,
      seriesIdleSeconds,
    },
  );
  // Absolute, so that the log tells where it was looked for.
  const source = new ControlClient({ log, clock: timer, directories }, { path: resolve(control), node });
  const certificates = new CertificateStore({ authority: source, clock: timer, log });
  const mesh = new NodeMesh(
    {
      source: source satisfies MeshSource,
      certificates: certificates satisfies NodeCertificates,
      tunnel,
      model,
      kernelPath,
      clock: systemClock,
      log,
    },
    { node },
  );
  const explain = new NodeExplain(
    { mesh: model, book, routing: foresightOf(tunnel, model), path: kernelPath, certificates, link: source, flows },
    { node },
  );
  const policy = new NodePolicy({ mesh: model, book, flows });
  return { mesh, model, source, certificates, kernelPath, policy, flows, explain };
}

/** The same for those who only ask: nothing is counted. */
function foresightOf(tunnel: TunnelWorkers, model: ReadModel): ExplainRouting {
  const costs = tunnel.endpointCosts ?? NO_COSTS;
  return {
    route: (source, destination) => likelyRoute(model, costs, source, destination),
    endpointsOf: (service, port, source) => endpointsOf(model, costs, service, port, source),
  };
}

/** Nobody has connected anywhere. */
const NO_COSTS: Pick<EndpointCosts, 'weights' | 'healthOf'> = {
  weights: ({ weights }) => weights,
  healthOf: () => undefined,
};

/** The tunnel's own routing over the main thread's model. */
function routingOf(tunnel: TunnelWorkers, model: ReadModel): PathRouting {
  return {
    directTo: (source, destination) => directTo(model, source, destination),
    backendsOf: (service, port, family, source) =>
      tunnel.endpointCosts && backendsOf(model, tunnel.endpointCosts, service, port, family, source),
    isChosenFreely,
    activity: () => tunnel.status().totals.accepted,
  };
}
