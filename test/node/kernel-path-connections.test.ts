/** Which connections go past the agent and which never, and what apps, log and wire show of them. */
import test from 'ava';
import { apps, type Manifest, type ManifestFile, podManifest } from '../lab/index.ts';
import { families, socketKinds } from './conversation.ts';
import { relayed, settled } from './inspect.ts';
import {
  assertLed,
  changed,
  direct,
  type PathBed,
  type PathPods,
  pastAgent,
  pathBed,
  serviceOf,
  tell,
  travel,
  trio,
  tunnelBytes,
  type Way,
  waysTo,
} from './kernel-path-bed.ts';
import { APP_PORT, identity, SERVICE_PORT } from './tunnel-bed.ts';

let bed: PathBed<PathPods>;

test.serial.before(async () => {
  // A session that has done its work would show that it lives, as bytes of a tunnel.
  bed = await pathBed('the kernel path', trio, { args: ['--ping-interval', '3600'] });
});

test.serial.after.always(() => bed?.lab.dispose());

const word = 'a secret that nobody signs';
const hostname = 'server.shop.svc.cluster.local';

test.serial('after the first connection two pods of one node talk by plain TCP, each as itself', async (t) => {
  const { lab, agent, pods } = bed;
  const { client, server } = pods;
  const ways = socketKinds.flatMap((kind) => waysTo(server, kind, word).map((way) => ({ ...way, kind })));
  for (const { argv } of ways) await direct(bed, client, argv);
  t.is(
    await settled(
      () => relayed(agent),
      (open) => open === 0,
    ),
    0,
  );

  const captures = [await lab.capture(client), await lab.capture(server)];
  const past = await pastAgent(bed, client, async () => {
    for (const { to, port, argv, kind } of ways) {
      const { talk, told } = await travel(bed, client, argv);
      const answers = apps.endpoint(kind.of(server), APP_PORT);
      t.is(talk.peer, apps.endpoint(to, port), `${kind.name}: the client sees what it asked for`);
      t.is(talk.server?.peer, talk.local, `${kind.name}: the server sees the client`);
      t.is(talk.server?.local, answers, kind.name);
      t.like(told, {
        path: 'kernel',
        flow: 'local',
        direction: 'outbound',
        'src.identity': identity('client'),
        'src.workload': 'client',
        'dst.addr': answers,
        'dst.identity': identity('server'),
        'dst.workload': 'server',
        'dst.service': port === SERVICE_PORT ? hostname : undefined,
        bytes_sent: word.length + 1,
        bytes_recv: (talk.reply ?? '').length + 1,
        error: undefined,
      });
    }
  });
  t.deepEqual(past, { direct_local: ways.length });
  for (const capture of captures) {
    const crossed = (await capture.stop()).filter(({ protocol }) => protocol === 'tcp');
    const asks = crossed.filter(({ flags, destinationPort }) => flags === 'S' && destinationPort === APP_PORT);
    t.is(asks.packets.length, ways.length);
    t.true(crossed.contains(word));
    t.is(tunnelBytes(crossed), 0, 'nothing goes through a tunnel');
  }
});

const sameNode = { annotations: { 'culvert.dev/same-node': 'mtls' } };
const namespace = (rest: Manifest): Manifest => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: 'shop', ...rest },
});
const settings = (text: string): Manifest => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'culvert', namespace: 'istio-system' },
  data: { 'mesh.yaml': text },
});

/** What is said in which file, and what is said there otherwise. */
interface Wish {
  readonly who: string;
  readonly file: string;
  readonly mtls: (pods: PathPods) => ManifestFile;
  readonly otherwise: (pods: PathPods) => ManifestFile;
}

const wishes: readonly Wish[] = [
  { who: 'the mesh', file: 'mesh.yaml', mtls: () => settings('sameNode: mtls'), otherwise: () => settings('') },
  { who: 'the namespace', file: 'namespace.yaml', mtls: () => namespace(sameNode), otherwise: () => namespace({}) },
  {
    who: 'the client',
    file: 'client.yaml',
    mtls: ({ client }) => podManifest(client, sameNode),
    otherwise: ({ client }) => podManifest(client),
  },
  {
    who: 'the server',
    file: 'server.yaml',
    mtls: ({ server }) => podManifest(server, sameNode),
    otherwise: ({ server }) => podManifest(server),
  },
];

/** Each wish has a port of its own: about one destination the agent is asked once a second at most. */
const wishPort = (at: number): number => APP_PORT + 1 + at;
const wishWay = (at: number): Way => {
  const [to, port] = [bed.pods.server.ipv4, wishPort(at)];
  return { to, port, argv: apps.pythonConnect({ to, port }) };
};

