/** A peer that is not our code, at the HBONE port of a pod whose agent runs as a whole (wire contract, sections 2.4, 2.5). */
import test from 'ava';
import { addressOf, apps, parseSeen, portOf, serve } from './conversation.ts';
import { APP_PORT, identity } from './tunnel-bed.ts';
import {
  call,
  dial,
  type Files,
  issue,
  NAMED_PORT,
  SERVICE_ADDRESS,
  SERVICE_HOSTNAME,
  type TunnelScene,
  tunnelScene,
} from './tunnel-scene.ts';

let scene: TunnelScene;
let good: Files;

test.before(async () => {
  scene = await tunnelScene('peers that are not ours');
  good = await issue(scene, { identity: identity('stranger') });
});

test.after.always(async () => {
  await scene?.[Symbol.asyncDispose]();
});

/** How often the apps have been connected to. */
function accepted(): number {
  return [scene.app, scene.named].flatMap(({ lines }) => lines.filter((line) => line.includes('"accepted"'))).length;
}

interface Row {
  readonly asks: string;
  /** `server` and `other` stand for pods' addresses. Undefined: none is sent. */
  readonly authority: string | undefined;
  readonly method?: string;
  readonly status: number;
  /** Of a refusal, in the agent's log. */
  readonly log?: RegExp;
  /** Of the app that is reached. */
  readonly port?: number;
}

const INVALID = /^invalid CONNECT address/;
const MISMATCH = /^ip mismatch: server != /;
const NO_HOSTNAME = /^no service or workload for hostname: /;
const NO_PORT = /found, but cannot resolve port$/;
const RECURSIVE = /^attempted recursive call to ourselves$/;

const ROWS: readonly Row[] = [
  { asks: 'for the pod', authority: 'server:8080', status: 200, port: APP_PORT },
  { asks: 'for a service', authority: `${SERVICE_HOSTNAME}:80`, status: 200, port: APP_PORT },
  { asks: 'for a service in capitals', authority: `${SERVICE_HOSTNAME.toUpperCase()}:80`, status: 200, port: APP_PORT },
  { asks: 'for a port that leads to a name', authority: `${SERVICE_HOSTNAME}:81`, status: 200, port: NAMED_PORT },
  { asks: 'by GET', authority: 'server:8080', method: 'GET', status: 400, log: /^expected method CONNECT, got GET$/ },
  { asks: 'by POST', authority: 'server:8080', method: 'POST', status: 400, log: /got POST$/ },
  { asks: 'for nothing', authority: undefined, status: 400, log: /^no valid authority pseudo header/ },
  { asks: 'without a port', authority: 'server', status: 400, log: INVALID },
  { asks: 'for port 0', authority: 'server:0', status: 400, log: INVALID },
  { asks: 'for port 80800', authority: 'server:80800', status: 400, log: INVALID },
  { asks: 'for another pod', authority: 'other:8080', status: 400, log: /^ip mismatch: server != other$/ },
  { asks: "for a service's address", authority: `${SERVICE_ADDRESS}:80`, status: 400, log: MISMATCH },
  { asks: 'for 127.0.0.1', authority: '127.0.0.1:8080', status: 400, log: MISMATCH },
  { asks: 'for ::1', authority: '[::1]:8080', status: 400, log: MISMATCH },
  { asks: 'for ::ffff:127.0.0.1', authority: '[::ffff:127.0.0.1]:8080', status: 400, log: MISMATCH },
  { asks: 'for 0.0.0.0', authority: '0.0.0.0:8080', status: 400, log: MISMATCH },
  { asks: 'for 169.254.169.254', authority: '169.254.169.254:80', status: 400, log: MISMATCH },
  { asks: 'for localhost', authority: 'localhost:8080', status: 503, log: NO_HOSTNAME },
  { asks: 'for an unknown hostname', authority: 'db.shop.svc:80', status: 503, log: NO_HOSTNAME },
  { asks: 'for a port that the service lacks', authority: `${SERVICE_HOSTNAME}:99`, status: 503, log: NO_PORT },
  { asks: 'for a port that leads to no name', authority: `${SERVICE_HOSTNAME}:82`, status: 503, log: NO_PORT },
  { asks: 'for port 15001', authority: 'server:15001', status: 503, log: RECURSIVE },
  { asks: 'for port 15006', authority: 'server:15006', status: 503, log: RECURSIVE },
  { asks: 'for port 15008', authority: 'server:15008', status: 503, log: RECURSIVE },
  { asks: 'for a port without an app', authority: 'server:9', status: 503, log: /^connection failed: .*ECONNREFUSED/ },
];

const families = [
  { name: 'IPv4', server: () => scene.server.ipv4, other: () => scene.client.ipv4 },
  { name: 'IPv6', server: () => scene.server.ipv6, other: () => scene.client.ipv6 },
] as const;

