/**
 * Sessions alone, over real TLS sockets on the loopback; client and server have a thread each: throughput of one stream
 * and of eight, round trips of 1 KiB on 32 streams, streams opened and closed. Rounds of all cases are interleaved.
 * `./dev bench hbone/session [--only gbps,rps] [--rounds 5] [--seconds 2] [--json]`
 */
import { once } from 'node:events';
import { type AddressInfo, connect as connectTcp, createServer } from 'node:net';
import { connect, createServer as createSecureServer } from 'node:tls';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { threadFrames } from '../../src/hbone/frames/index.ts';
import type { TunnelStream } from '../../src/hbone/index.ts';
import type { ClientSession, IncomingRequest } from '../../src/hbone/session.ts';
import { selfSigned } from '../../test/pki.ts';
import { fixed, formatSpread, interleave, machine, spread, whole } from '../sample.ts';

type Case = 'gbps' | 'gbps8' | 'gbpsBack' | 'rps' | 'cps';
const CASES: readonly Case[] = ['gbps', 'gbps8', 'gbpsBack', 'rps', 'cps'];
/** What the CPU time of a case is told for. */
const PER: Readonly<Record<Case, string>> = {
  gbps: 'GiB',
  gbps8: 'GiB',
  gbpsBack: 'GiB',
  rps: '10,000',
  cps: '10,000',
};

/** A rate, and the CPU seconds of both ends for a GiB or for 10,000. */
interface Figure {
  readonly rate: number;
  readonly cpu: number;
}

interface Role {
  readonly chain: string;
  readonly key: string;
}

const CHUNK = Buffer.alloc(64 * 1024, 1);
const MESSAGE = Buffer.alloc(1024, 1);
const NEVER = new AbortController().signal;

if (isMainThread) await main();
else await serve(workerData as Role);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      only: { type: 'string', default: CASES.join(',') },
      json: { type: 'boolean', default: false },
    },
  });
  const cases = CASES.filter((each) => values.only.split(',').includes(each));
  const { chain, key } = await selfSigned();
  const worker = new Worker(new URL(import.meta.url), { workerData: { chain, key } satisfies Role });
  const [port] = await once(worker, 'message');
  const results = await interleave(cases, Number(values.rounds), async (each) => {
    const session = await open(Number(port), chain);
    const result = await measure(session, each, Number(values.seconds));
    session.close();
    return result;
  });
  await worker.terminate();
  if (values.json) {
    const medians = cases.map((each) => [
      each,
      { rate: median(results[each], 'rate'), cpu: median(results[each], 'cpu') },
    ]);
    console.log(JSON.stringify({ ...machine(), rounds: Number(values.rounds), ...Object.fromEntries(medians) }));
    return;
  }
  for (const each of cases) {
    const figures = results[each] ?? [];
    const rate = formatSpread(spread(figures.map((figure) => figure.rate)), each[0] === 'g' ? fixed(2) : whole);
    const cpu = formatSpread(spread(figures.map((figure) => figure.cpu)), fixed(3));
    console.log(`${each.padEnd(9)} ${rate.padEnd(30)} CPU s/${PER[each]}: ${cpu}`);
  }
}

function median(figures: readonly Figure[] | undefined, which: keyof Figure): number {
  return spread((figures ?? []).map((figure) => figure[which])).median;
}

async function open(port: number, chain: string): Promise<ClientSession> {
  const tcp = connectTcp({ port, host: '127.0.0.1', noDelay: true });
  await once(tcp, 'connect');
  const socket = connect({ socket: tcp, ca: chain, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined });
  await once(socket, 'secureConnect');
  return threadFrames.client(socket);
}

function measure(session: ClientSession, each: Case, seconds: number): Promise<Figure> {
  switch (each) {
    case 'gbps':
      return upload(session, 1, seconds);
    case 'gbps8':
      return upload(session, 8, seconds);
    case 'gbpsBack':
      return download(session, seconds);
    case 'rps':
      return roundTrips(session, 32, seconds);
    case 'cps':
      return opens(session, 32, seconds);
  }
}

/** Gbit/s that arrive at the server; it answers with one byte for each MiB. */
async function upload(session: ClientSession, streams: number, seconds: number): Promise<Figure> {
  let mebibytes = 0;
  const opened: TunnelStream[] = [];
  for (let each = 0; each < streams; each += 1) {
    const { stream } = await session.connect('sink:1', [], NEVER);
    opened.push(stream);
    const more = (): void => {
      while (!stream.isFull) stream.write(CHUNK);
    };
    stream.attach({
      data: (chunk) => {
        mebibytes += chunk.length;
      },
      drained: more,
      ended: () => undefined,
      closed: () => undefined,
    });
    more();
  }
  const moved = await during(seconds, () => mebibytes);
  for (const stream of opened) stream.reset();
  return gigabits(moved, 2 ** 20);
}

