/** The numbers of an agent's status, as tables and lines of at most some 100 columns. */
import type { StatusReply } from '../agent/index.ts';
import { table } from './table.ts';
import { counted, lasting, shortened, shortTime } from './words.ts';

/** Rows of a table that has one for each pod or certificate, unless all are asked for. */
const MOST_ROWS = 10;
const POD_WIDTH = 56;
const IDENTITY_WIDTH = 64;

export function headLine({ agent, node }: StatusReply): string {
  const up = node === null ? '' : `, up ${lasting(node.uptime)}`;
  const level = node === null ? '' : `, log level ${node.logLevel}`;
  return `agent ${agent.version}, ${agent.state}${up} (since ${shortTime(agent.startedAt)}), process ${agent.pid}${level}\n`;
}

export function meshLines({ mesh }: StatusReply): string {
  if (mesh === null) return 'mesh: none; without --node and --control connections are only relayed\n';
  const { node, connected, since, lastUpdate, workloads, services, policies } = mesh;
  const link = `${connected ? 'connected' : 'not connected'} since ${shortTime(since)}`;
  const known =
    lastUpdate === undefined
      ? 'nothing is known of the mesh yet'
      : `${counted(workloads, 'workload')}, ${counted(services, 'service')} and ${counted(policies, 'policy', 'policies')}, last update ${shortTime(lastUpdate)}`;
  return `mesh: node ${node}, ${link}\n      ${known}\n`;
}

export function podLine({ pods }: StatusReply): string {
  if (pods.length === 0) return 'no pod is enrolled\n';
  const states = Map.groupBy(pods, ({ path }) => path);
  const counts = ['enrolled', 'enrolling', 'failed', 'withdrawing'] as const;
  const texts = counts.flatMap((state) => {
    const count = states.get(state)?.length ?? 0;
    return count === 0 ? [] : [`${count} ${state}`];
  });
  const open = pods.reduce((sum, { openConnections }) => sum + openConnections, 0);
  return `pods: ${texts.join(', ')}; ${counted(open, 'connection')} open through the tunnel\n`;
}

export function podTable({ pods }: StatusReply): string {
  if (pods.length === 0) return '';
  return table(
    ['POD', 'STATE', 'CONNECTIONS', 'ADDRESSES'],
    pods.map(({ namespace, name, path, openConnections, addresses }) => [
      shortened(`${namespace}/${name}`, POD_WIDTH),
      path,
      String(openConnections),
      addresses.join(','),
    ]),
  );
}

export function uncapturedTable({ pods }: StatusReply, all: boolean): string {
  const found = pods
    .map(({ namespace, name, uncaptured }) => ({ pod: `${namespace}/${name}`, counts: Object.entries(uncaptured) }))
    .filter(({ counts }) => counts.length > 0)
    .map((each) => ({ ...each, total: each.counts.reduce((sum, [, count]) => sum + count, 0) }))
    .sort((a, b) => b.total - a.total);
  if (found.length === 0) return '';
  return limited(
    ['UNCAPTURED', 'TIMES', 'WHY'],
    found.map(({ pod, counts, total }) => [
      shortened(pod, POD_WIDTH),
      String(total),
      counts.map(([reason, count]) => `${reason} ${count}`).join(', '),
    ]),
    all,
  );
}

export function certificateTable({ mesh }: StatusReply, now: number, all: boolean): string {
  if (mesh === null) return '';
  const { certificates } = mesh;
  if (certificates.length === 0) return 'no identity of this node needs a certificate\n';
  const soonest = certificates.toSorted((a, b) => expiry(a.expires) - expiry(b.expires));
  return limited(
    ['CERTIFICATE', 'STATE', 'EXPIRES'],
    soonest.map(({ identity, state, expires }) => [
      shortened(identity, IDENTITY_WIDTH),
      state,
      expires === undefined ? '-' : `in ${lasting((Date.parse(expires) - now) / 1000)}`,
    ]),
    all,
  );
}

/** None at all before all others. */
function expiry(expires: string | undefined): number {
  return expires === undefined ? 0 : Date.parse(expires);
}

