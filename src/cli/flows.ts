import { callAgent, isDenied, runDirectory } from '../agent/index.ts';
import { formatEndpoint } from '../mesh/index.ts';
import type { FlowPage, FlowView } from '../telemetry/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import { paint, printable } from './paint.ts';

export interface FlowsOptions {
  readonly run: string;
  readonly pod?: string;
  readonly from?: string;
  readonly to?: string;
  readonly verdict?: string;
  readonly limit: number;
  readonly follow: boolean;
  readonly json: boolean;
}

/** How long one request waits for the next flow. */
const WAIT_MS = 20_000;
const MOST_FLOWS = 1_000;

/** `culvert flows`: the connections of pods of this node that ended last; with --follow also the next ones, until SIGINT or SIGTERM. */
export async function flows(options: FlowsOptions, output: Output): Promise<ExitCode> {
  const { run, pod, from, to, verdict, limit } = options;
  const filter = {
    ...{ ...(pod === undefined ? {} : { pod }), ...(from === undefined ? {} : { from }) },
    ...{ ...(to === undefined ? {} : { to }), ...(verdict === undefined ? {} : { verdict }) },
  };
  const { socket } = runDirectory(run);
  const ask: Ask = async (cursor, signal) => {
    const reply = await callAgent<'flows'>(
      { method: 'flows', ...filter, ...cursor },
      { path: socket, deadlineMs: cursor.waitMs + 30_000, signal },
    );
    return reply.page;
  };
  const printer = new FlowPrinter(options.json, output);
  const newest = { after: 0, limit, waitMs: 0 };
  if (options.follow) return await untilInterrupted((interrupted) => follow(ask, newest, printer, interrupted));
  const page = await ask(newest, new AbortController().signal);
  printer.print(page);
  if (page.flows.length === 0 && !options.json) output.error('no connection that has ended matches\n');
  return exitCode.ok;
}

interface Cursor {
  readonly after: number;
  readonly limit: number;
  readonly waitMs: number;
}

type Ask = (cursor: Cursor, signal: AbortSignal) => Promise<FlowPage>;

/** Ends only by an error: when it is interrupted, too. */
async function follow(ask: Ask, newest: Cursor, printer: FlowPrinter, interrupted: AbortSignal): Promise<never> {
  for (let cursor = newest; ; ) {
    const page = await ask(cursor, interrupted);
    printer.print(page);
    // While nothing has ended yet there is no cursor: the newest are shown, which are then the first.
    cursor = { after: page.next, limit: MOST_FLOWS, waitMs: WAIT_MS };
  }
}

