import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { callAgent } from '../../../src/agent/client.ts';
import { AgentError } from '../../../src/agent/errors.ts';
import { encodeReply, type Request } from '../../../src/agent/protocol.ts';
import { AgentServer, type AgentServerDeps, type AgentServerOptions } from '../../../src/agent/server.ts';
import { silentLog } from '../../../src/telemetry/index.ts';
import { pod } from '../../contract/fakes/pods.ts';

const unchanged = async (): Promise<string> => encodeReply({ ok: true, result: 'unchanged' });

function socketPath(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-sock-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return join(directory, 'agent.sock');
}

async function serve(
  t: ExecutionContext,
  deps: Partial<AgentServerDeps> = {},
  options: Partial<AgentServerOptions> = {},
) {
  const path = options.path ?? socketPath(t);
  const server = new AgentServer(
    { credentials: { peerUid: () => 0 }, log: silentLog(), answer: unchanged, ...deps },
    { uid: 0, ...options, path },
  );
  await server.listen();
  t.teardown(() => server.close());
  return { server, path };
}

async function connected(t: ExecutionContext, path: string): Promise<Socket> {
  const socket = connect({ path, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

/** Everything until the agent closes. */
async function read(socket: Socket): Promise<Array<Record<string, unknown>>> {
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  if (!socket.readableEnded && !socket.closed) {
    await Promise.race([once(socket, 'end'), once(socket, 'close')]);
  }
  return Buffer.concat(chunks)
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

const code = (reply: Record<string, unknown> | undefined): unknown => Reflect.get(Object(reply?.error), 'code');

test('answers a request over a socket of mode 0600', async (t) => {
  const { path } = await serve(t);
  t.is(statSync(path).mode & 0o777, 0o600);
  t.deepEqual(await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path }), {
    ok: true,
    result: 'unchanged',
  });
});

test('gives the handler the pod, and the caller the error', async (t) => {
  const seen: Request[] = [];
  const answer = async (request: Request): Promise<string> => {
    seen.push(request);
    throw new AgentError('NETNS_TAKEN', 'taken by b');
  };
  const { path } = await serve(t, { answer });
  await t.throwsAsync(callAgent<'enrol'>({ method: 'enrol', pod: pod() }, { path }), {
    code: 'NETNS_TAKEN',
    message: 'taken by b',
  });
  t.deepEqual(seen, [{ method: 'enrol', pod: pod() }]);
});

test('answers the requests of one client in order, however they are cut', async (t) => {
  const answer = async (request: Request): Promise<string> =>
    encodeReply({ ok: true, result: 'enrolled', netnsCookie: request.method === 'withdraw' ? request.uid : '' });
  const { path } = await serve(t, { answer });
  const socket = await connected(t, path);
  const text = ['a', 'b', 'c', 'd'].map((uid) => `{"method":"withdraw","uid":"${uid}"}\n`).join('');
  for (const piece of text.match(/.{1,7}|\n/gs) ?? []) socket.write(piece);
  socket.end();
  t.deepEqual(
    (await read(socket)).map(({ netnsCookie }) => netnsCookie),
    ['a', 'b', 'c', 'd'],
  );
});

test('goes on after a line that is not understood', async (t) => {
  const { path } = await serve(t);
  const socket = await connected(t, path);
  socket.end('junk\n\n{"method":"withdraw","uid":"a"}\n');
  const replies = await read(socket);
  t.deepEqual(replies.map(code), ['NOT_JSON', 'NOT_JSON', undefined]);
  t.is(replies[2]?.ok, true);
});

test('refuses 1 MiB of junk with a reply that the caller can read', async (t) => {
  const { path } = await serve(t);
  const socket = await connected(t, path);
  socket.write(Buffer.alloc(1024 * 1024, 'x'));
  t.deepEqual((await read(socket)).map(code), ['TOO_LARGE']);
});

test('refuses a request that ends half-way', async (t) => {
  const { path } = await serve(t);
  const socket = await connected(t, path);
  socket.end('{"method":"sta');
  t.deepEqual((await read(socket)).map(code), ['INCOMPLETE']);
});

test('a client that hangs is told and closed, and holds nobody', async (t) => {
  const { path } = await serve(t, {}, { requestDeadlineMs: 300 });
  const silent = await connected(t, path);
  const half = await connected(t, path);
  half.write('{"method":');
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
  t.deepEqual((await read(half)).map(code), ['TOO_SLOW']);
  t.deepEqual((await read(silent)).map(code), ['TOO_SLOW']);
});

test('a client that is slow drop by drop has no longer than the others', async (t) => {
  const { path } = await serve(t, {}, { requestDeadlineMs: 200 });
  const socket = await connected(t, path);
  const dripping = setInterval(() => socket.write(' '), 10);
  t.teardown(() => clearInterval(dripping));
  t.deepEqual((await read(socket)).map(code), ['TOO_SLOW']);
});

test('a client that never reads its replies is closed', async (t) => {
  const big = `${JSON.stringify({ ok: true, metrics: 'x'.repeat(4 * 1024 * 1024) })}\n`;
  const { server, path } = await serve(t, { answer: async () => big }, { requestDeadlineMs: 100 });
  const socket = await connected(t, path);
  socket.pause();
  socket.write('{"method":"metrics"}\n');
  // Closing waits for every client, so this resolves only when the agent has let go of it.
  await server.close();
  t.pass();
});

test('a request that hangs in the handler does not hold other clients', async (t) => {
  const gate = Promise.withResolvers<string>();
  const answer = (request: Request): Promise<string> => (request.method === 'status' ? gate.promise : unchanged());
  const { path } = await serve(t, { answer });
  const hanging = await connected(t, path);
  hanging.write('{"method":"status"}\n');
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
  gate.resolve('{"ok":true}\n');
  hanging.end();
  t.deepEqual(await read(hanging), [{ ok: true }]);
});

test('serves so many clients and no more, and takes new ones when some have left', async (t) => {
  const { path } = await serve(t, {}, { maxClients: 8 });
  const clients: Socket[] = [];
  for (let n = 0; n < 8; n += 1) clients.push(await connected(t, path));
  const refused = await connected(t, path);
  t.deepEqual((await read(refused)).map(code), ['TOO_MANY_CLIENTS']);
  for (const client of clients) {
    client.end();
    await read(client);
  }
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
});

test('refuses callers that are neither root nor its own user, without reading what they send', async (t) => {
  const answered: Request[] = [];
  const answer = (request: Request): Promise<string> => {
    answered.push(request);
    return unchanged();
  };
  const { path } = await serve(t, { answer, credentials: { peerUid: () => 1000 } });
  await t.throwsAsync(callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path }), {
    code: 'FORBIDDEN',
    message: /user 1000/,
  });
  t.deepEqual(answered, []);
});

