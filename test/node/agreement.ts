/** What metrics, access log and `culvert explain` say of the same connections, held against what was done. */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { responseFlagsOf } from '../../src/mesh/index.ts';
import type { Explanation } from '../../src/telemetry/index.ts';
import type { LabAgent } from '../lab/index.ts';
import { settled } from './inspect.ts';

const cli = join(import.meta.dirname, '../../src/cli/main.ts');

export type Where = 'near' | 'far';

/** What one agent shall have seen of a connection. */
export interface Seen {
  readonly at: Where;
  readonly direction: 'inbound' | 'outbound';
  /** `clean`, or the reason why it ended or never was. */
  readonly ended: string;
  readonly path: 'tunnel' | 'kernel' | 'plain' | 'passthrough';
  readonly security?: 'mutual_tls' | 'kernel' | 'unknown';
  /** It never became known where it goes: no metric counts it. */
  readonly isEarly?: true;
  /** Payload from client to server, and back. Default: 6 each way when clean (`hello` and a line's end), else none. */
  readonly bytes?: readonly [sent: number, received: number];
}

/** The client's own address and port, as the log has it. */
export interface Done {
  readonly local: string;
}

type Agents = Readonly<Record<Where, LabAgent>>;

/** By reporter, flag and security: opened, closed, failed; bytes received and sent. */
type Counts = Readonly<Record<string, number>>;

/**
 * Does something that makes one connection, and asserts that each agent's counters rise by what it saw and nothing else, that
 * its log has one line for each, and that the explanation of each flow agrees.
 */
export async function assertAgree(
  t: ExecutionContext,
  agents: Agents,
  act: () => Promise<Done>,
  all: readonly Seen[],
): Promise<Array<Record<string, unknown>>> {
  const before = { near: await countsOf(agents.near), far: await countsOf(agents.far) };
  const since = { near: agents.near.process.lines.length, far: agents.far.process.lines.length };
  const { local } = await act();
  const lines: Array<Record<string, unknown>> = [];
  for (const seen of all) {
    const agent = agents[seen.at];
    const fields = { scope: 'access', 'src.addr': local, direction: seen.direction };
    const line = await agent.told(fields, { since: since[seen.at] });
    lines.push(line);
    assertLine(t, line, seen);
    await assertExplained(t, agent, line, seen);
  }
  for (const at of ['near', 'far'] as const) {
    const expected = expectedOf(all.filter((seen) => seen.at === at));
    const more = await settled(
      async () => difference(await countsOf(agents[at]), before[at]),
      (found) => JSON.stringify(found) === JSON.stringify(expected),
    );
    t.deepEqual(more, expected, `${at}: ${JSON.stringify(lines)}`);
  }
  return lines;
}

function bytesOf({ bytes, ended }: Seen): readonly [number, number] {
  return bytes ?? (ended === 'clean' ? [6, 6] : [0, 0]);
}

function securityOf({ path, security }: Seen): string {
  return security ?? (path === 'tunnel' ? 'mutual_tls' : path === 'kernel' ? 'kernel' : 'unknown');
}

function assertLine(t: ExecutionContext, line: Record<string, unknown>, seen: Seen): void {
  const { ended, direction, path, isEarly } = seen;
  const said = JSON.stringify(line);
  t.is(line.message, isEarly ? 'connection failed' : 'connection complete', said);
  t.is(line.level, isEarly ? 'warn' : ended === 'clean' ? 'info' : 'error', said);
  t.is(line.reason, ended === 'clean' ? undefined : ended, said);
  t.is(line.error === undefined, ended === 'clean', said);
  if (isEarly) return;
  t.is(line.path, path, said);
  const [sent, received] = bytesOf(seen);
  const [own, theirs] = direction === 'outbound' ? [sent, received] : [received, sent];
  t.like(line, { bytes_sent: own, bytes_recv: theirs }, said);
}

async function assertExplained(
  t: ExecutionContext,
  agent: LabAgent,
  line: Record<string, unknown>,
  { ended }: Seen,
): Promise<void> {
  const { code, explanation } = await explain(agent, ['--flow', `${line.flow_id}`]);
  t.is(code, ended === 'clean' ? 0 : 1, JSON.stringify(explanation));
  t.is(explanation.connects, ended === 'clean');
  t.regex(explanation.conclusion, /^[^.]+(\.\S[^.]*)*\.$/, 'one sentence');
  if (ended !== 'clean') t.true(JSON.stringify(explanation).includes(ended), JSON.stringify(explanation));
}

/** `culvert explain --json`, of the agent's node. */
export async function explain(
  agent: LabAgent,
  question: readonly string[],
): Promise<{ readonly code: number | null; readonly explanation: Explanation }> {
  const { node } = agent;
  const argv = [process.execPath, cli, 'explain', ...question, '--json', '--run', node.runDirectory];
  const { code, stdout, stderr } = await node.exec(argv);
  if (!stdout.startsWith('{')) throw new Error(`explain ${question.join(' ')}: ${stdout}${stderr}`);
  return { code, explanation: JSON.parse(stdout) as Explanation };
}

function expectedOf(all: readonly Seen[]): Counts {
  const counts: Record<string, number> = {};
  const add = (key: string, value: number): void => {
    if (value !== 0) counts[key] = (counts[key] ?? 0) + value;
  };
  for (const seen of all.filter(({ isEarly }) => !isEarly)) {
    const flags = responseFlagsOf(seen.ended);
    const who = `${seen.direction === 'outbound' ? 'source' : 'destination'} ${securityOf(seen)}`;
    const [sent, received] = bytesOf(seen);
    add(`opened ${who} -`, 1);
    add(`closed ${who} ${flags}`, 1);
    if (flags !== '-') add(`failed ${who} ${flags}`, 1);
    // The metric's received is what the server receives.
    add(`received ${who} -`, sent);
    add(`sent ${who} -`, received);
  }
  return sorted(counts);
}

const NAMES = {
  istio_tcp_connections_opened_total: 'opened',
  istio_tcp_connections_closed_total: 'closed',
  istio_tcp_connections_failed_total: 'failed',
  istio_tcp_received_bytes_total: 'received',
  istio_tcp_sent_bytes_total: 'sent',
} as const;

async function countsOf(agent: LabAgent): Promise<Counts> {
  const { metrics } = await agent.request({ method: 'metrics' });
  const counts: Record<string, number> = {};
  for (const line of `${metrics}`.split('\n')) {
    const [, name = '', labels = '', value = ''] = /^(istio_tcp_\w+)\{(.*)\} (\S+)$/.exec(line) ?? [];
    const short = NAMES[name as keyof typeof NAMES];
    if (short === undefined) continue;
    const label = (key: string): string => new RegExp(`${key}="([^"]*)"`).exec(labels)?.[1] ?? '';
    const key = `${short} ${label('reporter')} ${label('connection_security_policy')} ${label('response_flags')}`;
    counts[key] = (counts[key] ?? 0) + Number(value);
  }
  return counts;
}

function difference(after: Counts, before: Counts): Counts {
  const more = Object.entries(after).map(([key, count]) => [key, count - (before[key] ?? 0)] as const);
  return sorted(Object.fromEntries(more.filter(([, count]) => count !== 0)));
}

function sorted(counts: Counts): Counts {
  return Object.fromEntries(Object.entries(counts).sort(([a], [b]) => (a < b ? -1 : 1)));
}