/** Until SIGINT or SIGTERM, which is a good end. */
async function untilInterrupted(run: (interrupted: AbortSignal) => Promise<never>): Promise<ExitCode> {
  const interrupted = new AbortController();
  const interrupt = (): void => interrupted.abort();
  for (const signal of SIGNALS) process.once(signal, interrupt);
  try {
    return await run(interrupted.signal);
  } catch (error) {
    if (interrupted.signal.aborted) return exitCode.ok;
    throw error;
  } finally {
    for (const signal of SIGNALS) process.off(signal, interrupt);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

const HEAD = ['TIME', 'FROM', 'TO', 'VERDICT', 'PATH', 'SECURED', 'BYTES', 'DURATION', 'ID'] as const;
/** Columns are at least so wide, so that later lines of --follow stand below the first ones. */
const WIDTHS = [12, 16, 20, 14, 9, 7, 13, 8, 16];
/** And at most so wide: names may be long. */
const MOST_LETTERS = 48;

/** Prints pages as they come: tables whose columns grow, or a JSON object a line. */
class FlowPrinter {
  readonly #json: boolean;
  readonly #output: Output;
  readonly #widths = [...WIDTHS];
  #hasHead = false;

  constructor(json: boolean, output: Output) {
    this.#json = json;
    this.#output = output;
  }

  print({ flows: all, missed }: FlowPage): void {
    if (missed > 0) this.#output.error(`${missed} flows were gone before they could be shown\n`);
    if (all.length === 0) return;
    this.#output.out(this.#json ? all.map((flow) => `${JSON.stringify(flow)}\n`).join('') : this.#table(all));
  }

  #table(all: readonly FlowView[]): string {
    const rows = all.map((flow) => cellsOf(flow).map((cell) => shortened(printable(cell))));
    for (const row of rows)
      for (const [column, cell] of row.entries())
        this.#widths[column] = Math.max(this.#widths[column] ?? 0, cell.length);
    const lines = rows.map((row, index) => this.#line(row, all[index]));
    if (!this.#hasHead) lines.unshift(paint(this.#output, 'strong', this.#line(HEAD, undefined)));
    this.#hasHead = true;
    return `${lines.join('\n')}\n`;
  }

  #line(cells: readonly string[], flow: FlowView | undefined): string {
    const padded = cells.map((cell, column) =>
      column === HEAD.length - 1 ? cell : cell.padEnd(this.#widths[column] ?? 0),
    );
    if (flow !== undefined) padded[VERDICT] = this.#painted(padded[VERDICT] ?? '', flow);
    return padded.join('  ');
  }

  #painted(cell: string, flow: FlowView): string {
    if (flow.ended === 'clean') return paint(this.#output, 'good', cell);
    return paint(this.#output, isDenied(flow) || flow.stage !== 'connected' ? 'bad' : 'doubtful', cell);
  }
}

const VERDICT = HEAD.indexOf('VERDICT');
/** Of an id: so many tell the flows of a node apart. */
const SHOWN_DIGITS = 16;
const SECURED = { mutual_tls: 'mtls', kernel: 'kernel', none: 'no' } as const;

function cellsOf(flow: FlowView): string[] {
  const { endedAt, direction, path, security, bytesSent, bytesReceived, durationMs, id } = flow;
  return [
    timeText(endedAt),
    fromText(flow),
    toText(flow),
    verdictText(flow),
    `${path}${direction === 'outbound' ? '>' : '<'}`,
    SECURED[security],
    `${bytesText(bytesSent)}/${bytesText(bytesReceived)}`,
    durationText(durationMs),
    id.slice(0, SHOWN_DIGITS),
  ];
}

/** Of the day, in the caller's own time zone. */
function timeText(at: number): string {
  const date = new Date(at);
  const two = (number: number): string => String(number).padStart(2, '0');
  const ms = String(date.getMilliseconds()).padStart(3, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}

function fromText({ source, client }: FlowView): string {
  if (source?.workload !== undefined) return `${source.namespace}/${source.workload}`;
  return client?.address ?? '-';
}

function toText({ service, destination, asked, server }: FlowView): string {
  if (service !== undefined) return `${service.namespace}/${service.name}:${asked.port}`;
  if (destination?.workload !== undefined) return `${destination.namespace}/${destination.workload}:${server.port}`;
  return formatEndpoint(asked);
}

/** How it ended, and who said so. */
function verdictText(flow: FlowView): string {
  const { ended, decision, dryRun } = flow;
  const by = isDenied(flow) && decision?.policy !== undefined ? ` (${decision.policy})` : '';
  const would = dryRun.some((each) => each.would !== 'allow') ? ' (dry run: denied)' : '';
  const status = ended === 'tunnel-refused' ? /\b[45]\d\d\b/.exec(flow.error ?? '')?.[0] : undefined;
  const answer = status === undefined ? '' : ` (${status})`;
  return `${ended === 'clean' ? 'ok' : ended}${by}${answer}${would}`;
}

function bytesText(bytes: number): string {
  if (bytes < 1_024) return `${bytes}B`;
  const units = ['K', 'M', 'G', 'T'];
  let size = bytes;
  let unit = '';
  for (const each of units) {
    if (size < 1_024) break;
    size /= 1_024;
    unit = each;
  }
  return `${size < 10 ? size.toFixed(1) : Math.round(size)}${unit}`;
}

function durationText(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)}ms`;
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)}s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)}min`;
  return `${(ms / 3_600_000).toFixed(1)}h`;
}

function shortened(cell: string): string {
  return cell.length > MOST_LETTERS ? `${cell.slice(0, MOST_LETTERS - 3)}...` : cell;
}
