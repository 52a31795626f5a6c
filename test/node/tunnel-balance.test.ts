/** Which endpoint of a service gets a connection, through the tunnel and by whole agents; and what an edit does. */
import test, { type ExecutionContext } from 'ava';
import { apps, type LabPod, serviceManifest } from '../lab/index.ts';
import { converse } from './conversation.ts';
import { settled } from './inspect.ts';
import { APP_PORT, listen, tally } from './tunnel-bed.ts';
import {
  manifestOf,
  nodesManifest,
  SECOND_PORT,
  type ServiceBed,
  serviceBed,
  VIPS,
  webManifest,
} from './tunnel-services.ts';

let bed: ServiceBed;

test.serial.before(async () => {
  bed = await serviceBed('endpoints of services');
});

test.serial.after.always(() => bed?.lab.dispose());

const server = (pod: LabPod, port = APP_PORT): string => apps.endpoint(pod.ipv4, port);

/** Half of them are open at the same time: an endpoint that was slow once gets some nevertheless. */
const count = 40;

/** Who answers connections of the client to a service, none of which may fail. */
async function answersOf(t: ExecutionContext, to: string): Promise<Readonly<Record<string, number>>> {
  const { answers, errors } = await tally(bed.pods.client, { to, port: 80, count, atOnce: count / 2 });
  t.deepEqual(errors, {});
  return answers;
}

/** Names of those who answer. */
async function serversOf(t: ExecutionContext, to: string): Promise<string[]> {
  return Object.keys(await answersOf(t, to)).sort();
}

/** Asserts that each of these answers sooner or later, and nobody else ever. */
async function assertServe(t: ExecutionContext, to: string, wanted: readonly string[]): Promise<void> {
  const seen = new Set<string>();
  await settled(
    async () => {
      for (const each of await serversOf(t, to)) seen.add(each);
    },
    () => seen.size >= wanted.length,
  );
  t.deepEqual([...seen].sort(), wanted.toSorted());
}

/** Waits until an edit of the manifests has made exactly these the ones who answer. */
async function assertBecome(t: ExecutionContext, to: string, wanted: readonly string[]): Promise<void> {
  const sorted = wanted.toSorted();
  const servers = await settled(
    () => serversOf(t, to),
    (found) => JSON.stringify(found) === JSON.stringify(sorted),
  );
  t.deepEqual(servers, sorted);
}

test.serial('one connection goes to one endpoint, many to every one that is ready', async (t) => {
  const { one, two } = bed.pods;
  const [near, far] = bed.agents.map(listen);
  const talk = await converse(bed.pods.client, apps.pythonConnect({ to: VIPS.web, port: 80 }));
  const own = { 'src.addr': talk.local };
  t.is((await near?.(own))?.['dst.hbone_addr'], (await far?.(own))?.['dst.hbone_addr']);
  for (const [vip, ip] of [
    [VIPS.web, 'ipv4'],
    [VIPS.web6, 'ipv6'],
  ] as const)
    await assertServe(
      t,
      vip,
      [one, two].map((pod) => apps.endpoint(pod[ip], APP_PORT)),
    );
});

test.serial('a service that publishes addresses that are not ready leads to them too', async (t) => {
  const { one, two, unready } = bed.pods;
  await assertServe(
    t,
    VIPS.all,
    [one, two, unready].map((pod) => server(pod)),
  );
});

test.serial('an endpoint of four times the capacity gets most of the connections, the other some', async (t) => {
  const { one, two } = bed.pods;
  const connections = 300;
  const { answers, errors } = await tally(bed.pods.client, { to: VIPS.weighted, port: 80, count: connections });
  const { [server(one)]: strong = 0, [server(two)]: weak = 0 } = answers;
  t.deepEqual(errors, {});
  t.is(strong + weak, connections);
  t.true(weak > 0);
  // Of two drawn by weight the cheaper one is taken: at most 36 % of them, if it always is.
  t.true(weak < connections / 2);
});

test.serial('a local service leads to its own node only', async (t) => {
  t.deepEqual(await serversOf(t, VIPS.strict), [server(bed.pods.local)]);
});

test.serial('what is preferred for being near gives way only when it is not ready', async (t) => {
  const { pods, nodes, control } = bed;
  const { local, one } = pods;
  for (const vip of [VIPS.zone, VIPS.node]) t.deepEqual(await serversOf(t, vip), [server(local)]);

  // The far node comes into the near one's zone: only the preference of the same node goes on telling them apart.
  control.write('nodes.yaml', nodesManifest(nodes, 'a'));
  await assertBecome(t, VIPS.zone, [server(local), server(one)]);
  t.deepEqual(await serversOf(t, VIPS.node), [server(local)]);

  control.write('pod-local.yaml', manifestOf(pods, 'local', { ready: false }));
  await assertBecome(t, VIPS.node, [server(one)]);
  t.deepEqual(await serversOf(t, VIPS.zone), [server(one)]);

  control.write('pod-local.yaml', manifestOf(pods, 'local'));
  control.write('nodes.yaml', nodesManifest(nodes, 'b'));
  await assertBecome(t, VIPS.zone, [server(local)]);
});

test.serial('when one endpoint has nobody at its HBONE port, the other gets what it does not take', async (t) => {
  t.deepEqual(await answersOf(t, VIPS.shaky), { [server(bed.pods.one)]: count });
});

test.serial('when the app of one endpoint does not listen, the other gets what it does not take', async (t) => {
  t.deepEqual(await answersOf(t, VIPS.half), { [server(bed.pods.two, SECOND_PORT)]: count });
});

test.serial('an endpoint that leaves its service gets nothing more, one that comes gets its share', async (t) => {
  const { pods, control } = bed;
  const { one, two } = pods;
  control.write('pod-two.yaml', manifestOf(pods, 'two', { labels: {} }));
  await assertBecome(t, VIPS.web, [server(one)]);
  control.write('pod-two.yaml', manifestOf(pods, 'two'));
  await assertBecome(t, VIPS.web, [server(one), server(two)]);
});

test.serial('a service that is added is in force, and one that is removed no more', async (t) => {
  const { control, pods } = bed;
  const address = '10.96.2.1';
  const [clusterIps, ports, selector] = [[address], { 80: APP_PORT }, { tier: 'web' }];
  control.write('added.yaml', serviceManifest('added', { namespace: 'shop', clusterIps, ports, selector }));
  const one = { to: address, port: 80, count: 1 };
  const { errors } = await settled(
    () => tally(pods.client, one),
    ({ answers }) => Object.keys(answers).length > 0,
  );
  t.deepEqual(errors, {});
  await assertServe(t, address, [server(pods.one), server(pods.two)]);

  control.remove('added.yaml');
  const { answers } = await settled(
    () => tally(pods.client, one),
    (seen) => Object.keys(seen.answers).length === 0,
  );
  t.deepEqual(answers, {}, 'nobody is there any more');
});

test.serial('a broken manifest leaves what was in force, until it is mended', async (t) => {
  const { control, pods } = bed;
  const { one, two } = pods;
  control.write('web.yaml', 'apiVersion: v1\nkind: Service\nmetadata: { name: web\nspec: {}\n');
  await control.log({ level: 'warn', file: `${control.manifests}/web.yaml`, reason: 'syntax', line: 4 });
  await assertServe(t, VIPS.web, [server(one), server(two)]);
  control.write('web.yaml', webManifest());
  await control.log({ message: 'nothing is wrong with the manifests any more' });
  await assertServe(t, VIPS.web, [server(one), server(two)]);
});
