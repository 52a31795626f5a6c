/** Every destination of wire contract, section 6, that needs neither a waypoint nor another network, by whole agents. */
import test from 'ava';
import { type LabPod, podManifest } from '../lab/index.ts';
import { addressOf, apps, converse } from './conversation.ts';
import { relayed, settled } from './inspect.ts';
import { APP_PORT, identity, listen } from './tunnel-bed.ts';
import { HOST_PORT, SECOND_PORT, type ServiceBed, type ServicePods, serviceBed, VIPS } from './tunnel-services.ts';

let bed: ServiceBed;

test.serial.before(async () => {
  bed = await serviceBed('services through the tunnel');
});

test.serial.after.always(() => bed?.lab.dispose());

const web = 'web.shop.svc.cluster.local';
const server = (pod: LabPod, port = APP_PORT): string => apps.endpoint(pod.ipv4, port);

interface Led {
  readonly asks: string;
  readonly to: (pods: ServicePods) => string;
  /** Default: 80. */
  readonly port?: number;
  readonly path: 'tunnel' | 'plain' | 'passthrough';
  /** Endpoints of which one must answer. */
  readonly answers: (pods: ServicePods) => string[];
  /** Hostname. */
  readonly service?: string;
}

const LED: readonly Led[] = [
  {
    asks: 'a service of IPv4',
    to: () => VIPS.web,
    path: 'tunnel',
    answers: ({ one, two }) => [server(one), server(two)],
    service: web,
  },
  {
    asks: 'a service of IPv6',
    to: () => VIPS.web6,
    path: 'tunnel',
    answers: ({ one, two }) => [one, two].map(({ ipv6 }) => apps.endpoint(ipv6, APP_PORT)),
    service: web,
  },
  {
    asks: 'a port whose target has a name',
    to: () => VIPS.web,
    port: 81,
    path: 'tunnel',
    answers: ({ one, two }) => [server(one), server(two, SECOND_PORT)],
    service: web,
  },
  { asks: 'a pod', to: ({ one }) => one.ipv4, port: APP_PORT, path: 'tunnel', answers: ({ one }) => [server(one)] },
  {
    asks: 'a pod of a headless service, of IPv6',
    to: ({ two }) => two.ipv6,
    port: SECOND_PORT,
    path: 'tunnel',
    answers: ({ two }) => [apps.endpoint(two.ipv6, SECOND_PORT)],
  },
  {
    asks: 'a pod that is not ready',
    to: ({ unready }) => unready.ipv4,
    port: APP_PORT,
    path: 'tunnel',
    answers: ({ unready }) => [server(unready)],
  },
  {
    asks: 'a pod of its own node',
    to: ({ local }) => local.ipv4,
    port: APP_PORT,
    path: 'tunnel',
    answers: ({ local }) => [server(local)],
  },
  {
    asks: 'a service whose endpoint is itself',
    to: () => VIPS.self,
    path: 'plain',
    answers: ({ client }) => [server(client)],
    service: 'self.shop.svc.cluster.local',
  },
  {
    asks: 'a service of IPv4 whose endpoint has IPv6 only',
    to: () => VIPS.six,
    path: 'tunnel',
    answers: ({ six }) => [apps.endpoint(six.ipv6, APP_PORT)],
    service: 'six.shop.svc.cluster.local',
  },
  {
    asks: 'a workload that is not enrolled',
    to: ({ plain }) => plain.ipv4,
    port: APP_PORT,
    path: 'plain',
    answers: ({ plain }) => [server(plain)],
  },
  {
    asks: 'a service whose endpoint is not enrolled',
    to: () => VIPS.plain,
    path: 'plain',
    answers: ({ plain }) => [server(plain)],
    service: 'plain.shop.svc.cluster.local',
  },
  {
    asks: 'a ServiceEntry with endpoints',
    to: () => VIPS.static,
    path: 'plain',
    answers: ({ plain }) => [server(plain)],
    service: 'static.example',
  },
  {
    asks: 'an address in the block of a ServiceEntry',
    to: () => '10.98.7.6',
    path: 'plain',
    answers: ({ plain }) => [server(plain)],
    service: 'block.example',
  },
  {
    asks: 'a ServiceEntry that resolves nothing',
    to: ({ stranger }) => stranger.ipv4,
    port: APP_PORT,
    path: 'passthrough',
    answers: ({ stranger }) => [server(stranger)],
  },
  {
    asks: 'what the mesh does not know',
    to: ({ stranger }) => stranger.ipv6,
    port: APP_PORT,
    path: 'passthrough',
    answers: ({ stranger }) => [apps.endpoint(stranger.ipv6, APP_PORT)],
  },
  {
    asks: 'a service whose endpoint is in the network of its node',
    to: () => VIPS.host,
    path: 'plain',
    answers: () => [apps.endpoint(bed.nodes[1].ipv4, HOST_PORT)],
    service: 'host.shop.svc.cluster.local',
  },
  {
    asks: 'the address of a node, at which a pod of the mesh is',
    to: () => bed.nodes[1].ipv4,
    port: HOST_PORT,
    path: 'passthrough',
    answers: () => [apps.endpoint(bed.nodes[1].ipv4, HOST_PORT)],
  },
];

