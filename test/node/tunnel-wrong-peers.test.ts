/** Peers that are not who they should be, at both ends of a whole agent; and calls that nobody should make. */
import test, { type ExecutionContext } from 'ava';
import type { SpiffeId } from '../../src/mesh/index.ts';
import { FAULTY, makeAuthority, type TestAuthority } from '../pki.ts';
import { apps, converse, serve } from './conversation.ts';
import { APP_PORT, HBONE_PORT, identity } from './tunnel-bed.ts';
import { call, type Files, filesOf, issue, type TunnelScene, tunnelScene } from './tunnel-scene.ts';

let scene: TunnelScene;

test.before(async () => {
  scene = await tunnelScene('wrong peers');
});

test.after.always(async () => {
  await scene?.[Symbol.asyncDispose]();
});

/** What the agent says of a faulty certificate: of a client's, and where it is not the same, of a server's. */
const FAULTS: Readonly<Record<string, { readonly client: RegExp; readonly server?: RegExp }>> = {
  'of another trust domain': {
    client: /did not present the expected trustdomain \(cluster\.local\), got spiffe:\/\/elsewhere\.example\//,
    server:
      /did not present the expected SAN \(spiffe:\/\/cluster\.local\/ns\/shop\/sa\/far\), got spiffe:\/\/elsewhere/,
  },
  expired: { client: /certificate has expired$/ },
  'not yet valid': { client: /certificate is not valid yet$/ },
  'without a SPIFFE id': { client: /expected trustdomain/, server: /expected SAN \(.*\/sa\/far\), got $/ },
  'without any name': { client: /expected trustdomain/, server: /expected SAN \(.*\/sa\/far\), got $/ },
  'with a malformed SPIFFE id': { client: /expected trustdomain/, server: /expected SAN/ },
  'of the wrong usage': { client: /not meant for this use/ },
  'self-signed': { client: /signed by itself only/ },
  'under another root': { client: /signed by (nobody whom we trust|a root that we do not trust)/ },
};

/** A certificate that has this fault and no other. */
async function faulty(fault: string, role: 'client' | 'server'): Promise<Files> {
  const who = identity(role === 'client' ? 'stranger' : 'far');
  const { authority } = scene;
  // The table's certificates are of a usual identity; here the peer is somebody else.
  const named: TestAuthority = { ...authority, issue: (leaf) => authority.issue(renamed(leaf, who)) };
  const make = FAULTY[fault];
  if (make === undefined) throw new Error(`no certificate is ${fault}`);
  return filesOf(scene, await make(named, role));
}

type Leaf = Parameters<TestAuthority['issue']>[0];

function renamed(leaf: Leaf, who: SpiffeId): NonNullable<Leaf> {
  return leaf?.identity?.startsWith('spiffe://cluster.local/') ? { ...leaf, identity: who } : { ...leaf };
}

test('every fault has its row', (t) => t.deepEqual(Object.keys(FAULTS), Object.keys(FAULTY)));

function accepted(): number {
  return scene.app.lines.length;
}

for (const [fault, said] of Object.entries(FAULTS))
  test.serial(`a client whose certificate is ${fault} is refused, and the app sees nothing`, async (t) => {
    const before = accepted();
    const { status, error, local } = await call(scene, await faulty(fault, 'client'));
    t.is(status, undefined);
    t.truthy(error);
    const logged = await scene.agent.log({ message: 'peer refused', 'src.addr': local });
    t.regex(`${logged.error}`, said.client);
    t.is(accepted(), before);
  });

const CLIENTS: Readonly<
  Record<
    string,
    { readonly log: RegExp; readonly make: (good: Files) => Partial<Files> & { tls?: '1.2'; alpn?: string } }
  >
> = {
  'without a certificate': { log: /presented no certificate$/, make: ({ roots }) => ({ roots }) },
  'with TLS 1.2': { log: /does not offer TLS 1\.3$/, make: (good) => ({ ...good, tls: '1.2' }) },
  'without ALPN': { log: /does not offer HTTP\/2/, make: (good) => ({ ...good, alpn: '' }) },
  'with another ALPN': { log: /does not offer HTTP\/2/, make: (good) => ({ ...good, alpn: 'http/1.1' }) },
};

for (const [what, { log, make }] of Object.entries(CLIENTS))
  test.serial(`a client ${what} is refused, and the app sees nothing`, async (t) => {
    const before = accepted();
    const { status, error, local } = await call(scene, make(await issue(scene, { identity: identity('stranger') })));
    t.is(status, undefined);
    t.truthy(error);
    const logged = await scene.agent.log({ message: 'peer refused', 'src.addr': local });
    t.regex(`${logged.error}`, log);
    t.is(accepted(), before);
  });

test.serial('who speaks no TLS at the HBONE port gets nothing', async (t) => {
  const { server, stranger, agent } = scene;
  const before = accepted();
  const outcome = await converse(
    stranger,
    apps.pythonConnect({ to: server.ipv4, port: HBONE_PORT, send: 'GET / HTTP/1.1' }),
  );
  t.is(outcome.reply, undefined);
  t.truthy(outcome.error);
  const logged = await agent.log({ message: 'peer refused', 'src.addr': outcome.local });
  t.regex(`${logged.error}`, /does not speak TLS|speaks HTTP/);
  t.is(accepted(), before);
});

/** An app of an enrolled pod connects to `far`, where there is this server. */
async function toFar(files: Partial<Files>, options: Partial<Parameters<typeof apps.h2Server>[0]> = {}) {
  const { far, client } = scene;
  const server = await serve(far, apps.h2Server({ port: HBONE_PORT, ...files, ...options }));
  const wire = await scene.lab.capture(far);
  const outcome = await converse(client, apps.pythonConnect({ to: far.ipv4, port: APP_PORT, send: 'the secret' }));
  const packets = await wire.stop();
  await server.kill();
  return { outcome, packets, requests: server.records.filter(({ event }) => event === 'request') };
}

