import { once } from 'node:events';
import { get, type IncomingHttpHeaders, request } from 'node:http';
import { connect, createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib';
import test from 'ava';
import type { Address } from '../../../src/mesh/index.ts';
import {
  type Metrics,
  openMetrics,
  ScrapeServer,
  type ScrapeServerOptions,
  silentLog,
  type TextFamily,
} from '../../../src/telemetry/index.ts';

const LOOPBACK = '127.0.0.1' as Address;

async function serverOf(metrics: Pick<Metrics, 'render'>, options: Partial<ScrapeServerOptions> = {}) {
  const server = new ScrapeServer(
    { metrics, log: silentLog() },
    { listen: { address: LOOPBACK, port: 0 }, ...options },
  );
  await server.start();
  return server;
}

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

async function ask(
  server: ScrapeServer,
  headers: Record<string, string> = {},
  path = '/metrics',
  method = 'GET',
): Promise<Answer> {
  const sent = request({ host: LOOPBACK, port: server.port, path, method, headers, agent: false });
  sent.end();
  const [response] = await once(sent, 'response');
  const pieces: Buffer[] = [];
  for await (const piece of response) pieces.push(piece);
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(pieces) };
}

function counted(): Metrics {
  const metrics = openMetrics({ process: false });
  metrics.observe({ enrolledPods: () => 3, openedConnections: () => 7 });
  return metrics;
}

/** A family of very many lines. */
function bigFamily(bytes: number, rendered: { count: number } = { count: 0 }): TextFamily {
  return {
    name: 'culvert_big',
    type: 'gauge',
    help: 'Big',
    *slices() {
      rendered.count += 1;
      for (let at = 0; at < bytes; at += 100_000) yield `culvert_big{at="${at}"} ${'1'.repeat(100_000)}\n`;
    },
  };
}

