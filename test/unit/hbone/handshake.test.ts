import { once } from 'node:events';
import type { Socket } from 'node:net';
import { connect, createSecureContext, type SecureContextOptions, TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { HboneError } from '../../../src/hbone/index.ts';
import { clientHandshake, type SecuredSocket, serverHandshake } from '../../../src/hbone/tls/handshake.ts';
import type { Certificate, SpiffeId } from '../../../src/mesh/index.ts';
import { CLIENT, FAULTY, makeAuthority, SERVER, withTwoNames } from '../../pki.ts';
import { pair } from '../ztunnel/loopback.ts';

const good = await makeAuthority();
const client = await good.issue({ identity: CLIENT });
const server = await good.issue({ identity: SERVER });
const never = new AbortController().signal;

type Outcome = SecuredSocket | HboneError;

async function outcome(handshake: Promise<SecuredSocket>): Promise<Outcome> {
  return await handshake.catch((error: HboneError) => error);
}

/** Our two ends with each other. */
async function shake(
  clientCertificate: Certificate,
  serverCertificate: Certificate,
  acceptable: readonly SpiffeId[] = [SERVER],
): Promise<{ near: Socket; far: Socket; ofClient: Outcome; ofServer: Outcome }> {
  const [near, far] = await pair();
  const [ofClient, ofServer] = await Promise.all([
    outcome(clientHandshake(near, clientCertificate, acceptable, { signal: never })),
    outcome(serverHandshake(far, serverCertificate, 'cluster.local', { signal: never })),
  ]);
  return { near, far, ofClient, ofServer };
}

function isRefusal(t: ExecutionContext, outcome: Outcome, code: string, message: RegExp): void {
  if (!(outcome instanceof HboneError)) {
    t.fail('the handshake went through');
    return;
  }
  t.is(String(outcome.code), code);
  t.regex(outcome.message, message);
}

function isSecured(t: ExecutionContext, outcome: Outcome): outcome is SecuredSocket {
  t.false(outcome instanceof HboneError, String(outcome));
  return !(outcome instanceof HboneError);
}

async function closed(socket: Socket): Promise<void> {
  if (!socket.closed) await once(socket, 'close');
}

test('two peers of one mesh know each other', async (t) => {
  const { near, far, ofClient, ofServer } = await shake(client, server);
  if (!isSecured(t, ofClient) || !isSecured(t, ofServer)) return;
  t.is(ofClient.peer, SERVER);
  t.is(ofServer.peer, CLIENT);
  for (const { socket } of [ofClient, ofServer]) {
    t.is(socket.getProtocol(), 'TLSv1.3');
    t.is(socket.alpnProtocol, 'h2');
    t.is(socket.getCipher().name, 'TLS_AES_128_GCM_SHA256');
    t.false(socket.isSessionReused());
  }
  t.like(ofClient.socket.getEphemeralKeyInfo(), { name: 'X25519MLKEM768' });
  t.falsy(Reflect.get(ofServer.socket, 'servername'), 'no server name is sent');
  ofClient.socket.end('question');
  t.is(String(await once(ofServer.socket, 'data')), 'question');
  near.destroy();
  far.destroy();
});

/** What is said of a faulty certificate: to its holder's peer. */
const FAULTS: Readonly<
  Record<string, { server: readonly [code: string, text: RegExp]; client?: readonly [code: string, text: RegExp] }>
> = {
  'of another trust domain': {
    server: [
      'PEER_TRUST_DOMAIN',
      /^identity verification error: peer did not present the expected trustdomain \(cluster\.local\), got spiffe:\/\/elsewhere\.example\/ns\/shop\/sa\/client$/,
    ],
    client: [
      'PEER_IDENTITY',
      /^identity verification error: peer did not present the expected SAN \(spiffe:\/\/cluster\.local\/ns\/shop\/sa\/server\), got spiffe:\/\/elsewhere\.example\/ns\/shop\/sa\/client$/,
    ],
  },
  expired: { server: ['TLS_FAILED', /certificate has expired/] },
  'not yet valid': { server: ['TLS_FAILED', /certificate is not valid yet/] },
  'without a SPIFFE id': {
    server: ['PEER_TRUST_DOMAIN', /expected trustdomain \(cluster\.local\), got $/],
    client: ['PEER_IDENTITY', /\), got $/],
  },
  'without any name': {
    server: ['PEER_TRUST_DOMAIN', /expected trustdomain \(cluster\.local\), got $/],
    client: ['PEER_IDENTITY', /\), got $/],
  },
  'with a malformed SPIFFE id': {
    server: ['PEER_TRUST_DOMAIN', /got spiffe:\/\/cluster\.local\/ns\/shop\/sa\/client\/more$/],
    client: ['PEER_IDENTITY', /got spiffe:\/\/cluster\.local\/ns\/shop\/sa\/server\/more$/],
  },
  'of the wrong usage': { server: ['TLS_FAILED', /not meant for this use/] },
  'self-signed': { server: ['TLS_FAILED', /signed by itself only/] },
  'under another root': { server: ['TLS_FAILED', /signed by a?n?y?(?:nobody whom| root that) we (?:do not )?trust/] },
};