test.serial('an app reaches a server that is not ours, which is told who asks for what', async (t) => {
  const { far, client } = scene;
  const { outcome, packets, requests } = await toFar(await issue(scene, { identity: identity('far') }), {
    window: 1000,
    padding: true,
  });
  t.is(outcome.reply, 'the secret');
  t.false(packets.contains('the secret'));
  t.is(requests.length, 1);
  const { headers } = requests[0] as { headers: Record<string, string> };
  t.like(headers, {
    ':method': 'CONNECT',
    ':authority': apps.endpoint(far.ipv4, APP_PORT),
    forwarded: `for="${outcome.local}"`,
  });
  t.regex(headers.baggage ?? '', /^k8s\.cluster\.name=Kubernetes,k8s\.namespace\.name=shop,k8s\.pod\.name=client,/);
  t.regex(headers.traceparent ?? '', /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  t.deepEqual(Object.keys(headers).sort(), [':authority', ':method', 'baggage', 'forwarded', 'traceparent']);
  t.true(`${outcome.local}`.startsWith(client.ipv4));
});

/** The app is reset, and nothing of it was sent. */
function assertRefused(t: ExecutionContext, { outcome, packets, requests }: Awaited<ReturnType<typeof toFar>>): void {
  t.is(outcome.reply, undefined);
  t.is(outcome.error, 'ECONNRESET');
  t.deepEqual(requests, []);
  t.false(packets.contains('the secret'));
}

async function refusal(): Promise<string> {
  const { error } = await scene.agent.log({
    message: 'connection complete',
    level: 'error',
    'dst.workload': 'far',
    direction: 'outbound',
  });
  return `${error}`;
}

for (const [fault, { client, server = client }] of Object.entries(FAULTS))
  test.serial(`a server whose certificate is ${fault} is refused, and nothing of the app's is sent`, async (t) => {
    assertRefused(t, await toFar(await faulty(fault, 'server')));
    t.regex(await refusal(), server);
  });

test.serial("a server of an identity that is not expected is refused, and nothing of the app's is sent", async (t) => {
  assertRefused(t, await toFar(await issue(scene, { identity: identity('other') })));
  t.regex(await refusal(), /expected SAN \(spiffe:\/\/cluster\.local\/ns\/shop\/sa\/far\), got spiffe:.*\/sa\/other$/);
});

const SERVERS: Readonly<Record<string, { readonly log: RegExp; readonly options: { tls?: '1.2'; alpn?: string } }>> = {
  'with TLS 1.2': { log: /does not speak TLS 1\.3$/, options: { tls: '1.2' } },
  'without ALPN': { log: /HTTP\/2/, options: { alpn: '' } },
};

for (const [what, { log, options }] of Object.entries(SERVERS))
  test.serial(`a server ${what} is refused, and nothing of the app's is sent`, async (t) => {
    assertRefused(t, await toFar(await issue(scene, { identity: identity('far') }), options));
    t.regex(await refusal(), log);
  });

test.serial('a server that does not trust us is found out, and the app reset', async (t) => {
  const files = await issue(scene, { identity: identity('far') });
  const other = await makeAuthority();
  const { roots } = filesOf(scene, await other.issue());
  assertRefused(t, await toFar({ ...files, roots }));
  t.regex(await refusal(), /the peer refused us: TLS alert unknown ca|may have refused our certificate/);
});

for (const status of [400, 401, 503])
  test.serial(`a server's ${status} resets the app, and the log has it`, async (t) => {
    const { outcome, requests } = await toFar(await issue(scene, { identity: identity('far') }), { status });
    t.is(outcome.error, 'ECONNRESET');
    t.true(requests.length >= 1);
    t.regex(await refusal(), new RegExp(`^http status: ${status} `));
  });

/** Whoever reaches the node may read its metrics: Prometheus is a pod like others. */
const METRICS_PORT = 15020;
/** Wire contract, section 11.3; the agent's own ports are in no pod's way, and nothing answers on those that it has not. */
const PORTS = [15001, 15006, 15008, 15000, METRICS_PORT, 15021, 15080];

for (const port of PORTS)
  test.serial(`nobody gets an answer from port ${port}, wherever they call it`, async (t) => {
    const { client, server, stranger } = scene;
    const before = accepted();
    const calls = [
      { from: client, to: client.ipv4, what: 'an enrolled pod, itself' },
      { from: client, to: client.ipv6, what: 'an enrolled pod, itself over IPv6' },
      { from: client, to: '127.0.0.1', what: 'an enrolled pod, its loopback' },
      { from: client, to: '::1', what: 'an enrolled pod, its loopback over IPv6' },
      { from: client, to: server.ipv4, what: 'an enrolled pod, another one' },
      { from: client, to: client.node.ipv4, what: 'an enrolled pod, its node' },
      { from: stranger, to: server.ipv4, what: 'a stranger, an enrolled pod' },
      { from: stranger, to: server.ipv6, what: 'a stranger, an enrolled pod over IPv6' },
      { from: stranger, to: server.node.ipv4, what: 'a stranger, the node' },
    ];
    for (const { from, to, what } of calls) {
      if (port === METRICS_PORT && [client, server].some(({ node }) => to === node.ipv4)) continue;
      const { reply, error } = await converse(from, apps.pythonConnect({ to, port }));
      t.is(reply, undefined, what);
      t.regex(error ?? '', /^(ECONNREFUSED|ECONNRESET|EPERM|EOF)$/, what);
    }
    t.is(accepted(), before, 'the app saw nothing');
  });
