import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setImmediate } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { threadFrames } from '../../../src/hbone/frames/index.ts';
import { HboneError, TunnelServer, type TunnelServerOptions } from '../../../src/hbone/index.ts';
import type { ClientSession } from '../../../src/hbone/session.ts';
import { clientHandshake } from '../../../src/hbone/tls/handshake.ts';
import type { Certificate, Endpoint, SpiffeId } from '../../../src/mesh/index.ts';
import { FakeCertificates } from '../../contract/fakes/certificates.ts';
import { CLIENT, FAULTY, makeAuthority, SERVER } from '../../pki.ts';
import { collect, type FarEnd, farEnd } from './world.ts';

const authority = await makeAuthority();
const client = await authority.issue({ identity: CLIENT });
const server = await authority.issue({ identity: SERVER });
const never = new AbortController().signal;

async function reach({ port }: Endpoint): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  socket.on('error', () => {});
  await once(socket, 'connect');
  return socket;
}

async function open(endpoint: Endpoint, certificate: Certificate = client): Promise<ClientSession> {
  const { socket } = await clientHandshake(await reach(endpoint), certificate, [SERVER], { signal: never });
  return threadFrames.client(socket);
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await setImmediate();
}

function law(
  title: string,
  options: Partial<TunnelServerOptions>,
  run: (t: ExecutionContext, far: FarEnd) => Promise<void>,
): void {
  test(title, async (t) => {
    const far = await farEnd(new FakeCertificates(server), undefined, options);
    try {
      await run(t, far);
    } finally {
      far.close();
    }
  });
}

for (const [fault, make] of Object.entries(FAULTY))
  law(`a client with a certificate ${fault} is refused, told of, and asks for nothing`, {}, async (t, far) => {
    const refusal = far.refused();
    const session = await open(far.endpoint, await make(authority, 'client'));
    await t.throwsAsync(session.connect('127.0.0.1:80', [], never), { instanceOf: HboneError });
    const { endpoint, error } = await refusal;
    t.is(endpoint?.address, far.endpoint.address);
    t.regex(error.code, /^(TLS_FAILED|PEER_TRUST_DOMAIN)$/);
    t.deepEqual(far.requests, []);
    t.is(far.server.sessions, 0);
    await far.server.emptied();
    t.is(far.refusals.length, 1);
  });

law('a connection that says nothing ends at the deadline', { handshakeTimeoutMs: 1 }, async (t, far) => {
  const refusal = far.refused();
  const socket = await reach(far.endpoint);
  t.is((await refusal).error.message, 'TLS handshake failed: it took longer than 1 ms');
  socket.resume();
  await once(socket, 'end');
  socket.destroy();
});

test('the wait for the own certificate ends at the deadline too', async (t) => {
  const far = await farEnd({ certificate: () => new Promise(() => {}) }, undefined, { handshakeTimeoutMs: 1 });
  const refusal = far.refused();
  const socket = await reach(far.endpoint);
  t.is((await refusal).error.code, 'TLS_FAILED');
  socket.destroy();
  far.close();
});

test('without an own certificate everybody is refused', async (t) => {
  const far = await farEnd(new FakeCertificates());
  const refusal = far.refused();
  const socket = await reach(far.endpoint);
  t.is((await refusal).error.code, 'IDENTITY_UNAVAILABLE');
  socket.destroy();
  far.close();
});

law('of too many handshakes the oldest gives way', { maxHandshakes: 2 }, async (t, far) => {
  const refusal = far.refused();
  const idle = [];
  for (let count = 0; count < 2; count += 1) {
    idle.push(await reach(far.endpoint));
    await until(() => far.sockets.length === count + 1);
  }
  const session = await open(far.endpoint);
  const { endpoint, error } = await refusal;
  t.is(error.code, 'EXCESS');
  t.is(endpoint?.port, idle[0]?.localPort);
  t.is(session.state().name, 'open');
  await until(() => far.server.sessions === 1);
  t.is(far.refusals.length, 1);
  for (const socket of idle) socket.destroy();
});

for (const options of [{ maxSessions: 1, maxSessionsPerAddress: 9 }, { maxSessionsPerAddress: 1 }])
  law(`of too many sessions in use the newest is refused: ${Object.keys(options)[0]}`, options, async (t, far) => {
    const session = await open(far.endpoint);
    await session.connect('127.0.0.1:80', [], never);
    const refusal = far.refused();
    const socket = await reach(far.endpoint);
    t.is((await refusal).error.code, 'EXCESS');
    socket.destroy();
    session.close();
    await until(() => far.server.sessions === 0);
    await open(far.endpoint);
    await until(() => far.server.sessions === 1);
  });

