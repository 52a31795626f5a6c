/**
 * What a scrape costs when the budget of series is used up: 20,000 series of connections, of several workers. Time of the
 * whole text, of the whole answer over HTTP with gzip, and the longest time that the main thread's loop was held meanwhile.
 * `./dev bench telemetry/scrape [--json] [--rounds=11]`
 */
import { get } from 'node:http';
import type { Address } from '../../src/mesh/index.ts';
import {
  CELLS_OF_A_SLOT,
  openMetrics,
  ScrapeServer,
  SERIES_CELL,
  SeriesBook,
  SeriesTable,
  silentLog,
} from '../../src/telemetry/index.ts';
import { fixed, formatSpread, machine, readOptions, type Spread, spread, whole } from '../sample.ts';

const USAGE = 'usage: ./dev bench telemetry/scrape [--json] [--rounds=11]';
const WORKERS = 2;
/** Half of all label sets are known to both workers. */
const LABEL_SETS = 4980;
const BUDGET = 20_000;

const values = readOptions(USAGE, { options: { json: { type: 'boolean' }, rounds: { type: 'string' } } });
const rounds = Number(values.rounds ?? 11);

const metrics = openMetrics();
const book = filledBook();
metrics.observe({ series: () => book.counts() });
metrics.add(book.families);
const server = new ScrapeServer(
  { metrics, log: silentLog() },
  { listen: { address: '127.0.0.1' as Address, port: 0 } },
);
await server.start();
const { port } = server;

const text = { ms: [] as number[], heldMs: [] as number[] };
const http = { ms: [] as number[], heldMs: [] as number[] };
let bytes = 0;
for (let round = 0; round < rounds + 2; round += 1) {
  const rendered = await timed(async () => {
    bytes = (await metrics.render('plain')).reduce((sum, { length }) => sum + length, 0);
  });
  const answered = await timed(() => scrape());
  // What is not compiled yet is not what is asked for.
  if (round < 2) continue;
  text.ms.push(rendered.ms);
  text.heldMs.push(rendered.heldMs);
  http.ms.push(answered.ms);
  http.heldMs.push(answered.heldMs);
}
await server.close();
report();

/** Longest time between two turns of the loop, in which nothing else could have run. */
async function timed(run: () => Promise<void>): Promise<{ readonly ms: number; readonly heldMs: number }> {
  let heldMs = 0;
  let last = performance.now();
  let isOver = false;
  const turn = (): void => {
    const now = performance.now();
    heldMs = Math.max(heldMs, now - last);
    last = now;
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  const since = performance.now();
  await run();
  isOver = true;
  return { ms: performance.now() - since, heldMs };
}

function scrape(): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { 'accept-encoding': 'gzip' };
    get({ host: '127.0.0.1', port, path: '/metrics', headers, agent: false }, (response) => {
      response.on('data', () => undefined);
      response.on('end', resolve);
    }).on('error', reject);
  });
}

function filledBook(): SeriesBook {
  const filled = new SeriesBook();
  for (let worker = 0; worker < WORKERS; worker += 1) {
    const cells = new Float64Array(SeriesTable.allocate(LABEL_SETS));
    const source = filled.source(cells, () => undefined);
    for (let slot = 0; slot < LABEL_SETS; slot += 1) {
      if (worker > 0 && slot % 2 === 1) continue;
      source.added(slot, labels(slot));
      for (const cell of Object.values(SERIES_CELL)) cells[slot * CELLS_OF_A_SLOT + cell] = 1e6 + slot * 1.5e9 * cell;
    }
  }
  return filled;
}

/** As long as those of a cluster are. */
function labels(index: number): Record<string, string> {
  const party = (name: string, number: number): Record<string, string> => ({
    [`${name}_workload`]: `${name}-deployment-${number}`,
    [`${name}_canonical_service`]: `${name}-service-${number}`,
    [`${name}_canonical_revision`]: 'v1',
    [`${name}_workload_namespace`]: `namespace-${number % 40}`,
    [`${name}_principal`]: `spiffe://cluster.local/ns/namespace-${number % 40}/sa/${name}-account-${number}`,
    [`${name}_app`]: `${name}-service-${number}`,
    [`${name}_version`]: 'v1',
    [`${name}_cluster`]: 'Kubernetes',
  });
  return {
    reporter: index % 2 === 0 ? 'source' : 'destination',
    ...party('source', index % 250),
    destination_service: `destination-service-${index}.namespace-${index % 40}.svc.cluster.local`,
    destination_service_namespace: `namespace-${index % 40}`,
    destination_service_name: `destination-service-${index}`,
    ...party('destination', index),
    request_protocol: 'tcp',
    response_flags: '-',
    connection_security_policy: 'mutual_tls',
  };
}

function report(): void {
  const results: Record<string, Spread> = {
    'text, ms': spread(text.ms),
    'text, loop held, ms': spread(text.heldMs),
    'HTTP with gzip, ms': spread(http.ms),
    'HTTP with gzip, loop held, ms': spread(http.heldMs),
  };
  const { series } = book.counts();
  if (values.json) {
    console.log(JSON.stringify({ machine: machine(), series, budget: BUDGET, bytes, ...results }));
    return;
  }
  console.log(`${whole(series)} series, ${whole(bytes)} bytes`);
  for (const [name, each] of Object.entries(results)) console.log(`${name.padEnd(32)} ${formatSpread(each, fixed(1))}`);
}