for (const { asks, to, port = 80, path, answers, service } of LED)
  test.serial(`who asks for ${asks} gets there: ${path}`, async (t) => {
    const { client } = bed.pods;
    const asked = to(bed.pods);
    const [near, far] = bed.agents.map(listen);
    const talk = await converse(client, apps.pythonConnect({ to: asked, port }));
    t.is(talk.error, undefined, JSON.stringify(talk));
    t.is(talk.peer, apps.endpoint(asked, port), 'the client sees what it asked for');
    const answer = talk.server?.local ?? '';
    t.true(answers(bed.pods).includes(answer), answer);
    t.true(client.addresses.includes(addressOf(talk.server?.peer)), 'the server sees the client');

    const told = await near?.({ 'src.addr': talk.local, direction: 'outbound' });
    t.is(told?.path, path);
    t.is(told?.['dst.service'], service);
    if (path !== 'tunnel') return;
    t.is(told?.['dst.hbone_addr'], answer);
    const isFar = !bed.pods.local.addresses.includes(addressOf(answer));
    const arrived = await (isFar ? far : near)?.({ 'dst.hbone_addr': answer, direction: 'inbound' });
    t.like(arrived, { path: 'tunnel', 'src.identity': identity('client') });
    // Without a name in the request the far end can only guess.
    if (service !== undefined) t.is(arrived?.['dst.service'], service);
  });

interface Refused {
  readonly asks: string;
  readonly to: string;
  /** Default: 80. */
  readonly port?: number;
  readonly reason: string;
  readonly error: RegExp;
}

const REFUSED: readonly Refused[] = [
  {
    asks: 'a port that the service has not',
    to: VIPS.web,
    port: 99,
    reason: 'no-endpoint',
    error: /^no healthy upstream: 10\.96\.1\.1:99$/,
  },
  {
    asks: 'a port whose target name no endpoint has',
    to: VIPS.web6,
    port: 82,
    reason: 'no-endpoint',
    error: /^no healthy upstream: \[fd00:c:96:1::1\]:82$/,
  },
  { asks: 'a service without endpoints', to: VIPS.empty, reason: 'no-endpoint', error: /^no healthy upstream: / },
  {
    asks: 'a service without ready endpoints',
    to: VIPS.unready,
    reason: 'no-endpoint',
    error: /^no healthy upstream: /,
  },
  { asks: 'a local service from elsewhere', to: VIPS.away, reason: 'no-endpoint', error: /^no healthy upstream: / },
  {
    asks: 'a port where no endpoint listens',
    to: VIPS.web,
    port: 83,
    reason: 'tunnel-refused',
    error: /^http status: 503 Service Unavailable$/,
  },
];

for (const [at, { asks, to, port = 80, reason, error }] of REFUSED.entries())
  test.serial(`who asks for ${asks} is reset, and the log says: ${reason}`, async (t) => {
    const { client } = bed.pods;
    const log = listen(bed.agents[0]);
    // It chooses its port: one that is reset at once does not learn which it had.
    const bindPort = 21_000 + at;
    const talk = await converse(client, apps.pythonConnect({ to, port, bindPort }));
    t.is(talk.error, 'ECONNRESET', JSON.stringify(talk));
    const own = apps.endpoint(to.includes(':') ? client.ipv6 : client.ipv4, bindPort);
    const told = await log({ scope: 'access', direction: 'outbound', 'src.addr': own });
    t.is(told.reason, reason);
    t.regex(`${told.error}`, error);
  });

test.serial('who is not in the mesh is served in the clear, and sees nothing of it', async (t) => {
  const { stranger, one } = bed.pods;
  const far = listen(bed.agents[1]);
  const talk = await converse(stranger, apps.pythonConnect({ to: one.ipv4, port: APP_PORT }));
  t.is(talk.server?.peer, talk.local);
  t.like(await far({ 'src.addr': talk.local }), { direction: 'inbound', path: 'plain' });
});

test.serial('a pod that the mesh does not tell of is refused within its time, and the log says so', async (t) => {
  const { unknown, one } = bed.pods;
  const log = listen(bed.agents[0]);
  const talk = await converse(unknown, apps.connect({ to: one.ipv4, port: APP_PORT }));
  t.is(talk.error, 'ECONNRESET', JSON.stringify(talk));
  const { reason, error } = await log({ 'src.addr': talk.local });
  t.is(reason, 'mesh-unknown');
  t.is(error, 'failed to fetch information about local workload: unknown.shop (unknown)');
});

test.serial('a pod that the mesh tells of while its connection waits is served, through the tunnel', async (t) => {
  const { agents, control, pods } = bed;
  const log = listen(agents[0]);
  const talking = converse(pods.later, apps.pythonConnect({ to: VIPS.web, port: 80 }));
  t.is(
    await settled(
      () => relayed(agents[0]),
      (open) => open > 0,
    ),
    1,
  );
  control.write('pod-later.yaml', podManifest(pods.later));
  const talk = await talking;
  t.is(talk.error, undefined, JSON.stringify(talk));
  t.like(await log({ 'src.addr': talk.local }), { path: 'tunnel', 'src.identity': identity('later') });
});
