import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { parseAdminAddress } from '../../../src/agent/admin/admin-address.ts';
import { AdminRoutes, type AdminRoutesDeps } from '../../../src/agent/admin/admin-routes.ts';
import { AdminServer } from '../../../src/agent/admin/admin-server.ts';
import { refusalOf } from '../../../src/agent/admin/request-guard.ts';
import type { Clock } from '../../../src/agent/index.ts';
import type { Address } from '../../../src/mesh/index.ts';
import { LogLevels, silentLog } from '../../../src/telemetry/index.ts';
import { FakeLog } from '../../contract/fakes/log.ts';

const HOME = '127.0.0.1' as Address;

const ADDRESSES: ReadonlyArray<readonly [string, ReturnType<typeof parseAdminAddress> | 'refused']> = [
  ['15000', { address: HOME, port: 15000 }],
  ['127.0.0.1:9000', { address: HOME, port: 9000 }],
  ['127.9.9.9:9000', { address: '127.9.9.9' as Address, port: 9000 }],
  ['localhost:9000', { address: HOME, port: 9000 }],
  ['[::1]:9000', { address: '::1' as Address, port: 9000 }],
  ['off', undefined],
  ['0.0.0.0:15000', 'refused'],
  ['[::]:15000', 'refused'],
  ['10.0.0.1:15000', 'refused'],
  ['[::ffff:10.0.0.1]:15000', 'refused'],
  ['127.0.0.1', 'refused'],
  ['127.0.0.1:0', 'refused'],
  ['127.0.0.1:65536', 'refused'],
  ['::1:15000', 'refused'],
  ['', 'refused'],
  ['example.com:80', 'refused'],
];

for (const [text, want] of ADDRESSES)
  test(`--admin ${JSON.stringify(text)} is ${want === 'refused' ? 'refused' : 'understood'}`, (t) => {
    if (want === 'refused') t.throws(() => parseAdminAddress(text), { instanceOf: RangeError });
    else t.deepEqual(parseAdminAddress(text), want);
  });

const HEADERS: ReadonlyArray<readonly [string, IncomingHttpHeaders, boolean]> = [
  ['asked by address', { host: '127.0.0.1:15000' }, true],
  ['asked by name', { host: 'localhost:15000' }, true],
  ['asked by an IPv6 address', { host: '[::1]:15000' }, true],
  ['asked through a forwarded port', { host: 'localhost:43210' }, true],
  ['asked without a port', { host: 'LocalHost' }, true],
  ['a name that leads here (DNS rebinding)', { host: 'evil.example:15000' }, false],
  ['a name that begins like ours', { host: 'localhost.evil.example' }, false],
  ['an address that begins like ours', { host: '127.0.0.1.evil.example' }, false],
  ['no name at all', {}, false],
  ['user and password in the name', { host: 'localhost@evil.example' }, false],
  ['the own page', { host: 'localhost:1', origin: 'http://localhost:1', 'sec-fetch-site': 'same-origin' }, true],
  ['the user himself', { host: 'localhost:1', 'sec-fetch-site': 'none' }, true],
  ['a page of another site', { host: 'localhost:1', origin: 'http://evil.example' }, false],
  ['a page of another port', { host: 'localhost:1', origin: 'http://localhost:2' }, false],
  ['a sandboxed page', { host: 'localhost:1', origin: 'null' }, false],
  ['another site, as the browser says', { host: 'localhost:1', 'sec-fetch-site': 'cross-site' }, false],
  ['another port, as the browser says', { host: 'localhost:1', 'sec-fetch-site': 'same-site' }, false],
];

for (const [title, headers, passes] of HEADERS)
  test(`the admin port ${passes ? 'answers' : 'refuses'}: ${title}`, (t) => {
    t.is(refusalOf(headers)?.status, passes ? undefined : 403);
  });

