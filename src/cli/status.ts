import { callAgent, runDirectory, type StatusReply } from '../agent/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { table } from './table.ts';

/** `culvert status`: what the agent of this node does. */
export async function status(options: { run: string; json: boolean }, output: Output): Promise<ExitCode> {
  const reply = await callAgent<'status'>({ method: 'status' }, { path: runDirectory(options.run).socket });
  output.out(options.json ? `${JSON.stringify(reply.status, undefined, 2)}\n` : formatStatus(reply.status));
  return exitCode.ok;
}

/** The tables for people. */
export function formatStatus(status: StatusReply): string {
  const { agent, pods, workers, descriptors, totals, unclaimed } = status;
  const parts = [
    `agent ${agent.version}, process ${agent.pid}, ${agent.state}, started ${agent.startedAt}\n`,
    pods.length === 0
      ? 'no pod is enrolled\n'
      : table(
          ['NAMESPACE', 'POD', 'PATH', 'CONNECTIONS', 'ADDRESSES', 'NETNS'],
          pods.map((pod) => [
            pod.namespace,
            pod.name,
            pod.path,
            String(pod.openConnections),
            pod.addresses.join(','),
            pod.error === undefined ? pod.netns : `${pod.netns}  (${pod.error})`,
          ]),
        ),
    table(
      ['WORKER', 'STATE', 'CONNECTIONS', 'RESTARTS', 'ACCEPT STOPS', 'DELAY P99'],
      workers.map((worker) => [
        String(worker.slot),
        worker.state,
        String(worker.openConnections),
        String(worker.restarts),
        String(worker.descriptorStops),
        `${worker.eventLoopDelayMs.p99.toFixed(1)} ms`,
      ]),
    ),
    `connections: ${totals.accepted} accepted, ${totals.closed} closed, ${totals.failed} not dialled, ${totals.unattributed} without a destination\n` +
      `bytes of closed connections: ${totals.bytesFromClients} from clients, ${totals.bytesFromServers} from servers\n` +
      `${formatPaths(status)}\n` +
      `descriptors: ${descriptors.open} of ${descriptors.limit}\n`,
    ...formatMesh(status.mesh),
    ...formatKernelPath(status.kernelPath),
  ];
  const uncaptured = pods.flatMap(uncapturedLine);
  if (uncaptured.length > 0) parts.push(uncaptured.join(''));
  if (unclaimed.length > 0) {
    parts.push(
      `refused: ${counted(unclaimed.length, 'pod')} captured by an earlier agent and not enrolled again (netns cookies ${unclaimed.join(', ')})\n`,
    );
  }
  return parts.join('\n');
}

function formatPaths({ paths: { outbound, inbound }, sessions }: StatusReply): string {
  const to = `outbound ${outbound.tunnel} tunnel, ${outbound.plain} plain, ${outbound.passthrough} passed through`;
  const from = `inbound ${inbound.tunnel} tunnel, ${inbound.plain} plain`;
  const { open, opened, handshakesFailed } = sessions;
  return `paths: ${to}; ${from}; sessions: ${open} open, ${opened} opened, ${counted(handshakesFailed, 'handshake')} failed`;
}

function counted(count: number, noun: string): string {
  return many(count, noun, `${noun}s`);
}

function many(count: number, one: string, several: string): string {
  return `${count} ${count === 1 ? one : several}`;
}

function formatMesh(mesh: StatusReply['mesh']): string[] {
  if (mesh === null) return ['mesh: none; without --node and --control connections are only relayed\n'];
  const { node, connected, since, reason, lastUpdate, workloads, services, policies, certificates } = mesh;
  const known =
    lastUpdate === undefined
      ? 'nothing is known of the mesh yet'
      : `${counted(workloads, 'workload')}, ${counted(services, 'service')} and ${many(policies, 'policy', 'policies')}, last update ${lastUpdate}`;
  const unknown = mesh.unknownPolicies.map(
    (policy) => `policy ${policy} is not known, so pods of this node that it is for let nobody in\n`,
  );
  const partial = mesh.partialPolicies.map(
    (policy) =>
      `policy ${policy} denies more, or allows less, than is written in it: culvert policy check tells what of it\n`,
  );
  const link = connected ? `connected since ${since}` : `not connected since ${since} (${reason})`;
  return [
    `mesh: node ${node}, ${link}\n${known}\n${unknown.join('')}${partial.join('')}`,
    certificates.length === 0
      ? 'no identity of this node needs a certificate\n'
      : table(
          ['IDENTITY', 'CERTIFICATE', 'EXPIRES', 'LAST FAILURE'],
          certificates.map((each) => [each.identity, each.state, each.expires ?? '-', each.lastError ?? '']),
        ),
  ];
}

function formatKernelPath(path: StatusReply['kernelPath']): string[] {
  if (path === null) return [];
  const { state, error, verdicts, services, flows, heartbeats, kubelet } = path;
  const why = error === undefined ? '' : ` (${error})`;
  const found = kubelet === null ? 'not found, so policy decides about its probes' : kubelet;
  return [
    `kernel path: ${state}${why}; ${counted(verdicts, 'verdict')}, ${counted(services, 'service')}, ${counted(flows, 'flow')} open, ${counted(heartbeats, 'heartbeat')}
` +
      `kubelet's cgroup: ${found}
`,
  ];
}

/** Reasons of docs/kernel.md for traffic that went past the agent without anybody having asked for it. */
const uncapturedReasons = ['nested_netns', 'raw_socket', 'rerouted'] as const;

function uncapturedLine({ namespace, name, kernelEvents }: StatusReply['pods'][number]): string[] {
  const seen = uncapturedReasons.flatMap((reason) => {
    const count = kernelEvents[reason] ?? 0;
    return count === 0 ? [] : [`${reason} ${count}`];
  });
  return seen.length === 0 ? [] : [`uncaptured: ${namespace}/${name}: ${seen.join(', ')}\n`];
}