for (const options of [{ maxSessions: 3, maxSessionsPerAddress: 9 }, { maxSessionsPerAddress: 3 }])
  law(
    `of too many sessions the one that is idle the longest gives way: ${Object.keys(options)[0]}`,
    options,
    async (t, far) => {
      const busy = await open(far.endpoint);
      await busy.connect('127.0.0.1:80', [], never);
      const sessions: ClientSession[] = [];
      for (let count = 2; count <= 3; count += 1) {
        const session = await open(far.endpoint);
        sessions.push(session);
        const { stream } = await session.connect('127.0.0.1:80', [], never);
        const collector = collect(stream);
        stream.end();
        await collector.closes.promise;
        t.is(far.server.sessions, count);
      }
      const [longest, shorter] = sessions;
      const newest = await open(far.endpoint);
      await newest.connect('127.0.0.1:80', [], never);
      await until(() => longest?.state().name === 'closed');
      t.is(far.server.sessions, 3);
      t.deepEqual(
        [busy, shorter, newest].map((session) => session?.state().name),
        ['open', 'open', 'open'],
      );
      t.deepEqual(far.refusals, []);
    },
  );

law(
  'a session without a stream ends in time, however alive its peer is; one with a stream stays',
  { idleMs: 20 },
  async (t, far) => {
    const busy = await open(far.endpoint);
    const { stream } = await busy.connect('127.0.0.1:80', [], never);
    const idle = await open(far.endpoint);
    t.is(await new Promise((resolve) => idle.onClose(resolve)), undefined);
    await until(() => far.server.sessions === 1);
    const collector = collect(stream);
    stream.write(Buffer.from('still'));
    await until(() => collector.text === 'still');
    t.is(busy.state().name, 'open');
  },
);

law('a draining server finishes its streams, then is empty', {}, async (t, far) => {
  const session = await open(far.endpoint);
  const { stream } = await session.connect('127.0.0.1:80', [], never);
  const collector = collect(stream);
  far.server.drain();
  const refusal = far.refused();
  const late = await reach(far.endpoint);
  t.is((await refusal).error.code, 'CLOSED');
  late.destroy();
  const emptied = far.server.emptied();
  stream.write(Buffer.from('still'));
  await until(() => collector.text === 'still');
  t.is(far.server.sessions, 1);
  stream.end();
  t.is(await collector.closes.promise, undefined);
  await emptied;
  t.is(far.server.sessions, 0);
});

law('a handshake that is under way when the drain begins ends in a session that drains', {}, async (t, far) => {
  const socket = await reach(far.endpoint);
  await until(() => far.sockets.length === 1);
  far.server.drain();
  const secured = await clientHandshake(socket, client, [SERVER], { signal: never });
  const session = threadFrames.client(secured.socket);
  // What crosses the GOAWAY may be served or not.
  const answer = await session.connect('127.0.0.1:80', [], never).catch(() => undefined);
  if (answer !== undefined) {
    collect(answer.stream);
    answer.stream.end();
  }
  await far.server.emptied();
  t.deepEqual(far.refusals, []);
});

law('a closed server ends sessions and handshakes at once', {}, async (t, far) => {
  const session = await open(far.endpoint);
  const { stream } = await session.connect('127.0.0.1:80', [], never);
  const collector = collect(stream);
  const idle = await reach(far.endpoint);
  await until(() => far.sockets.length === 2);
  const emptied = far.server.emptied();
  const refusal = far.refused();
  far.server.close();
  t.is((await refusal).error.code, 'CLOSED');
  t.not(await collector.closes.promise, undefined);
  await emptied;
  idle.destroy();
});

test('an empty server is empty', async (t) => {
  const far = await farEnd(new FakeCertificates(server));
  await far.server.emptied();
  t.is(far.server.sessions, 0);
  far.close();
});

test('a server needs a SPIFFE id', (t) => {
  t.throws(
    () =>
      new TunnelServer(
        { certificates: new FakeCertificates(), onRequest: () => {}, onRefused: () => {} },
        { identity: 'me' as SpiffeId },
      ),
    { instanceOf: HboneError },
  );
});

test('a certificate that is renewed is used for new sessions, and old ones live on', async (t) => {
  const certificates = new FakeCertificates(server);
  const far = await farEnd(certificates);
  const session = await open(far.endpoint);
  const { stream } = await session.connect('127.0.0.1:80', [], never);
  const collector = collect(stream);
  const renewed = await makeAuthority();
  certificates.issue({ ...(await renewed.issue({ identity: SERVER })), roots: [authority.root] });
  const error = await t.throwsAsync(open(far.endpoint), { instanceOf: HboneError });
  t.regex(error?.message ?? '', /trust/, 'the client does not know the new root');
  const second = await open(far.endpoint, { ...client, roots: [authority.root, renewed.root] });
  t.is(second.state().name, 'open');
  stream.write(Buffer.from('alive'));
  await until(() => collector.text === 'alive');
  far.close();
});
