/**
 * What telemetry costs a connection, in a worker: to say what it is, to count its open and its close, and to write its record
 * down, flushes included; and what a chunk costs. Of the bar, 3 microseconds, the relay's own work is no part.
 * `./dev bench telemetry/record [--json] [--rounds=7] [--connections=100000]`
 */
import type { Address, Endpoint, NetnsCookie, Service, Workload } from '../../src/mesh/index.ts';
import { ReadModel } from '../../src/mesh/index.ts';
import {
  allocateFlowRing,
  CELLS_OF_A_SLOT,
  type FlowEnd,
  FlowReader,
  FlowWriter,
  SERIES_CELL,
  SeriesTable,
} from '../../src/telemetry/index.ts';
import { outboundSubject, plainSubject, type Subject } from '../../src/ztunnel/flow-subjects.ts';
import type { Followed } from '../../src/ztunnel/outbound/attempt.ts';
import { service as meshService, meshUpdate, workload as meshWorkload } from '../../test/contract/fakes/mesh.ts';
import { fixed, formatSpread, interleave, machine, readOptions, spread } from '../sample.ts';

const CASES = [
  'subject, through the tunnel',
  'subject, plain',
  'open and close',
  'open and close, failed',
  'record',
  'record, of a client that is always another',
  'all of it, through the tunnel',
  'all of it, plain',
] as const;
type Case = (typeof CASES)[number];

const WORKLOADS = 100;
/** A flush each so many: 50 ms at 10,000 connections a second. */
const BATCH = 500;
const POD = 7n as NetnsCookie;

const values = readOptions('usage: ./dev bench telemetry/record [--json] [--rounds=7] [--connections=100000]', {
  options: { json: { type: 'boolean' }, rounds: { type: 'string' }, connections: { type: 'string' } },
});
const connections = Number(values.connections ?? 100_000);

const workloads = Array.from({ length: WORKLOADS }, (_, index) => workload(index));
const shop = meshService({ name: 'shop', addresses: [{ network: '', address: '10.9.0.1' as Address }] });
const source = workload(WORKLOADS);
const model = new ReadModel();
model.apply(meshUpdate({ complete: true, workloads: [...workloads, source], services: [shop] }));
const routes = workloads.map((each) => routeTo(each, shop));
const asked: Endpoint = { address: '10.9.0.1' as Address, port: 80 };
const clients = Array.from({ length: 1000 }, (_, port) => ({ address: address(WORKLOADS), port: 30_000 + port }));
const strangers = Array.from({ length: 200_000 }, (_, each) => ({ address: stranger(each), port: 30_000 }));

const table: SeriesTable = new SeriesTable(
  SeriesTable.allocate(),
  { added() {}, idle() {} },
  { kernelPathAs: 'kernel' },
);
const ring = allocateFlowRing();
const reader = new FlowReader(ring);
// The reader's part is another thread's, but for the place that it makes.
const readCells = new Uint32Array(ring, 0, 2);
const writer = new FlowWriter(ring, ({ count }) => Atomics.add(readCells, 1, count));
const subjects = clients.map((_, turn) => outbound(turn));
const end: FlowEnd = {
  id: '0123456789abcdef0123456789abcdef',
  stage: 'connected',
  ended: 'clean',
  error: undefined,
  decision: undefined,
  dryRun: [],
  attempts: 1,
  bytesSent: 1000,
  bytesReceived: 2000,
  durationMs: 12.5,
  connectMs: 1.5,
  firstByteMs: 2.5,
  roundTripUs: 90,
  retransmits: 0,
  kind: undefined,
};

const results = await interleave(CASES, Number(values.rounds ?? 7), async (each) => time(connections, run(each)));
const chunk = await interleave(['chunk'], Number(values.rounds ?? 7), async () => time(connections * 10, count));
report();