async function download(session: ClientSession, seconds: number): Promise<Figure> {
  let bytes = 0;
  const { stream } = await session.connect('source:1', [], NEVER);
  stream.attach({
    data: (chunk) => {
      bytes += chunk.length;
    },
    drained: () => undefined,
    ended: () => undefined,
    closed: () => undefined,
  });
  const moved = await during(seconds, () => bytes);
  stream.reset();
  return gigabits(moved, 1);
}

async function roundTrips(session: ClientSession, streams: number, seconds: number): Promise<Figure> {
  let count = 0;
  const opened: TunnelStream[] = [];
  for (let each = 0; each < streams; each += 1) {
    const { stream } = await session.connect('echo:1', [], NEVER);
    opened.push(stream);
    let bytes = 0;
    stream.attach({
      data: (chunk) => {
        bytes += chunk.length;
        if (bytes < MESSAGE.length) return;
        bytes = 0;
        count += 1;
        stream.write(MESSAGE);
      },
      drained: () => undefined,
      ended: () => undefined,
      closed: () => undefined,
    });
    stream.write(MESSAGE);
  }
  const moved = await during(seconds, () => count);
  for (const stream of opened) stream.reset();
  return moved;
}

async function opens(session: ClientSession, parallel: number, seconds: number): Promise<Figure> {
  let count = 0;
  let stopped = false;
  const headers = [
    ['baggage', 'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=client,service.name=client'],
    ['forwarded', 'for="10.0.0.1:40000";host=reviews.shop.svc.cluster.local'],
    ['traceparent', `00-${'4'.repeat(32)}-${'5'.repeat(16)}-00`],
  ] as const;
  const one = async (): Promise<void> => {
    while (!stopped) {
      const { stream } = await session.connect('10.0.0.7:8080', headers, NEVER);
      const { promise, resolve } = Promise.withResolvers<void>();
      stream.attach({
        data: () => undefined,
        drained: () => undefined,
        ended: () => undefined,
        closed: () => resolve(),
      });
      stream.end();
      await promise;
      count += 1;
    }
  };
  const loops = Array.from({ length: parallel }, one);
  const moved = await during(seconds, () => count);
  stopped = true;
  await Promise.all(loops);
  return moved;
}

/** What is added per second, and the CPU time of 10,000, after a warm-up. */
async function during(seconds: number, value: () => number): Promise<Figure> {
  await sleep(300);
  const before = value();
  const since = performance.now();
  const cpu = process.cpuUsage();
  await sleep(seconds * 1000);
  const used = process.cpuUsage(cpu);
  const added = value() - before;
  const elapsed = (performance.now() - since) / 1000;
  return { rate: added / elapsed, cpu: ((used.user + used.system) / 1e6 / added) * 10_000 };
}

function gigabits({ rate, cpu }: Figure, unit: number): Figure {
  return { rate: (rate * unit * 8) / 1e9, cpu: (cpu / 10_000 / unit) * 2 ** 30 };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function serve({ chain, key }: Role): Promise<void> {
  const secure = createSecureServer({ cert: chain, key, ALPNProtocols: ['h2'] }, (socket) => {
    socket.on('error', () => undefined);
    threadFrames.server(socket, answer);
  });
  const listener = createServer({ noDelay: true, pauseOnConnect: true }, (tcp) => {
    secure.emit('connection', tcp);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  parentPort?.postMessage((listener.address() as AddressInfo).port);
}

function answer(request: IncomingRequest): void {
  const stream = request.accept([]);
  const kind = request.authority?.split(':')[0];
  let bytes = 0;
  const more = (): void => {
    while (!stream.isFull) stream.write(CHUNK);
  };
  stream.attach({
    data(chunk) {
      if (kind === 'echo') {
        stream.write(chunk);
      } else {
        bytes += chunk.length;
        for (; bytes >= 2 ** 20; bytes -= 2 ** 20) stream.write(Buffer.of(1));
      }
    },
    drained: kind === 'source' ? more : () => undefined,
    ended: () => stream.end(),
    closed: () => undefined,
  });
  if (kind === 'source') more();
}