for (const family of families)
  for (const { asks, authority = '', status, method = 'CONNECT', log, port } of ROWS)
    test.serial(`${family.name}: who asks ${asks} is answered ${status}`, async (t) => {
      const [server, other] = [family.server(), family.other()];
      const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);
      const wanted = authority.replace('server', bracketed(server)).replace('other', bracketed(other));
      const before = accepted();
      const answer = await call(scene, good, { to: server, authority: wanted, method });
      t.is(answer.status, status, JSON.stringify(answer));
      if (log !== undefined) {
        t.deepEqual(answer.headers, {});
        const { error } = await scene.agent.log({ scope: 'access', 'src.addr': answer.local });
        t.regex(`${error}`.replace(server, 'server').replace(other, 'other'), log);
        t.is(accepted(), before, 'the apps saw nothing');
        return;
      }
      t.is(answer.error, undefined);
      const seen = parseSeen(answer.text ?? '{}');
      t.is(portOf(seen.local), port ?? 0);
      t.is(addressOf(seen.peer), addressOf(answer.local), 'the app sees who it is');
      t.regex(
        answer.headers.baggage ?? '',
        /^k8s\.cluster\.name=Kubernetes,k8s\.namespace\.name=shop,k8s\.pod\.name=server,service\.name=web,/,
      );
    });

test.serial('an app that listens on loopback only is not reached', async (t) => {
  const hidden = await serve(scene.server, apps.pythonEcho({ bind: '127.0.0.1', port: 8090 }));
  const { status } = await call(scene, good, { authority: apps.endpoint(scene.server.ipv4, 8090) });
  t.is(status, 503);
  t.is(hidden.lines.length, 1);
});

test.serial(
  "the app sees the client's port if the peer names it, and never another address than the peer's",
  async (t) => {
    const { stranger } = scene;
    const peerOf = async (forwarded: string): Promise<string> => {
      const { status, text } = await call(scene, good, { header: [`forwarded: ${forwarded}`] });
      t.is(status, 200, forwarded);
      return parseSeen(text ?? '{}').peer;
    };
    t.is(await peerOf(`for="${stranger.ipv4}:4321"`), `${stranger.ipv4}:4321`);
    t.is(await peerOf(`for="${stranger.ipv4}:4322";host=${SERVICE_HOSTNAME}`), `${stranger.ipv4}:4322`);
    for (const other of ['for="10.1.2.3:4321"', 'for="127.0.0.1:4321"', 'for="[::1]:4321"', 'for=unknown', 'no;;=']) {
      const peer = await peerOf(other);
      t.is(addressOf(peer), stranger.ipv4, other);
      t.not(portOf(peer), 4321, other);
    }
  },
);

test.serial('what crosses the agent arrives whole, with small windows and padding, many streams at once', async (t) => {
  await serve(scene.server, apps.echo({ port: 8091, quiet: true }));
  const authority = apps.endpoint(scene.server.ipv4, 8091);
  const peer = dial(scene, good, { authority, streams: 50, bytes: 200_000, window: 5000, padding: true });
  t.is((await peer.json({ event: 'over' }, 120_000)).error, undefined);
  const ended = peer.records.filter(({ event }) => event === 'ended');
  t.is(ended.length, 50);
  for (const { sent, sentHash, receivedHash } of ended) {
    t.is(sent, 200_000);
    t.is(receivedHash, sentHash);
  }
});

test.serial('ends and resets cross the agent, each as what it is', async (t) => {
  const { server } = scene;
  const app = await serve(server, apps.peer({ port: 8092 }));
  const authority = apps.endpoint(server.ipv4, 8092);
  const open = async (options: Parameters<typeof dial>[2]): Promise<ReturnType<typeof dial>> => {
    const peer = dial(scene, good, { authority, ...options });
    await peer.json({ event: 'answer', status: 200 });
    await app.json({ event: 'open' });
    return peer;
  };
  const half = await open({ hold: true });
  app.write('send first\n');
  await half.json({ event: 'data', text: 'first' });
  app.write('end\n');
  half.write('second\n');
  await app.json({ event: 'data', text: 'second\n' });
  half.end();
  await app.json({ event: 'end' });
  t.is((await app.json({ event: 'closed' })).error, undefined);
  t.is((await half.exit).code, 0);

  const reset = await open({ hold: true });
  app.write('reset\n');
  t.is((await reset.json({ event: 'reset' })).code, 'CONNECT_ERROR');

  for (const [code, outcome] of Object.entries({ CONNECT_ERROR: 'reset', CANCEL: 'end', NO_ERROR: 'end' })) {
    await open({ reset: code });
    app.write('send something\n');
    if (outcome === 'end') {
      await app.json({ event: 'end' });
      app.write('end\n');
    }
    t.is((await app.json({ event: 'closed' })).error, outcome === 'end' ? undefined : 'ECONNRESET', code);
  }
});