test('every faulty certificate has its row', (t) =>
  t.deepEqual(Object.keys(FAULTS).sort(), Object.keys(FAULTY).sort()));

for (const [fault, make] of Object.entries(FAULTY)) {
  const said = FAULTS[fault];

  test(`a server refuses a client certificate ${fault}`, async (t) => {
    const { near, far, ofServer } = await shake(await make(good, 'client'), server);
    isRefusal(t, ofServer, ...(said?.server ?? ['', /^$/]));
    await closed(far);
    near.destroy();
  });

  test(`a client refuses a server certificate ${fault}`, async (t) => {
    const { near, far, ofClient } = await shake(client, await make(good, 'server'));
    isRefusal(t, ofClient, ...(said?.client ?? said?.server ?? ['', /^$/]));
    await closed(near);
    far.destroy();
  });
}

test('a client refuses an identity that it did not expect, and says which it did', async (t) => {
  const other = 'spiffe://cluster.local/ns/shop/sa/other' as SpiffeId;
  const { near, far, ofClient } = await shake(client, server, [CLIENT, other]);
  isRefusal(
    t,
    ofClient,
    'PEER_IDENTITY',
    new RegExp(`expected SAN \\(${CLIENT},${other}\\), got ${SERVER}$`.replaceAll('.', '\\.')),
  );
  await closed(near);
  far.destroy();
});

test('a client that accepts nobody refuses everybody', async (t) => {
  const { far, ofClient } = await shake(client, server, []);
  isRefusal(t, ofClient, 'PEER_IDENTITY', /expected SAN \(\), got/);
  far.destroy();
});

test('any one of the acceptable identities will do, and any of the names of a peer', async (t) => {
  const two = await withTwoNames(good, CLIENT, SERVER);
  const { near, far, ofClient } = await shake(client, two, ['spiffe://a/ns/b/sa/c' as SpiffeId, SERVER]);
  if (isSecured(t, ofClient)) t.is(ofClient.peer, CLIENT, 'the first that has the form');
  near.destroy();
  far.destroy();
});