export function workerTable({ workers }: StatusReply): string {
  return table(
    ['WORKER', 'STATE', 'CONNECTIONS', 'RESTARTS', 'ACCEPT STOPS', 'DELAY P50', 'P99', 'MOST'],
    workers.map(({ slot, state, openConnections, restarts, descriptorStops, eventLoopDelayMs: { p50, p99, max } }) => [
      ...[String(slot), state, String(openConnections), String(restarts), String(descriptorStops)],
      ...[p50, p99, max].map((ms) => `${ms.toFixed(1)} ms`),
    ]),
  );
}

export function connectionLines({ totals, paths, sessions, descriptors }: StatusReply): string {
  const { outbound, inbound } = paths;
  return [
    `connections: ${totals.accepted} accepted, ${totals.closed} closed, ${totals.failed} not dialled, ${totals.unattributed} without a destination`,
    `bytes of closed connections: ${totals.bytesFromClients} from clients, ${totals.bytesFromServers} from servers`,
    `outbound: ${outbound.tunnel} tunnel, ${outbound.plain} plain, ${outbound.passthrough} passed through; inbound: ${inbound.tunnel} tunnel, ${inbound.plain} plain`,
    `sessions: ${sessions.open} open, ${sessions.opened} opened, ${counted(sessions.handshakesFailed, 'handshake')} failed`,
    `descriptors: ${descriptors.open} of ${descriptors.limit}`,
    '',
  ].join('\n');
}

export function kernelLines({ kernelPath, node }: StatusReply): string {
  const lines: string[] = [];
  if (kernelPath !== null) {
    const { state, verdicts, services, flows, heartbeats, kubelet } = kernelPath;
    lines.push(
      `kernel path: ${state}; ${counted(verdicts, 'verdict')}, ${counted(services, 'service')}, ${counted(flows, 'flow')} open, ${counted(heartbeats, 'heartbeat')}`,
      `kubelet's cgroup: ${kubelet ?? 'not found, so policy decides about its probes'}`,
    );
  }
  if (node !== null) {
    const { programs, maps } = node.kernel;
    const running = programs.filter(({ state }) => state === 'running').length;
    lines.push(
      `kernel: preflight ${node.preflight.result}; ${running} of ${counted(programs.length, 'program')} running`,
    );
    const used = maps.filter(({ entries }) => entries > 0);
    if (used.length > 0)
      lines.push(
        columns(
          'maps: ',
          used.map(({ name, entries, capacity }) => `${name} ${entries}/${capacity}`),
        ),
      );
  }
  return lines.map((line) => `${line}\n`).join('');
}

export function telemetryLines({ node }: StatusReply): string {
  if (node === null) return '';
  const lines: string[] = [];
  const { series, ports, policyConditions } = node;
  if (series !== null)
    lines.push(`metrics: ${series.series} of ${series.budget} series, ${series.evicted} left for being idle`);
  if (ports.length > 0) lines.push(`ports: ${ports.map(({ name, address }) => `${name} ${address}`).join(', ')}`);
  const dryRuns = policyConditions.filter(({ condition }) => condition === 'dry-run').map(({ policy }) => policy);
  if (dryRuns.length > 0) lines.push(columns('dry-run policies: ', dryRuns));
  return lines.map((line) => `${line}\n`).join('');
}

/** Texts with commas in between, on lines of some 100 columns. */
function columns(head: string, texts: readonly string[]): string {
  const lines: string[] = [];
  let line = head;
  for (const [index, text] of texts.entries()) {
    const next = index === texts.length - 1 ? text : `${text}, `;
    if (line.length + next.length > 100 && line.trim() !== '') {
      lines.push(line.trimEnd());
      line = ' '.repeat(head.length);
    }
    line += next;
  }
  return [...lines, line].join('\n');
}

function limited(head: readonly string[], rows: ReadonlyArray<readonly string[]>, all: boolean): string {
  if (all || rows.length <= MOST_ROWS) return table(head, rows);
  return `${table(head, rows.slice(0, MOST_ROWS))}and ${rows.length - MOST_ROWS} more; --pods lists all\n`;
}
