import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  Dashboard,
  DashboardError,
  DashboardListener,
  isLoopback,
  type LiveOptions,
  makeToken,
  Pages,
  parseListenAddress,
  readToken,
} from '../../../src/dashboard/index.ts';
import type { Address } from '../../../src/mesh/index.ts';
import { silentLog } from '../../../src/telemetry/index.ts';
import { FakeSource } from '../../dashboard/fake-source.ts';

const TOKEN = 'a-token-of-a-good-length';

interface Served extends AsyncDisposable {
  readonly port: number;
  readonly dashboard: Dashboard;
}

async function serve(token?: string, live?: LiveOptions, source = new FakeSource()): Promise<Served> {
  const folder = await mkdtemp(join(tmpdir(), 'culvert-pages-'));
  await writeFile(join(folder, 'index.html'), '<!doctype html>');
  await writeFile(join(folder, 'main.js'), 'export {};');
  const dashboard = new Dashboard(
    { source, pages: new Pages(folder), log: silentLog() },
    live === undefined ? {} : { live },
  );
  const listener = new DashboardListener(
    { handle: dashboard.handler(token), log: silentLog() },
    { address: { address: '127.0.0.1' as Address, port: 0 } },
  );
  await listener.open();
  return {
    port: listener.port ?? 0,
    dashboard,
    async [Symbol.asyncDispose]() {
      dashboard.close();
      listener.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

interface Reply {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

async function get(port: number, path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Reply> {
  const asked = request({ port, host: '127.0.0.1', path, headers, method, agent: false });
  asked.end();
  const [response] = (await once(asked, 'response')) as [import('node:http').IncomingMessage];
  response.setEncoding('utf8');
  let body = '';
  for await (const chunk of response) body += chunk;
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}

const PATHS = [
  '/',
  '/main.js',
  '/nothing',
  '/api/overview',
  '/api/live',
  '/api/flows',
  '/api/explain?flow=1',
  '/api/nothing',
];

for (const path of PATHS) {
  test(`without the token ${path} is answered 401, and nothing is said`, async (t) => {
    await using served = await serve(TOKEN);
    for (const headers of [{}, { authorization: 'Bearer wrong' }, { cookie: 'culvert-12345678=wrong' }]) {
      const { status, body } = await get(served.port, path, headers);
      t.is(status, 401);
      t.regex(body, /^culvert: this (dashboard needs a token|token is not)/);
    }
  });
}

test('the token lets in: as a bearer, and in the address, which is then left without it', async (t) => {
  await using served = await serve(TOKEN);
  t.is((await get(served.port, '/api/pods', { authorization: `Bearer ${TOKEN}` })).status, 200);
  const welcome = await get(served.port, `/?token=${TOKEN}`);
  t.is(welcome.status, 303);
  t.is(welcome.headers.location, '/');
  const [cookie = ''] = welcome.headers['set-cookie'] ?? [];
  t.regex(cookie, /^culvert-[0-9a-f]{8}=[\w-]+; Path=\/; HttpOnly; SameSite=Strict$/);
  t.false(cookie.includes(TOKEN), 'the cookie is not the token');
  const pair = cookie.split(';')[0] ?? '';
  t.is((await get(served.port, '/', { cookie: `other=1; ${pair}` })).status, 200);
  t.is((await get(served.port, '/api/map', { cookie: pair })).status, 200);
});

test('a token in the address never leads to another host', async (t) => {
  await using served = await serve(TOKEN);
  const { headers } = await get(served.port, `//elsewhere.example/x?token=${TOKEN}&a=b`);
  t.regex(`${headers.location}`, /^\/(?!\/)/);
});

test('whoever guesses tokens has to wait, also with the right one', async (t) => {
  await using served = await serve(TOKEN);
  for (let tries = 0; tries < 10; tries += 1)
    t.is((await get(served.port, '/api/pods', { authorization: `Bearer wrong-${tries}` })).status, 401);
  t.is((await get(served.port, '/api/pods', { authorization: 'Bearer wrong' })).status, 429);
  t.is((await get(served.port, '/api/pods', { authorization: `Bearer ${TOKEN}` })).status, 429);
});

test('without a token it is only asked under the names of this host', async (t) => {
  await using served = await serve();
  for (const host of ['localhost', 'localhost:8080', '127.0.0.1:15000', '[::1]:15000'])
    t.is((await get(served.port, '/api/pods', { host })).status, 200, host);
  for (const host of ['attacker.example', 'localhost.attacker.example', '10.0.0.1:15000', 'a b'])
    t.is((await get(served.port, '/api/pods', { host })).status, 403, host);
});

test('a page of another site cannot ask, with a token either', async (t) => {
  await using served = await serve(TOKEN);
  const bearer = { authorization: `Bearer ${TOKEN}`, host: '10.0.0.1:15080' };
  t.is((await get(served.port, '/api/pods', { ...bearer, origin: 'http://10.0.0.1:15080' })).status, 200);
  t.is((await get(served.port, '/api/pods', { ...bearer, origin: 'http://attacker.example' })).status, 403);
  t.is((await get(served.port, '/api/pods', { ...bearer, origin: 'null' })).status, 403);
  t.is((await get(served.port, '/api/pods', { ...bearer, 'sec-fetch-site': 'cross-site' })).status, 403);
  const followed = { ...bearer, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
  t.is((await get(served.port, '/', followed)).status, 200, 'a link may be followed');
});

test('every answer forbids scripts that are not the pages own, frames, and guessing of types', async (t) => {
  await using served = await serve();
  for (const path of ['/', '/main.js', '/api/pods', '/api/nothing']) {
    const { headers } = await get(served.port, path);
    t.regex(`${headers['content-security-policy']}`, /default-src 'none'; script-src 'self'.*frame-ancestors 'none'/);
    t.notRegex(`${headers['content-security-policy']}`, /unsafe|https?:/);
    t.is(headers['x-content-type-options'], 'nosniff');
    t.is(headers['referrer-policy'], 'no-referrer');
  }
});

test('only what is in the folder is served, and nothing can be changed', async (t) => {
  await using served = await serve();
  t.is((await get(served.port, '/main.js')).body, 'export {};');
  for (const path of ['/../package.json', '/%2e%2e/package.json', '/index.html%00'])
    t.is((await get(served.port, path)).status, 404, path);
  t.is((await get(served.port, '/api/pods', {}, 'POST')).status, 405);
  const first = await get(served.port, '/main.js');
  t.is((await get(served.port, '/main.js', { 'if-none-match': `${first.headers.etag}` })).status, 304);
});

test('a question that is not understood is answered with a sentence', async (t) => {
  await using served = await serve();
  const refusals: Readonly<Record<string, number>> = {
    '/api/flows?after=-1': 400,
    '/api/flows?limit=9999': 400,
    '/api/explain': 400,
    '/api/explain?flow=none': 400,
    '/api/edge?id=none': 404,
    [`/api/flows?from=${'x'.repeat(513)}`]: 400,
  };
  for (const [path, status] of Object.entries(refusals)) {
    const reply = await get(served.port, path);
    t.is(reply.status, status, path);
    t.is(typeof (JSON.parse(reply.body) as { error: unknown }).error, 'string');
  }
});

async function listen(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.write('GET /api/live HTTP/1.1\r\nHost: localhost\r\n\r\n');
  return socket;
}

test('a client that never reads is cut off and counted, and the others go on', async (t) => {
  await using served = await serve(undefined, { intervalMs: 1, maxBacklogBytes: 16_384, maxBacklogMs: 60_000 });
  const stuck = await listen(served.port);
  stuck.pause();
  const reader = await listen(served.port);
  let events = 0;
  reader.setEncoding('utf8');
  reader.on('data', (text: string) => {
    events += text.split('event: overview').length - 1;
  });
  while (served.dashboard.live().cutOff === 0) await once(reader, 'data');
  const before = events;
  await once(reader, 'data');
  await once(reader, 'data');
  t.true(events > before);
  t.deepEqual(served.dashboard.live(), { clients: 1, opened: 2, cutOff: 1, turnedAway: 0 });
  stuck.destroy();
  reader.destroy();
});

test('the 33rd client is turned away, and a place that is left is free again', async (t) => {
  await using served = await serve();
  const clients = await Promise.all(Array.from({ length: 32 }, () => listen(served.port)));
  await Promise.all(clients.map((client) => once(client, 'data')));
  t.is((await get(served.port, '/api/live')).status, 503);
  t.deepEqual(served.dashboard.live(), { clients: 32, opened: 32, cutOff: 0, turnedAway: 1 });
  for (const client of clients) client.destroy();
  while (served.dashboard.live().clients > 0) await new Promise(setImmediate);
  const again = await listen(served.port);
  await once(again, 'data');
  t.is(served.dashboard.live().clients, 1);
  again.destroy();
});

test('whoever asks again and again without waiting for an answer is cut off after the first', async (t) => {
  const source = new FakeSource();
  let asked = 0;
  const flows = source.flows.bind(source);
  source.flows = (question) => {
    asked += 1;
    return flows(question);
  };
  await using served = await serve(undefined, undefined, source);
  const socket = connect(served.port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.resume();
  socket.write('GET /api/flows HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(1_000));
  await once(socket, 'close');
  t.is(asked, 1);
});

test('an overview that fails is answered 500 to who begins to listen, and is left out for who does', async (t) => {
  const source = new FakeSource();
  const overview = source.overview.bind(source);
  let isFailing = false;
  let failures = 0;
  source.overview = () => {
    if (!isFailing) return overview();
    failures += 1;
    throw new Error('no');
  };
  await using served = await serve(undefined, { intervalMs: 1 }, source);
  const reader = await listen(served.port);
  await once(reader, 'data');
  isFailing = true;
  while (failures < 3) await new Promise(setImmediate);
  t.is((await get(served.port, '/api/live')).status, 500);
  isFailing = false;
  await once(reader, 'data');
  t.is(served.dashboard.live().clients, 1);
  reader.destroy();
});

test('a port that is taken is tried again until it is free', async (t) => {
  await using first = await serve();
  const listener = new DashboardListener(
    { handle: first.dashboard.handler(undefined), log: silentLog() },
    { address: { address: '127.0.0.1' as Address, port: first.port }, retryMs: 5 },
  );
  t.teardown(() => listener.close());
  await listener.open();
  t.is(listener.port, undefined);
  await first[Symbol.asyncDispose]();
  while (listener.port === undefined) await new Promise(setImmediate);
  t.is(listener.port, first.port);
});

test('addresses to listen at', (t) => {
  t.deepEqual(parseListenAddress('[::]:15080'), { address: '::' as Address, port: 15_080 });
  t.deepEqual(parseListenAddress('0.0.0.0:1'), { address: '0.0.0.0' as Address, port: 1 });
  for (const text of ['', '15080', ':15080', '::1:15080', 'node:80', '1.2.3.4:0', '1.2.3.4:65536'])
    t.throws(() => parseListenAddress(text), { instanceOf: DashboardError, code: 'BAD_LISTEN_ADDRESS' }, text);
  t.true(isLoopback('127.0.0.9' as Address));
  t.true(isLoopback('::1' as Address));
  t.false(isLoopback('0.0.0.0' as Address));
});

test('a token is made for this user only, and one of a file must be worth something', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'culvert-token-'));
  t.teardown(() => rm(folder, { recursive: true }));
  const path = join(folder, 'dashboard-token');
  await writeFile(path, 'an old one', { mode: 0o644 });
  const token = makeToken(path);
  t.is(token.length, 43);
  t.is(readFileSync(path, 'utf8').trim(), token);
  t.is(statSync(path).mode & 0o777, 0o600);
  t.is(readToken(path), token);
  await rm(path);
  const elsewhere = join(folder, 'elsewhere');
  await writeFile(elsewhere, 'of somebody else');
  await symlink(elsewhere, path);
  makeToken(path);
  t.is(readFileSync(elsewhere, 'utf8'), 'of somebody else', 'a link is not followed');
  await writeFile(path, 'short');
  t.throws(() => readToken(path), { code: 'TOKEN_UNUSABLE' });
  t.throws(() => readToken(join(folder, 'none')), { code: 'TOKEN_UNUSABLE' });
});