test('a name that holds a separator is one name', async (t) => {
  const names = [{ type: 'url' as const, value: `spiffe://x/ns/a/sa/b, URI:${SERVER}` }];
  const { near, far, ofClient } = await shake(client, await good.issue({ identity: SERVER, names }));
  isRefusal(t, ofClient, 'PEER_IDENTITY', /got "spiffe:\/\/x\/ns\/a\/sa\/b, URI:spiffe/);
  near.destroy();
  far.destroy();
});

/** A server of another make. */
async function against(options: SecureContextOptions & { alpn?: string[] }): Promise<Outcome> {
  const [near, far] = await pair();
  const foreign = new TLSSocket(far, {
    isServer: true,
    secureContext: createSecureContext({ cert: server.chain, key: server.key, ca: [good.root], ...options }),
    requestCert: true,
    rejectUnauthorized: false,
    ...(options.alpn === undefined ? {} : { ALPNProtocols: options.alpn }),
  });
  foreign.on('error', () => {});
  const result = await outcome(clientHandshake(near, client, [SERVER], { signal: never }));
  foreign.destroy();
  return result;
}

/** A client of another make. */
async function from(options: SecureContextOptions & { alpn?: string[] }): Promise<Outcome> {
  const [near, far] = await pair();
  const foreign = connect({
    socket: near,
    secureContext: createSecureContext({ ca: [good.root], ...options }),
    checkServerIdentity: () => undefined,
    ...(options.alpn === undefined ? {} : { ALPNProtocols: options.alpn }),
  });
  foreign.on('error', () => {});
  const result = await outcome(serverHandshake(far, server, 'cluster.local', { signal: never }));
  foreign.destroy();
  return result;
}

const h2 = ['h2'];
const pem = { cert: client.chain, key: client.key };

const FOREIGN: ReadonlyArray<readonly [title: string, run: () => Promise<Outcome>, text: RegExp]> = [
  ['client refuses a server of TLS 1.2', () => against({ maxVersion: 'TLSv1.2', alpn: h2 }), /does not speak TLS 1\.3/],
  ['client refuses a server without ALPN', () => against({}), /does not offer HTTP\/2/],
  ['client refuses a server of HTTP/1.1', () => against({ alpn: ['http/1.1'] }), /does not take HTTP\/2/],
  [
    'client refuses a server of ChaCha20 only',
    () => against({ ciphers: 'TLS_CHACHA20_POLY1305_SHA256', alpn: h2 }),
    /the peer refused us: TLS alert handshake failure/,
  ],
  ['server refuses a client of TLS 1.2', () => from({ ...pem, maxVersion: 'TLSv1.2', alpn: h2 }), /not offer TLS 1\.3/],
  ['server refuses a client without a certificate', () => from({ alpn: h2 }), /presented no certificate/],
  ['server refuses a client without ALPN', () => from(pem), /does not offer HTTP\/2/],
  ['server refuses a client of HTTP/1.1', () => from({ ...pem, alpn: ['http/1.1'] }), /does not offer HTTP\/2/],
  [
    'server refuses a client of ChaCha20 only',
    () => from({ ...pem, ciphers: 'TLS_CHACHA20_POLY1305_SHA256', alpn: h2 }),
    /no cipher suite that we take/,
  ],
];

for (const [title, run, text] of FOREIGN)
  test(`a ${title}`, async (t) => isRefusal(t, await run(), 'TLS_FAILED', text));

test('peers that know no ML-KEM are met with X25519', async (t) => {
  const near = await from({ ...pem, ecdhCurve: 'X25519', alpn: h2 });
  const far = await against({ ecdhCurve: 'X25519', alpn: h2 });
  for (const each of [near, far]) if (isSecured(t, each)) each.socket.destroy();
});

for (const side of ['client', 'server'] as const) {
  const begin = (socket: Socket, signal: AbortSignal) =>
    side === 'client'
      ? clientHandshake(socket, client, [SERVER], { signal })
      : serverHandshake(socket, server, 'cluster.local', { signal });

  test(`the ${side}'s handshake fails when the peer ends, resets or talks nonsense`, async (t) => {
    for (const [code, act] of [
      ['CONNECT_FAILED', (far: Socket) => far.end()],
      ['CONNECT_FAILED', (far: Socket) => far.resetAndDestroy()],
      ['TLS_FAILED', (far: Socket) => far.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n')],
    ] as const) {
      const [near, far] = await pair();
      const result = outcome(begin(near, never));
      act(far);
      isRefusal(t, await result, code, /^TLS handshake failed: the peer (broke|speaks|does not speak)/);
      await closed(near);
      far.destroy();
    }
  });

  test(`the ${side}'s handshake with a peer that has gone fails`, async (t) => {
    const [near, far] = await pair();
    near.destroy();
    isRefusal(t, await outcome(begin(near, never)), 'CONNECT_FAILED', /broke the connection off/);
    far.destroy();
  });

  test(`the ${side}'s handshake ends with what it is aborted for`, async (t) => {
    const [near, far] = await pair();
    const abort = new AbortController();
    const result = outcome(begin(near, abort.signal));
    abort.abort(new HboneError('EXCESS', 'too many'));
    isRefusal(t, await result, 'EXCESS', /^too many$/);
    await closed(near);
    isRefusal(t, await outcome(begin(far, AbortSignal.abort())), 'CLOSED', /closed during/);
    await closed(far);
  });
}

test('a client that would resume its session is met with a whole handshake', async (t) => {
  let session: Buffer | undefined;
  for (let time = 0; time < 2; time += 1) {
    const [near, far] = await pair();
    const secureContext = createSecureContext({ ...pem, ca: [good.root] });
    const options = { socket: near, secureContext, ALPNProtocols: h2, checkServerIdentity: () => undefined };
    const foreign = connect(session === undefined ? options : { ...options, session });
    const given = once(foreign, 'session');
    const ofServer = await outcome(serverHandshake(far, server, 'cluster.local', { signal: never }));
    if (isSecured(t, ofServer)) t.false(ofServer.socket.isSessionReused());
    [session] = await given;
    foreign.destroy();
  }
});

test('a certificate without roots, or that is none, is used by nobody', async (t) => {
  for (const bad of [
    { ...client, roots: [] },
    { ...client, chain: 'nonsense' },
    { ...client, key: server.key },
  ]) {
    const [near, far] = await pair();
    const result = await outcome(clientHandshake(near, bad, [SERVER], { signal: never }));
    isRefusal(t, result, 'IDENTITY_UNAVAILABLE', /certificate/);
    if (result instanceof HboneError) t.notRegex(`${result.message} ${result.cause}`, /PRIVATE KEY/);
    far.destroy();
  }
});

test('a peer under any of several roots is known', async (t) => {
  const other = await makeAuthority();
  const { near, far, ofClient, ofServer } = await shake(
    { ...(await other.issue({ identity: CLIENT })), roots: [other.root, good.root] },
    { ...server, roots: [good.root, other.root] },
  );
  t.true(isSecured(t, ofClient) && isSecured(t, ofServer));
  near.destroy();
  far.destroy();
});
