import { createHash, randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import test, { type ExecutionContext } from 'ava';
import { threadFrames } from '../../src/hbone/frames/index.ts';
import { HboneError, type HeaderFields, type SessionOptions, type TunnelStream } from '../../src/hbone/index.ts';
import type { ClientSession, IncomingRequest, ServerSession } from '../../src/hbone/session.ts';
import { RecordingSink } from './sink.ts';
import { tlsPair } from './tls-pair.ts';

/** Two sessions over one TLS connection. */
interface Subject {
  readonly client: ClientSession;
  readonly server: ServerSession;
  readonly clientSocket: Duplex;
  readonly serverSocket: Duplex;
  /** The next request that arrives. */
  request(): Promise<IncomingRequest>;
  /** A CONNECT that the server has accepted: both ends of its stream. */
  open(): Promise<{ near: TunnelStream; far: TunnelStream }>;
  /** The same, with a sink at both ends. */
  joined(): Promise<{ near: RecordingSink; far: RecordingSink }>;
}

interface Options {
  readonly client?: SessionOptions;
  readonly server?: SessionOptions;
}

const NEVER = new AbortController().signal;
const AUTHORITY = '10.0.0.7:8080';
const MIB = 2 ** 20;
/** What a stream's reader that stalls may leave on the way: both windows, both ends' buffers. */
const ON_THE_WAY = 24 * MIB;

const law = (
  title: string,
  run: (t: ExecutionContext, subject: Subject) => Promise<void>,
  options: Options = {},
): void =>
  test(title, async (t) => {
    const subject = await makeSubject(options);
    try {
      await run(t, subject);
    } finally {
      subject.client.close();
      subject.server.close();
      subject.clientSocket.destroy();
      subject.serverSocket.destroy();
    }
  });

law('carries a CONNECT and its headers there, an answer and its headers back', async (t, { client, request }) => {
  const headers: HeaderFields = [
    ['baggage', 'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop'],
    ['forwarded', 'for="10.0.0.1:40000";host=reviews.shop.svc.cluster.local'],
    ['traceparent', `00-${'4'.repeat(32)}-${'5'.repeat(16)}-00`],
  ];
  const answered = client.connect('[fd00::7]:8080', headers, NEVER);
  const asked = await request();
  t.is(asked.method, 'CONNECT');
  t.is(asked.authority, '[fd00::7]:8080');
  t.deepEqual(sorted(asked.headers), sorted(headers));
  asked.accept([['baggage', 'service.name=reviews']]);
  const { headers: answer, stream } = await answered;
  t.deepEqual(
    answer.filter(([field]) => field === 'baggage'),
    [['baggage', 'service.name=reviews']],
  );
  t.is(stream.id % 2, 1);
});

law('carries long headers', async (t, { client, request }) => {
  const headers: HeaderFields = [['baggage', 'x'.repeat(12_000)]];
  client.connect(AUTHORITY, headers, NEVER).catch(() => undefined);
  t.deepEqual(sorted((await request()).headers), sorted(headers));
});

for (const status of [400, 401, 503]) {
  law(`fails a CONNECT that is answered with ${status}`, async (t, { client, server, request }) => {
    const answered = client.connect(AUTHORITY, [], NEVER);
    (await request()).refuse(status);
    const error = await t.throwsAsync(answered, { instanceOf: HboneError, code: 'STATUS' });
    t.is(error.status, status);
    t.is(client.state().name, 'open');
    t.is(server.state().name, 'open');
    t.is(client.openStreams, 0);
  });
}

law('takes a stream away that was refused, on both sides', async (t, { client, server, request, joined }) => {
  const answered = client.connect(AUTHORITY, [], NEVER);
  (await request()).refuse(503);
  await t.throwsAsync(answered);
  // A whole stream's life is more than a round trip.
  const { near, far } = await joined();
  near.stream.end();
  far.stream.end();
  await Promise.all([near.whenClosed(), far.whenClosed()]);
  t.is(client.openStreams + server.openStreams, 0);
});

law('takes a request back when its caller gives up', async (t, { client, server, request }) => {
  const abort = new AbortController();
  const answered = client.connect(AUTHORITY, [], abort.signal);
  const asked = await request();
  const cancelled = new Promise<HboneError>((resolve) => asked.onCancel(resolve));
  abort.abort();
  await t.throwsAsync(answered, { instanceOf: HboneError, code: 'CLOSED' });
  t.is((await cancelled).code, 'STREAM_RESET');
  t.is(client.openStreams, 0);
  t.is(server.openStreams, 0);
  // Too late, and harmless.
  asked.accept([]).end();
});

law('sends nothing for a caller that has given up before', async (t, { client, request }) => {
  const aborted = client.connect('10.0.0.1:1', [], AbortSignal.abort());
  await t.throwsAsync(aborted, { instanceOf: HboneError, code: 'CLOSED' });
  client.connect('10.0.0.2:2', [], NEVER).catch(() => undefined);
  t.is((await request()).authority, '10.0.0.2:2');
});

law('carries bytes both ways at once, unchanged', async (t, { joined }) => {
  const { near, far } = await joined();
  const up = randomBytes(8 * MIB);
  const down = randomBytes(8 * MIB);
  const sent = [send(near, up, 100_000), send(far, down, 7777)];
  await Promise.all([...sent, far.until(() => far.bytes === up.length), near.until(() => near.bytes === down.length)]);
  t.is(far.digest(), digest(up));
  t.is(near.digest(), digest(down));
});

law('keeps streams apart', async (t, { joined }) => {
  const pairs = await Promise.all(Array.from({ length: 50 }, () => joined()));
  const texts = pairs.map((_, index) => `stream ${index} `.repeat(2000));
  for (const [index, { near }] of pairs.entries()) {
    near.stream.write(Buffer.from(texts[index] ?? ''));
    near.stream.end();
  }
  await Promise.all(pairs.map(({ far }) => far.whenEnded()));
  t.deepEqual(
    pairs.map(({ far }) => far.text),
    texts,
  );
});

law('holds what comes until somebody is told, and then delivers it in order', async (t, { open, joined }) => {
  const { near, far } = await open();
  for (const word of ['one ', 'two ', 'three']) near.write(Buffer.from(word));
  near.end();
  // Another stream's bytes come after these.
  const other = await joined();
  other.near.stream.write(Buffer.from('!'));
  await other.far.until(() => other.far.bytes === 1);
  const sink = new RecordingSink(far);
  await sink.whenEnded();
  t.is(sink.text, 'one two three');
});

law('has taken what is written when `write` returns', async (t, { joined }) => {
  const { near, far } = await joined();
  const bytes = randomBytes(3 * MIB);
  const piece = Buffer.alloc(10_000);
  for (let at = 0; at < bytes.length; at += piece.length) {
    const size = bytes.copy(piece, 0, at);
    near.stream.write(piece.subarray(0, size));
    piece.fill(0);
  }
  near.stream.end();
  await far.whenEnded();
  t.is(far.digest(), digest(bytes));
});

law('lets the server speak first', async (t, { open }) => {
  const { near, far } = await open();
  far.write(Buffer.from('220 ready'));
  const sink = new RecordingSink(near);
  await sink.until(() => sink.bytes === 9);
  t.is(sink.text, '220 ready');
});

for (const first of ['near', 'far'] as const) {
  law(`keeps the other direction going when the ${first} end has ended`, async (t, { joined, client, server }) => {
    const pair = await joined();
    const one = pair[first];
    const other = pair[first === 'near' ? 'far' : 'near'];
    one.stream.write(Buffer.from('the last'));
    one.stream.end();
    await other.whenEnded();
    t.is(other.text, 'the last');
    t.deepEqual(one.events, []);
    for (let each = 0; each < 3; each += 1) other.stream.write(Buffer.from('more '));
    other.stream.end();
    await one.whenEnded();
    t.is(one.text, 'more more more ');
    t.is(await one.whenClosed(), undefined);
    t.is(await other.whenClosed(), undefined);
    t.is(client.openStreams + server.openStreams, 0);
    t.deepEqual(one.events, ['ended', 'closed']);
  });
}

law('ends a stream without a byte', async (t, { joined }) => {
  const { near, far } = await joined();
  near.stream.end();
  far.stream.end();
  t.is(await near.whenClosed(), undefined);
  t.is(await far.whenClosed(), undefined);
  t.is(near.bytes + far.bytes, 0);
});

law('ends only after everything that was written, however much', async (t, { joined }) => {
  const { near, far } = await joined();
  const bytes = randomBytes(10 * MIB);
  near.stream.write(bytes);
  near.stream.end();
  near.stream.end();
  near.stream.write(Buffer.from('too late'));
  await far.whenEnded();
  t.is(far.digest(), digest(bytes));
});

for (const first of ['near', 'far'] as const) {
  law(`makes a reset of the ${first} end a reset of the other`, async (t, { joined, client, server }) => {
    const pair = await joined();
    const one = pair[first];
    const other = pair[first === 'near' ? 'far' : 'near'];
    one.stream.reset();
    one.stream.reset();
    t.is((await other.whenClosed())?.code, 'STREAM_RESET');
    t.truthy(await one.whenClosed());
    t.deepEqual(other.events, ['closed']);
    t.is(client.openStreams + server.openStreams, 0);
    t.is(client.state().name, 'open');
  });
}

law('makes a reset of a stream whose other direction had ended a reset', async (t, { joined }) => {
  const { near, far } = await joined();
  near.stream.end();
  await far.whenEnded();
  near.stream.reset();
  t.is((await far.whenClosed())?.code, 'STREAM_RESET');
});

law('never calls back from within a call', async (t, { joined }) => {
  const { near, far } = await joined();
  near.silently(() => {
    for (let each = 0; each < 40; each += 1) near.stream.write(Buffer.alloc(100_000));
    near.stream.pause();
    near.stream.resume();
    near.stream.end();
  });
  await far.whenEnded();
  far.silently(() => far.stream.end());
  await near.whenClosed();
  const next = await joined();
  next.near.silently(() => next.near.stream.reset());
  await next.near.whenClosed();
  t.is(near.outOfTurn + far.outOfTurn + next.near.outOfTurn, 0);
});

law('stops a writer whose reader stalls, and loses nothing', async (t, { joined }) => {
  const { near, far } = await joined();
  far.stream.pause();
  const block = randomBytes(64 * 1024);
  const hash = createHash('sha256');
  let sent = 0;
  const more = (): void => {
    while (!near.stream.isFull) {
      hash.update(block);
      near.stream.write(block);
      sent += block.length;
    }
  };
  // Until nothing moves any more: another stream goes there and back meanwhile.
  for (let before = -1; before !== sent; ) {
    before = sent;
    more();
    const other = await joined();
    other.near.stream.write(Buffer.alloc(1));
    await other.far.until(() => other.far.bytes === 1);
    other.near.stream.reset();
    await other.far.whenClosed();
    if (!near.stream.isFull) before = -1;
  }
  t.true(near.stream.isFull);
  t.true(sent <= ON_THE_WAY, `${sent} bytes`);
  t.is(far.bytes, 0);
  const drained = near.events.length;
  far.stream.resume();
  await near.until(() => near.events.length > drained);
  t.is(near.events.at(-1), 'drained');
  t.false(near.stream.isFull);
  near.stream.end();
  await far.whenEnded();
  t.is(far.bytes, sent);
  t.is(far.digest(), hash.digest('hex'));
});

law('does not let a stalled stream slow its neighbours', async (t, { joined }) => {
  const stalled = await joined();
  stalled.far.stream.pause();
  while (!stalled.near.stream.isFull) stalled.near.stream.write(Buffer.alloc(MIB));
  const { near, far } = await joined();
  const bytes = Buffer.alloc(64 * MIB);
  await send(near, bytes, MIB);
  await far.until(() => far.bytes === bytes.length);
  t.is(stalled.far.bytes, 0);
});

law('delivers nothing while paused, and everything after', async (t, { joined }) => {
  const { near, far } = await joined();
  const other = await joined();
  far.stream.pause();
  near.stream.write(Buffer.from('held'));
  near.stream.end();
  other.near.stream.write(Buffer.from('!'));
  await other.far.until(() => other.far.bytes === 1);
  t.deepEqual(far.events, []);
  t.is(far.bytes, 0);
  far.stream.resume();
  await far.whenEnded();
  t.is(far.text, 'held');
});

law('lets a sink pause from within `data`', async (t, { open }) => {
  const { near, far } = await open();
  let bytes = 0;
  let calls = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  far.attach({
    data: (chunk) => {
      bytes += chunk.length;
      calls += 1;
      far.pause();
      setImmediate(() => far.resume());
    },
    drained: () => undefined,
    ended: resolve,
    closed: () => undefined,
  });
  for (let each = 0; each < 50; each += 1) near.write(randomBytes(10_000));
  near.end();
  await promise;
  t.is(bytes, 500_000);
  t.true(calls > 1);
});

law(
  'opens no more streams than the server allows',
  async (t, { client, joined, request }) => {
    const first = await joined();
    t.is(client.maxStreams, 2);
    t.is(client.openStreams, 1);
    first.near.stream.end();
    first.far.stream.end();
    await first.near.whenClosed();
    await first.far.whenClosed();
    for (let each = 0; each < 2; each += 1) {
      client.connect(AUTHORITY, [], NEVER).catch(() => undefined);
      (await request()).accept([]);
    }
    t.is(client.openStreams, 2);
  },
  { server: { maxStreams: 2 } },
);

law('finishes what is open when the server drains', async (t, { client, server, joined }) => {
  const { near, far } = await joined();
  const closed = [closing(client), closing(server)];
  server.drain();
  server.drain();
  t.is(server.state().name, 'draining');
  near.stream.write(Buffer.from('still here'));
  await far.until(() => far.bytes === 10);
  await until(() => client.state().name === 'draining', near, far);
  await t.throwsAsync(client.connect(AUTHORITY, [], NEVER), { instanceOf: HboneError, code: 'STREAM_REFUSED' });
  near.stream.end();
  far.stream.end();
  t.is(await near.whenClosed(), undefined);
  t.is(await far.whenClosed(), undefined);
  t.deepEqual(await Promise.all(closed), [undefined, undefined]);
});

law('finishes what is open when the client drains', async (t, { client, server, joined }) => {
  const { near, far } = await joined();
  const closed = [closing(client), closing(server)];
  client.drain();
  client.drain();
  t.is(client.state().name, 'draining');
  await t.throwsAsync(client.connect(AUTHORITY, [], NEVER), { instanceOf: HboneError, code: 'STREAM_REFUSED' });
  far.stream.write(Buffer.from('still here'));
  await near.until(() => near.bytes === 10);
  near.stream.end();
  far.stream.end();
  t.is(await near.whenClosed(), undefined);
  t.is(await far.whenClosed(), undefined);
  t.deepEqual(await Promise.all(closed), [undefined, undefined]);
});

for (const end of ['client', 'server'] as const) {
  law(`closes when the ${end} drains and nothing is open`, async (t, { client, server, joined }) => {
    const { near, far } = await joined();
    near.stream.end();
    far.stream.end();
    await Promise.all([near.whenClosed(), far.whenClosed()]);
    const closed = [closing(client), closing(server)];
    (end === 'client' ? client : server).drain();
    t.deepEqual(await Promise.all(closed), [undefined, undefined]);
    t.is(client.state().name, 'closed');
    t.is(server.state().name, 'closed');
  });
}

for (const end of ['client', 'server'] as const) {
  law(`ends every stream when the ${end} closes`, async (t, subject) => {
    const { near, far } = await subject.joined();
    const own = end === 'client' ? near : far;
    const other = end === 'client' ? far : near;
    const closed = closing(end === 'client' ? subject.server : subject.client);
    subject[end].close();
    subject[end].close();
    t.is((await own.whenClosed())?.code, 'CLOSED');
    t.truthy(await other.whenClosed());
    await closed;
    t.is(subject.client.openStreams + subject.server.openStreams, 0);
    await t.throwsAsync(subject.client.connect(AUTHORITY, [], NEVER), { instanceOf: HboneError });
  });
}

law('says with what it was closed', async (t, { client, joined }) => {
  const { near } = await joined();
  const closed = closing(client);
  const error = new HboneError('PEER_IDENTITY', 'somebody else');
  client.close(error);
  t.is(await closed, error);
  t.is(await near.whenClosed(), error);
  t.deepEqual(client.state(), { name: 'closed', error });
});

law('is lost, and everything of it, when the connection breaks', async (t, subject) => {
  const { client, server, request, joined } = subject;
  const { near, far } = await joined();
  const waiting = client.connect(AUTHORITY, [], NEVER);
  const cancelled = request().then((asked) => new Promise<HboneError>((resolve) => asked.onCancel(resolve)));
  const another = client.connect(AUTHORITY, [], NEVER);
  another.catch(() => undefined);
  await request();
  const closed = [closing(client), closing(server)];
  subject.serverSocket.destroy();
  t.is((await t.throwsAsync(waiting, { instanceOf: HboneError })).code, 'SESSION_LOST');
  t.is((await near.whenClosed())?.code, 'SESSION_LOST');
  t.is((await far.whenClosed())?.code, 'SESSION_LOST');
  t.is((await cancelled).code, 'SESSION_LOST');
  for (const error of await Promise.all(closed)) t.is(error?.code, 'SESSION_LOST');
  t.is(client.state().name, 'closed');
  await t.throwsAsync(client.connect(AUTHORITY, [], NEVER), { instanceOf: HboneError });
});

test('gives up a peer that says nothing', async (t) => {
  const { client: clientSocket, server: serverSocket } = await tlsPair();
  serverSocket.resume();
  const client = threadFrames.client(clientSocket, { pingIntervalMs: 20, pingTimeoutMs: 50 });
  const waiting = client.connect(AUTHORITY, [], NEVER);
  const closed = closing(client);
  t.is((await t.throwsAsync(waiting, { instanceOf: HboneError })).code, 'PEER_SILENT');
  t.is((await closed)?.code, 'PEER_SILENT');
  serverSocket.destroy();
});

law(
  'keeps a peer that answers, however long it has nothing else to say',
  async (t, { client, server, joined }) => {
    const { near, far } = await joined();
    // Some dozens of intervals: what would be given up would be so by now.
    await new Promise((resolve) => setTimeout(resolve, 500));
    near.stream.write(Buffer.from('still here'));
    await far.until(() => far.bytes === 10);
    t.is(client.state().name, 'open');
    t.is(server.state().name, 'open');
  },
  { client: { pingIntervalMs: 10, pingTimeoutMs: 10_000 }, server: { pingIntervalMs: 10, pingTimeoutMs: 10_000 } },
);

async function makeSubject(options: Options): Promise<Subject> {
  const { client: clientSocket, server: serverSocket } = await tlsPair();
  const waiting: IncomingRequest[] = [];
  const wanted: Array<(request: IncomingRequest) => void> = [];
  const onRequest = (request: IncomingRequest): void => {
    const next = wanted.shift();
    if (next === undefined) waiting.push(request);
    else next(request);
  };
  const server = threadFrames.server(serverSocket, onRequest, options.server);
  const client = threadFrames.client(clientSocket, options.client);
  const request = (): Promise<IncomingRequest> => {
    const there = waiting.shift();
    return there === undefined ? new Promise((resolve) => wanted.push(resolve)) : Promise.resolve(there);
  };
  const open = async (): Promise<{ near: TunnelStream; far: TunnelStream }> => {
    const answered = client.connect(AUTHORITY, [], NEVER);
    const far = (await request()).accept([]);
    return { near: (await answered).stream, far };
  };
  const joined = async (): Promise<{ near: RecordingSink; far: RecordingSink }> => {
    const { near, far } = await open();
    return { near: new RecordingSink(near), far: new RecordingSink(far) };
  };
  return { client, server, clientSocket, serverSocket, request, open, joined };
}

/** Writes as fast as the stream takes it. */
async function send(sink: RecordingSink, bytes: Buffer, pieceBytes: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    await sink.until(() => !sink.stream.isFull);
    sink.stream.write(bytes.subarray(at, at + pieceBytes));
  }
}

/** Waits for something that no event tells of, while bytes go back and forth. */
async function until(condition: () => boolean, near: RecordingSink, far: RecordingSink): Promise<void> {
  while (!condition()) {
    const before = near.bytes;
    far.stream.write(Buffer.from('.'));
    await near.until(() => near.bytes > before);
  }
}

function closing(session: ClientSession | ServerSession): Promise<HboneError | undefined> {
  return new Promise((resolve) => session.onClose(resolve));
}

function sorted(headers: HeaderFields): HeaderFields {
  return headers.map(([field, value]) => [field, value] as const).toSorted(([a], [b]) => (a < b ? -1 : 1));
}

function digest(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