function run(each: Case): (turn: number) => void {
  switch (each) {
    case 'subject, through the tunnel':
      return (turn) => void outbound(turn);
    case 'subject, plain':
      return (turn) => void inbound(turn);
    case 'open and close':
      return (turn) => openAndClose(subjects[turn % subjects.length] as Subject, true);
    case 'open and close, failed':
      return (turn) => openAndClose(subjects[turn % subjects.length] as Subject, false);
    case 'record':
      return (turn) => record(subjects[turn % subjects.length] as Subject, turn);
    case 'record, of a client that is always another':
      return (turn) => record({ ...(subjects[0] as Subject), client: strangers[turn % strangers.length] }, turn);
    case 'all of it, through the tunnel':
      return (turn) => all(outbound(turn), turn);
    case 'all of it, plain':
      return (turn) => all(inbound(turn), turn);
  }
}

function outbound(turn: number): Subject {
  const route = routes[turn % routes.length];
  return outboundSubject({ client: clients[turn % clients.length], asked, source, route });
}

function inbound(turn: number): Subject {
  const client = clients[turn % clients.length] ?? asked;
  const own = workloads[turn % WORKLOADS];
  return plainSubject({
    model,
    client,
    app: { address: own?.addresses[0] ?? asked.address, port: 8080 },
    workload: own,
  });
}

function openAndClose(subject: Subject, isClean: boolean): void {
  const slot = table.slotOf(subject, '-');
  table.opened(slot);
  table.closed(slot, subject, isClean ? '-' : 'CONNECT');
}

function record(subject: Subject, turn: number): void {
  if (!writer.write(POD, subject, end)) throw new Error('the ring is full');
  if (turn % BATCH === 0) writer.flush();
}

function all(subject: Subject, turn: number): void {
  openAndClose(subject, true);
  record(subject, turn);
}

/** As the relay does it. */
function count(turn: number): void {
  const { cells } = table;
  const at = (turn & 7) * CELLS_OF_A_SLOT + SERIES_CELL.received;
  cells[at] = (cells[at] ?? 0) + 1448;
}

/** Nanoseconds of CPU time for each. */
function time(times: number, once: (turn: number) => void): number {
  for (let turn = 0; turn < times / 10; turn += 1) once(turn);
  const before = process.threadCpuUsage();
  for (let turn = 0; turn < times; turn += 1) once(turn);
  const { user, system } = process.threadCpuUsage(before);
  writer.flush();
  return ((user + system) * 1000) / times;
}

function report(): void {
  const spreads = Object.fromEntries(
    [...Object.entries(results), ...Object.entries(chunk)].map(([each, all]) => [each, spread(all)]),
  );
  if (values.json === true) {
    console.log(JSON.stringify({ machine: machine(), unit: 'ns', ...spreads, dropped: reader.dropped }));
    return;
  }
  console.log('CPU time, nanoseconds: median (fastest..slowest round)');
  for (const [each, one] of Object.entries(spreads)) console.log(`${each.padEnd(44)} ${formatSpread(one, fixed(0))}`);
}

function routeTo(workload: Workload, service: Service): Followed {
  const [at = asked.address] = workload.addresses;
  return {
    kind: 'hbone',
    workload,
    service,
    endpoint: `${at}:8080`,
    nextHop: { address: at, port: 15_008 },
    authority: `${at}:8080`,
    acceptable: [],
    destination: { address: at, port: 8080 },
    via: 'workload',
  };
}

function workload(index: number): Workload {
  const name = `app-${index % 10}`;
  const wish = { workloadName: name, canonicalName: name, serviceAccount: name, addresses: [address(index)] };
  return meshWorkload({
    uid: `uid-${index}`,
    name: `${name}-${index}`,
    services: { 'shop/shop.shop.svc.cluster.local': [] },
    ...wish,
  });
}

function address(index: number): Address {
  return `10.1.${index >> 8}.${index & 255}` as Address;
}

function stranger(index: number): Address {
  return `100.${index >> 16}.${(index >> 8) & 255}.${index & 255}` as Address;
}