for (const [at, { who, file, mtls, otherwise }] of wishes.entries())
  test.serial(`when ${who} wants mutual TLS on one node, no further connection goes past the tunnel`, async (t) => {
    const { pods } = bed;
    await tell(pods.server, wishPort(at));
    const [, service] = waysTo(pods.server);
    const ways = [wishWay(at), service];
    await direct(bed, pods.client, wishWay(at).argv);
    await changed(bed, (control) => control.write(file, mtls(pods)));
    await assertLed(t, bed, pods.client, at === 0 ? ways : [wishWay(at)]);
    await changed(bed, (control) => control.write(file, otherwise(pods)));
  });

test.serial('when nobody wants mutual TLS on one node any more, connections go past the tunnel again', async (t) => {
  for (const at of wishes.keys()) t.is((await direct(bed, bed.pods.client, wishWay(at).argv)).told.path, 'kernel');
});

const use = { 'istio.io/use-waypoint': 'waypoint' };
const gateway = (value: string): Manifest => ({
  apiVersion: 'gateway.networking.k8s.io/v1',
  kind: 'Gateway',
  metadata: { name: 'waypoint', namespace: 'shop', labels: { 'istio.io/waypoint-for': 'all' } },
  spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
  status: { addresses: [{ type: 'IPAddress', value }] },
});

test.serial('what has a waypoint is never reached past the agent', async (t) => {
  const { client, server, stranger } = bed.pods;
  const [own, service] = waysTo(server);
  for (const { argv } of [own, service]) await direct(bed, client, argv);
  const attempts = async (ways: readonly Way[]): Promise<unknown> =>
    pastAgent(bed, client, async () => {
      for (const { argv } of [...ways, ...ways]) t.not((await client.exec(argv)).code, 0, 'nobody is at the waypoint');
    });

  await changed(bed, (control) =>
    control.write('service.yaml', [gateway(stranger.ipv4), serviceOf({ app: 'server' }, use)]),
  );
  t.deepEqual(await attempts([service]), {});
  t.is((await direct(bed, client, own.argv)).told.path, 'kernel', 'it is the waypoint of the service alone');
  await changed(bed, (control) =>
    control.write('server.yaml', podManifest(server, { labels: { app: 'server', ...use } })),
  );
  t.deepEqual(await attempts([own, service]), {});

  await changed(bed, (control) => control.write('server.yaml', podManifest(server)));
  await changed(bed, (control) => control.write('service.yaml', serviceOf({ app: 'server' })));
  for (const { argv } of [own, service]) t.is((await direct(bed, client, argv)).told.path, 'kernel');
});

test.serial('what is outside the mesh is reached directly, after the first time', async (t) => {
  const { client, stranger } = bed.pods;
  for (const kind of socketKinds) {
    const [{ to, port, argv }] = waysTo(stranger, kind);
    await direct(bed, client, argv);
    const past = await pastAgent(bed, client, async () => {
      const { talk, told } = await travel(bed, client, argv);
      t.is(talk.peer, apps.endpoint(to, port), kind.name);
      t.is(talk.server?.peer, talk.local, 'the server sees the client');
      t.like(told, {
        path: 'kernel',
        flow: 'outside',
        direction: 'outbound',
        'src.workload': 'client',
        error: undefined,
      });
      t.is(told['src.identity'], undefined, 'nobody has proven anything');
    });
    t.deepEqual(past, { direct_outside: 1 }, kind.name);
  }
});

test.serial(
  'a service whose endpoints are not enrolled is reached directly, and is what its client sees',
  async (t) => {
    const { client, stranger } = bed.pods;
    await changed(bed, (control) => {
      const outside = podManifest(stranger, { enrolled: false, labels: { app: 'server' } });
      control.write('server.yaml', [outside, podManifest(bed.pods.server, { labels: {} })]);
    });
    for (const kind of families) {
      const [, { to, port, argv }] = waysTo(stranger, kind);
      const { talk, told } = await direct(bed, client, argv);
      t.is(talk.peer, apps.endpoint(to, port), kind.name);
      t.is(talk.server?.peer, talk.local, 'the server sees the client');
      t.is(talk.server?.local, apps.endpoint(kind.of(stranger), APP_PORT));
      t.like(told, { flow: 'outside', 'dst.service': hostname, 'dst.workload': 'stranger' });
    }
    await changed(bed, (control) => control.write('server.yaml', podManifest(bed.pods.server)));
  },
);

test.serial('plaintext that anybody may send goes straight to the app, which sees who sends it', async (t) => {
  const { server, stranger } = bed.pods;
  for (const kind of families) {
    const [{ argv }] = waysTo(server, kind, word);
    const past = await pastAgent(bed, server, async () => {
      const { talk, told } = await travel(bed, stranger, argv);
      t.is(talk.server?.peer, talk.local, kind.name);
      t.like(told, {
        path: 'kernel',
        flow: 'plain',
        direction: 'inbound',
        'dst.workload': 'server',
        bytes_recv: word.length + 1,
        error: undefined,
      });
      t.is(told['src.identity'], undefined);
    });
    t.deepEqual(past, { direct_plain: 1 }, kind.name);
  }
});
