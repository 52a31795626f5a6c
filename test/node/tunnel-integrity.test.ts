/** Byte streams and addresses through the tunnel between two nodes. CULVERT_SOAK=1 (`./dev soak`): at full size. */
import test from 'ava';
import { apps, furnish, type LabPod, podManifest, serviceManifest } from '../lab/index.ts';
import { addressOf, converse, families, plain, socketKinds } from './conversation.ts';
import { begun, type Chain, chainOf, endLaws, fullSizes, transferLaws } from './stream-laws.ts';
import {
  APP_PORT,
  identity,
  listen,
  type Pair,
  pair,
  podOf,
  SERVICE_PORT,
  sealed,
  type TunnelBed,
  tally,
  tunnelBed,
  tunnelled,
  VIP,
} from './tunnel-bed.ts';

const MiB = 1024 * 1024;
const soak = process.env.CULVERT_SOAK === '1';
/** Of a service whose endpoint does not listen. */
const CLOSED_VIP = { ipv4: '10.96.0.2', ipv6: 'fd00:c:96::2' } as const;

interface Pods extends Pair {
  /** The mesh believes that it takes tunnelled connections, but nobody serves it. */
  readonly unserved: LabPod;
  /** The mesh does not know yet that it is gone. */
  readonly gone: LabPod;
}

let bed: TunnelBed<Pods>;

const chain = chainOf(async (): Promise<Chain> => {
  bed = await tunnelBed('streams through the tunnel', async (near, far) => {
    const { pods, enrolled, manifests } = await pair(near, far);
    const [unserved, gone] = [await podOf(far, 'unserved'), await podOf(far, 'gone')];
    const closed = { namespace: 'shop', clusterIps: [CLOSED_VIP.ipv4, CLOSED_VIP.ipv6], ports: { [SERVICE_PORT]: 10 } };
    return {
      pods: { ...pods, unserved, gone },
      enrolled,
      manifests: {
        ...manifests,
        'more.yaml': [
          podManifest(unserved),
          podManifest(gone),
          serviceManifest('closed', { ...closed, selector: { app: 'server' } }),
        ],
      },
    };
  });
  await furnish(bed, ({ pods: { gone } }) => gone.delete());
  const { client, server } = bed.pods;
  const ways = [
    { name: 'pod, IPv4', to: server.ipv4 },
    { name: 'pod, IPv6', to: server.ipv6 },
    { name: 'pod, v4-mapped', to: `::ffff:${server.ipv4}` },
    { name: 'service, IPv4', to: VIP.ipv4 },
    { name: 'service, IPv6', to: VIP.ipv6 },
  ];
  return { lab: bed.lab, nodes: bed.nodes, agents: bed.agents, client, server, ways };
});

transferLaws(chain, soak ? fullSizes : { count: 150, atOnce: 16, mostBytes: 2 * MiB, largest: 1 });
endLaws(chain);

/** What the client may call the server by, and where that leads. */
function calls(pod: LabPod): Array<{ what: string; to: string; port: number; argv: string[] }> {
  return socketKinds.flatMap((kind) => {
    const vip = kind.name === 'IPv6' ? VIP.ipv6 : VIP.ipv4;
    return [
      { by: 'pod', to: kind.of(pod), port: APP_PORT },
      { by: 'service', to: vip, port: SERVICE_PORT },
    ].flatMap(({ by, to, port }) => {
      const literal = kind.name === 'v4-mapped' ? `::ffff:${to}` : to;
      const clients = {
        blocking: apps.pythonConnect({ to, port, ...kind.options, send: 'secret' }),
        'non-blocking': apps.pythonConnect({ to, port, nonblocking: true, ...kind.options, send: 'secret' }),
        'event loop': apps.connect({ to: literal, port, send: 'secret' }),
      };
      return Object.entries(clients).map(([name, argv]) => ({ what: `${name}, ${by}, ${kind.name}`, to, port, argv }));
    });
  });
}