interface Answer {
  readonly status: number | undefined;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

async function ask(port: number, method: string, path: string, headers: OutgoingHttpHeaders = {}): Promise<Answer> {
  const asked = request({ host: HOME, port, method, path, headers, agent: false });
  asked.end();
  const [response] = await once(asked, 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, headers: response.headers, text };
}

async function serve(t: ExecutionContext, changes: Partial<AdminRoutesDeps> = {}) {
  let quits = 0;
  const [agent, tunnel] = [{ level: 'info' }, { level: 'info' }];
  const levels = new LogLevels({ agent, tunnel }, 'info');
  const routes = new AdminRoutes({
    async *configDump() {
      yield '{"a":';
      yield '1}';
    },
    levels,
    quit: () => {
      quits += 1;
    },
    log: silentLog(),
    ...changes,
  });
  const server = createServer((each, response) => routes.handle(each, response));
  server.listen(0, HOME);
  await once(server, 'listening');
  t.teardown(() => server.closeAllConnections());
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  return { port, routes, levels, quits: () => quits };
}

test('the config dump is JSON, for reading only', async (t) => {
  const { port } = await serve(t);
  const dump = await ask(port, 'GET', '/config_dump');
  t.is(dump.status, 200);
  t.is(dump.headers['content-type'], 'application/json');
  t.is(dump.text, '{"a":1}');
  t.is((await ask(port, 'POST', '/config_dump')).status, 405);
  t.like(await ask(port, 'HEAD', '/config_dump'), { status: 200, text: '' });
});

test('a dump that fails half-way never looks whole', async (t) => {
  const { port } = await serve(t, {
    async *configDump() {
      yield 'x'.repeat(200_000);
      throw new Error('boom');
    },
  });
  await t.throwsAsync(ask(port, 'GET', '/config_dump'));
  t.is((await ask(port, 'GET', '/healthz')).status, 200);
});

test('the log level is told and set by POST', async (t) => {
  const { port, levels } = await serve(t);
  const current = async (query: string): Promise<string> => (await ask(port, 'POST', `/logging${query}`)).text;
  t.is(await current(''), 'current log level is info\n');
  t.is(await current('?level=debug'), 'current log level is debug\n');
  t.is(await current('?level=info,tunnel=trace'), 'current log level is info,tunnel=trace\n');
  t.is(await current('?reset'), 'current log level is info\n');
  t.is((await ask(port, 'GET', '/logging')).status, 405);
  for (const bad of ['?level=loud', '?level=', '?level=nowhere=debug', '?level=debug,loud']) {
    const answer = await ask(port, 'POST', `/logging${bad}`);
    t.is(answer.status, 400, bad);
    t.regex(answer.text, /^Invalid level provided: /);
  }
  t.is(levels.text(), 'info');
});

test('a stop is asked for by POST, and begins when the answer is out', async (t) => {
  const { port, quits } = await serve(t);
  t.is((await ask(port, 'GET', '/quitquitquit')).status, 405);
  t.is(quits(), 0);
  t.like(await ask(port, 'POST', '/quitquitquit'), { status: 200, text: 'shutdown now\n' });
  while (quits() === 0) await new Promise(setImmediate);
  t.is(quits(), 1);
});

test('a page of another site stops nothing', async (t) => {
  const { port, quits } = await serve(t);
  const forged = await ask(port, 'POST', '/quitquitquit', { origin: 'http://evil.example' });
  t.is(forged.status, 403);
  t.is((await ask(port, 'POST', '/quitquitquit', { host: 'evil.example' })).status, 403);
  t.is(quits(), 0);
});

test('a profile is made of the main thread, one at a time', async (t) => {
  const { port } = await serve(t);
  const profile = ask(port, 'GET', '/debug/pprof/profile?seconds=1&frequency=100');
  for (;;) {
    const second = await ask(port, 'GET', '/debug/pprof/profile?seconds=1');
    if (second.status === 503) break;
  }
  const made = await profile;
  t.is(made.status, 200);
  t.true(Array.isArray((JSON.parse(made.text) as { nodes: unknown }).nodes));
  t.is((await ask(port, 'GET', '/debug/pprof/profile?seconds=301')).status, 400);
  t.is((await ask(port, 'GET', '/debug/pprof/profile?frequency=0')).status, 400);
});

test('what is mounted answers only what is not answered here, and only to whom it may', async (t) => {
  const { port, routes } = await serve(t);
  const seen: string[] = [];
  routes.mount((each, response) => {
    seen.push(each.url ?? '');
    if (each.url !== '/') return false;
    response.end('page');
    return true;
  });
  t.is((await ask(port, 'GET', '/')).text, 'page');
  t.is((await ask(port, 'GET', '/nothing')).status, 404);
  t.is((await ask(port, 'GET', '/healthz')).text, 'ok\n');
  t.is((await ask(port, 'GET', '/', { host: 'evil.example' })).status, 403);
  t.deepEqual(seen, ['/', '/nothing']);
});

test('what is mounted and fails costs nobody else anything', async (t) => {
  const { port, routes } = await serve(t);
  routes.mount((each) => {
    if (each.url === '/api/bad') throw new Error('boom');
    return false;
  });
  t.is((await ask(port, 'GET', '/api/bad')).status, 500);
  t.is((await ask(port, 'GET', '/healthz')).status, 200);
});

test('a body without end is not read to its end', async (t) => {
  const { port } = await serve(t);
  const asked = request({ host: HOME, port, method: 'POST', path: '/nothing', agent: false });
  asked.on('error', () => undefined);
  const closed = new Promise((resolve) => asked.on('close', resolve));
  const write = (): void => {
    while (!asked.destroyed && asked.write(Buffer.alloc(65_536)));
    asked.once('drain', write);
  };
  asked.on('response', (response) => response.resume());
  write();
  await closed;
  t.is((await ask(port, 'GET', '/healthz')).status, 200);
});

/** Time in which something is due only when the test says so. */
function ticks(): { readonly clock: Pick<Clock, 'every'>; tick(): void } {
  const due = new Set<() => void>();
  return {
    clock: {
      every(_ms, run) {
        due.add(run);
        return { stop: () => due.delete(run) };
      },
    },
    tick: () => {
      for (const run of [...due]) run();
    },
  };
}

test('a port that is taken is tried again, and keeps nobody from anything', async (t) => {
  const other = createTcpServer();
  other.listen(0, HOME);
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const [log, { clock, tick }] = [new FakeLog(), ticks()];
  const server = new AdminServer(
    { handle: (_request, response) => response.end('here'), clock, log: log.log },
    { at: { address: HOME, port } },
  );
  t.teardown(() => server.close());
  t.deepEqual(server.status(), { at: `${HOME}:${port}`, isListening: false, reason: undefined });
  await server.start();
  t.like(server.status(), { isListening: false });
  t.regex(server.status().reason ?? '', /EADDRINUSE/);
  t.like(await log.next('the admin port cannot be opened; trying again'), { level: 'error' });
  tick();
  t.like(await log.next('the admin port cannot be opened; trying again'), { level: 'debug' });
  other.close();
  await once(other, 'close');
  tick();
  await log.next('the admin port is open');
  t.deepEqual(server.status(), { at: `${HOME}:${port}`, isListening: true, reason: undefined });
  t.is((await ask(port, 'GET', '/')).text, 'here');
  await server.close();
  await t.throwsAsync(ask(port, 'GET', '/'), { code: 'ECONNREFUSED' });
});

test('closing does not wait for a client that never reads', async (t) => {
  const other = createTcpServer();
  other.listen(0, HOME);
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  other.close();
  await once(other, 'close');
  const server = new AdminServer(
    {
      handle: (_request, response) => void response.write('x'.repeat(10_000_000)),
      clock: ticks().clock,
      log: silentLog(),
    },
    { at: { address: HOME, port } },
  );
  await server.start();
  const asked = request({ host: HOME, port, agent: false });
  asked.on('error', () => undefined);
  asked.end();
  const [response] = await once(asked, 'response');
  response.on('error', () => undefined);
  await server.close();
  t.false(server.status().isListening);
});