test('serves its own user', async (t) => {
  const { path } = await serve(t, { credentials: { peerUid: () => 1000 } }, { uid: 1000 });
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
});

test('refuses a caller whose credentials cannot be read', async (t) => {
  const peerUid = (): number => {
    throw new Error('no credentials');
  };
  const { path } = await serve(t, { credentials: { peerUid } });
  await t.throwsAsync(callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path }), { code: 'FORBIDDEN' });
});

test('replaces the socket that a dead agent left behind', async (t) => {
  const path = socketPath(t);
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  t.true(statSync(path).isSocket());
  await serve(t, {}, { path });
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
});

test('refuses to replace a socket at which somebody answers', async (t) => {
  const { path } = await serve(t);
  const second = new AgentServer(
    { credentials: { peerUid: () => 0 }, log: silentLog(), answer: unchanged },
    { uid: 0, path },
  );
  await t.throwsAsync(second.listen(), { code: 'ALREADY_RUNNING' });
  t.is((await callAgent<'withdraw'>({ method: 'withdraw', uid: 'a' }, { path })).ok, true);
});

test('says why it cannot listen', async (t) => {
  const server = new AgentServer(
    { credentials: { peerUid: () => 0 }, log: silentLog(), answer: unchanged },
    { uid: 0, path: '/proc/no/agent.sock' },
  );
  await t.throwsAsync(server.listen(), { code: 'SOCKET_UNUSABLE' });
});

test('closing answers what is under way, removes the socket, and leaves nothing', async (t) => {
  const gate = Promise.withResolvers<string>();
  const asked = Promise.withResolvers<void>();
  const answer = (): Promise<string> => {
    asked.resolve();
    return gate.promise;
  };
  const { server, path } = await serve(t, { answer });
  const socket = await connected(t, path);
  const idle = await connected(t, path);
  socket.write('{"method":"status"}\n');
  const replies = read(socket);
  await asked.promise;
  const closed = server.close();
  gate.resolve('{"ok":true}\n');
  t.deepEqual(await replies, [{ ok: true }]);
  t.deepEqual(await read(idle), []);
  socket.destroy();
  idle.destroy();
  await closed;
  t.deepEqual(readdirSync(join(path, '..')), []);
});

test('a caller learns that no agent is there, or that it is silent, or that it talks nonsense', async (t) => {
  const path = socketPath(t);
  const call = (deadlineMs = 5_000) => callAgent<'status'>({ method: 'status' }, { path, deadlineMs });
  await t.throwsAsync(call(), { code: 'AGENT_UNREACHABLE', message: /is it running/ });
  const replies: Array<string | undefined> = [undefined, 'hello\n', ''];
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.resume();
    const reply = replies.shift();
    if (reply !== undefined) socket.end(reply);
  });
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  await t.throwsAsync(call(50), { code: 'AGENT_SILENT' });
  await t.throwsAsync(call(), { code: 'BAD_REPLY', message: /not JSON/ });
  await t.throwsAsync(call(), { code: 'BAD_REPLY', message: /without a reply/ });
});
