/** Joins what the agent's main thread knows and decides of the mesh. */
import { join, resolve } from 'node:path';
import {
  KernelPath,
  type MeshSource,
  type NodeCertificates,
  NodeMesh,
  NodePolicy,
  type PathKernel,
  type PathRouting,
  RecentFlows,
  systemClock,
  systemDirectories,
} from '../agent/index.ts';
import { ControlClient } from '../control/index.ts';
import { CertificateStore, systemClock as timer } from '../identity/index.ts';
import { findControlGroup, type Kernel } from '../kernel/index.ts';
import { ReadModel } from '../mesh/index.ts';
import { PolicyBook } from '../policy/index.ts';
import type { Log } from '../telemetry/index.ts';
import { backendsOf, directTo, isChosenFreely, type TunnelWorkers } from '../ztunnel/index.ts';

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
}

/** Where systemd has the kubelet, below the mount of cgroup v2: of kubeadm and most distributions; of kind; of managed clusters. */
const KUBELET_GROUPS = [
  'system.slice/kubelet.service',
  'kubelet.slice/kubelet.service',
  'runtime.slice/kubelet.service',
  'podruntime.slice/kubelet.service',
];

interface JoinedMesh {
  readonly mesh: NodeMesh;
  readonly kernelPath: KernelPath;
  readonly policy: NodePolicy;
  readonly flows: RecentFlows;
}

interface MeshRooms {
  readonly kernel: Kernel;
  readonly tunnel: TunnelWorkers;
  readonly log: Log;
}

/** Why what is at the path cannot be the kubelet's group; undefined: it may be, if not today. */
export function kubeletFault(path: string): string | undefined {
  if (findControlGroup(path)?.level !== 0) return undefined;
  return `${path} is the root of all control groups, so every process would count as the kubelet; give its service's group`;
}

/**
 * The control process, the certificates of this node, policy, the kernel path, and the tunnel.
 *
 * @param cgroup mount of cgroup v2, below which the kubelet is looked for
 */
export function joinMesh(
  { kernel, tunnel, log }: MeshRooms,
  options: MeshOptions,
  { cgroup, logsConnections }: { cgroup: string; logsConnections: boolean },
): JoinedMesh {
  const { node, control } = options;
  const directories = systemDirectories(log);
  const model = new ReadModel();
  const book = new PolicyBook(model);
  const flows = new RecentFlows({ isKnown: (pod) => kernelPath.serves(pod) });
  const kernelPath: KernelPath = new KernelPath(
    {
      kernel: kernel satisfies PathKernel,
      model,
      book,
      routing: routingOf(tunnel, model),
      memory: flows,
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
      logsConnections,
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
  return { mesh, kernelPath, policy: new NodePolicy({ mesh: model, book, flows }), flows };
}

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