test('plain text by default, OpenMetrics to who asks for it', async (t) => {
  const server = await serverOf(counted());
  const plain = await ask(server);
  t.is(plain.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8');
  t.regex(`${plain.body}`, /^# HELP culvert_connections_opened_total /m);
  t.notRegex(`${plain.body}`, /# EOF/);
  const prometheus = 'application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1';
  const open = await ask(server, { accept: prometheus }, '/stats/prometheus');
  t.is(open.headers['content-type'], 'application/openmetrics-text; version=1.0.0; charset=utf-8');
  t.true(`${open.body}`.endsWith('\n# EOF\n'));
  t.regex(`${open.body}`, /^# TYPE culvert_connections_opened counter\nculvert_connections_opened_total 7$/m);
  t.notRegex(`${open.body}`, /^$\n/m);
  t.is(
    (await ask(server, { accept: 'application/openmetrics-text;q=0' })).headers['content-type'],
    plain.headers['content-type'],
  );
  await server.close();
});

test('a family without a sample is left out', async (t) => {
  const text = await counted().text();
  t.regex(text, /culvert_enrolled_pods 3/);
  t.notRegex(text, /culvert_workers|culvert_policies|culvert_map_entries/);
});

test('compresses as the client likes it', async (t) => {
  const server = await serverOf(counted());
  const plain = `${(await ask(server)).body}`;
  for (const [accepted, encoding, decode] of [
    ['gzip', 'gzip', gunzipSync],
    ['br', 'br', brotliDecompressSync],
    ['zstd', 'zstd', zstdDecompressSync],
    ['gzip;q=0.5, br;q=0.9', 'br', brotliDecompressSync],
    ['gzip, zstd', 'zstd', zstdDecompressSync],
  ] as const) {
    const { headers, body } = await ask(server, { 'accept-encoding': accepted });
    t.is(headers['content-encoding'], encoding, accepted);
    t.is(`${decode(body)}`, plain, accepted);
  }
  t.is((await ask(server, { 'accept-encoding': 'gzip;q=0, deflate' })).headers['content-encoding'], undefined);
  await server.close();
});

test('other paths and methods are refused', async (t) => {
  const server = await serverOf(counted());
  t.is((await ask(server, {}, '/')).status, 404);
  t.is((await ask(server, {}, '/metrics?x=1')).status, 200);
  t.is((await ask(server, {}, '/metrics', 'POST')).status, 405);
  await server.close();
});

test('who asks at once is given the same text, which is made once', async (t) => {
  const metrics = counted();
  const rendered = { count: 0 };
  metrics.add([bigFamily(2_000_000, rendered)]);
  const [first, ...others] = await Promise.all(Array.from({ length: 6 }, () => metrics.render('plain')));
  t.is(rendered.count, 1);
  for (const each of others) t.true(each === first);
  t.true((await metrics.render('plain')) !== first, 'who asks later is given a new one');
  t.is(rendered.count, 2);
});

test('others have their turn while a text is made', async (t) => {
  const metrics = openMetrics({ process: false });
  let turns = 0;
  metrics.add([
    {
      name: 'culvert_slow',
      type: 'gauge',
      help: 'Slow',
      *slices() {
        for (let index = 0; index < 5; index += 1) {
          const until = performance.now() + 3;
          while (performance.now() < until);
          yield `culvert_slow{index="${index}"} 1\n`;
        }
      },
    },
  ]);
  const turn = (): void => {
    turns += 1;
    next = setImmediate(turn);
  };
  let next = setImmediate(turn);
  await metrics.render('plain');
  clearImmediate(next);
  t.true(turns >= 5, `${turns}`);
});

test('who never reads is cut off and counted, and others are answered meanwhile', async (t) => {
  const metrics = counted();
  metrics.add([bigFamily(16_000_000)]);
  const server = await serverOf(metrics, { answerMs: 4000 });
  const stuck = connect(server.port ?? 0, LOOPBACK);
  stuck.pause();
  stuck.write('GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n');
  t.is((await ask(server, { 'accept-encoding': 'gzip' })).status, 200);
  while (server.counts()['cut-off'] === 0) await sleep(10);
  t.like(server.counts(), { answered: 1, 'cut-off': 1 });
  stuck.destroy();
  await server.close();
});

test('more answers at a time than there is room for are refused', async (t) => {
  const waiting = Promise.withResolvers<readonly Buffer[]>();
  const server = await serverOf({ render: () => waiting.promise });
  const first = Array.from({ length: 8 }, () => ask(server));
  await sleep(100);
  t.is((await ask(server)).status, 503);
  waiting.resolve([Buffer.from('x 1\n')]);
  for (const { status } of await Promise.all(first)) t.is(status, 200);
  t.like(server.counts(), { answered: 8, refused: 1 });
  await server.close();
});

test('who keeps many connections leaves room for other addresses', async (t) => {
  const server = await serverOf(counted());
  t.teardown(() => server.close());
  const kept = Array.from({ length: 16 }, () => connect(server.port ?? 0, LOOPBACK));
  t.teardown(() => {
    for (const socket of kept) socket.destroy();
  });
  await Promise.all(kept.map((socket) => once(socket, 'connect')));
  const tooMany = connect(server.port ?? 0, LOOPBACK);
  tooMany.on('error', () => undefined);
  await once(tooMany, 'close');
  t.is(server.counts().refused, 1);
  const other = connect({ host: LOOPBACK, port: server.port ?? 0, localAddress: '127.0.0.2' });
  other.write('GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n');
  const [first] = await once(other, 'data');
  t.regex(`${first}`, /^HTTP\/1\.1 200 /);
  other.destroy();
  for (const socket of kept.splice(0, 1)) {
    socket.destroy();
    await once(socket, 'close');
  }
  // The server may hear of it later than we do.
  while ((await ask(server).catch(() => undefined)) === undefined) await sleep(5);
  t.pass();
});

test('a text that cannot be made is counted, and the next is asked for anew', async (t) => {
  let times = 0;
  const server = await serverOf({
    render: async () => {
      times += 1;
      if (times === 1) throw new Error('no');
      return [Buffer.from('x 1\n')];
    },
  });
  await t.throwsAsync(ask(server));
  t.is((await ask(server)).status, 200);
  t.like(server.counts(), { answered: 1, failed: 1 });
  await server.close();
});

test('where the port is taken it listens as soon as it is free', async (t) => {
  const other = createServer().listen(0, LOOPBACK);
  await once(other, 'listening');
  const taken = other.address();
  if (taken === null || typeof taken === 'string') return t.fail();
  const server = await serverOf(counted(), { listen: { address: LOOPBACK, port: taken.port }, retryMs: 10 });
  t.like(server.status(), { at: `${LOOPBACK}:${taken.port}`, isListening: false });
  t.regex(server.status().reason ?? '', /EADDRINUSE/);
  other.close();
  while (!server.status().isListening) await sleep(10);
  t.is((await ask(server)).status, 200);
  await server.close();
  await t.throwsAsync(once(get({ host: LOOPBACK, port: taken.port }), 'response'));
});