test.serial(
  'the server sees the client to the exact port, the client what it asked for, the link nothing',
  async (t) => {
    const { client, server } = bed.pods;
    await begun(t, chain(), apps.echo({ port: APP_PORT, mode: 'tell' }));
    await sealed(t, bed, ['secret'], async () => {
      for (const { what, to, port, argv } of calls(server)) {
        const { talk, near, far } = await tunnelled(t, bed, () => converse(client, argv));
        const ip = to.includes(':') ? 'ipv6' : 'ipv4';
        t.is(talk.peer, apps.endpoint(to, port), `${what}: getpeername of the client`);
        t.is(addressOf(talk.local), client[ip], `${what}: getsockname of the client`);
        t.is(talk.server?.peer, talk.local, `${what}: getpeername of the server`);
        t.is(talk.server?.local, apps.endpoint(server[ip], APP_PORT), `${what}: getsockname of the server`);
        for (const told of [near, far])
          t.like(told, {
            'src.identity': identity('client'),
            'dst.identity': identity('server'),
            'dst.hbone_addr': apps.endpoint(server[ip], APP_PORT),
          });
      }
    });
  },
);

test.serial('a server on blocking sockets is shown the client by accept and getpeername alike', async (t) => {
  const { client, server } = bed.pods;
  const app = await begun(t, chain(), apps.pythonEcho({ port: APP_PORT, mode: 'greet' }));
  for (const { name, of } of families) {
    const argv = apps.pythonConnect({ to: of(server), port: APP_PORT, listenFirst: true });
    const { talk } = await tunnelled(t, bed, () => converse(client, argv));
    const seen = await app.json({ event: 'accepted' });
    t.is(plain(`${seen.accepted}`), talk.local ?? '', `${name}: accept`);
    t.is(plain(`${seen.peer}`), talk.local ?? '', `${name}: getpeername`);
  }
});

test.serial('of many clients at once each is shown to the server as itself', async (t) => {
  const { client, server } = bed.pods;
  await begun(t, chain(), apps.echo({ port: APP_PORT, mode: 'tell', quiet: true }));
  for (const { name, of } of families) {
    const seen = await tally(client, { to: of(server), port: APP_PORT, count: 200, atOnce: 200 });
    const answers = { [apps.endpoint(of(server), APP_PORT)]: 200 };
    t.deepEqual(seen, { answers, asItself: 200, errors: {} }, name);
  }
});

interface Failed {
  readonly to: string;
  readonly port: number;
  /** Where it is led to. */
  readonly target: string;
  readonly reason: string;
  readonly error: RegExp;
}

test.serial('a connection that cannot be is a reset for the client, and the log says why', async (t) => {
  const { client, server, unserved, gone } = bed.pods;
  const failed = families.flatMap(({ name, of }): Failed[] => {
    const vip = name === 'IPv6' ? CLOSED_VIP.ipv6 : CLOSED_VIP.ipv4;
    const closed = { reason: 'tunnel-refused', error: /^http status: 503 Service Unavailable$/ };
    const unreachable = { port: APP_PORT, reason: 'tunnel-unreachable' };
    return [
      { to: of(server), port: 9, target: apps.endpoint(of(server), 9), ...closed },
      { to: vip, port: SERVICE_PORT, target: apps.endpoint(of(server), 10), ...closed },
      { to: of(unserved), target: apps.endpoint(of(unserved), APP_PORT), ...unreachable, error: /ECONNREFUSED/ },
      { to: of(gone), target: apps.endpoint(of(gone), APP_PORT), ...unreachable, error: /EHOSTUNREACH/ },
    ];
  });
  const log = listen(bed.agents[0]);
  await Promise.all(
    failed.map(async ({ to, port, target, reason, error }) => {
      const what = `${apps.endpoint(to, port)}, led to ${target}`;
      const talk = await converse(client, apps.connect({ to, port }));
      t.is(talk.error, 'ECONNRESET', `${what}: ${JSON.stringify(talk)}`);
      const told = await log({ 'dst.hbone_addr': target });
      t.is(told.reason, reason, what);
      t.regex(`${told.error}`, error, what);
    }),
  );
});
