/** Pods that come and go, and addresses that are given to others, while there is a kernel path. */
import test from 'ava';
import {
  apps,
  authorizationPolicyManifest,
  type LabPod,
  type Manifest,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { addressOf, converse, families, portOf, serve } from './conversation.ts';
import { Held, Load, type LoadEnd } from './held.ts';
import { relayed, settled } from './inspect.ts';
import {
  changed,
  direct,
  type PathBed,
  type PathPods,
  pastAgent,
  pathBed,
  tell,
  travel,
  trio,
  waysTo,
} from './kernel-path-bed.ts';
import { APP_PORT, identity, podOf } from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
const ECHO_PORT = 8081;

let bed: PathBed<PathPods>;

test.serial.before(async () => {
  bed = await pathBed('pods on the kernel path', trio);
  for (const pod of Object.values(bed.pods)) await serve(pod, await apps.answer({ port: ECHO_PORT }));
});

test.serial.after.always(() => bed?.lab.dispose());

/** For pods with these labels: nobody may connect to them but those named. */
function only(names: readonly string[], app: string): Manifest {
  const principals = names.map((name) => `cluster.local/ns/shop/sa/${name}`);
  return authorizationPolicyManifest(`only-${app}`, {
    selector: { app },
    ...(names.length > 0 && { rules: [{ from: [{ source: { principals } }] }] }),
  });
}

/** Gives the pod's addresses to another one, as after its end, although its agent has not been told of that end. */
async function succeed(old: LabPod, name: string): Promise<LabPod> {
  const { node } = old;
  await node.exec(['ip', 'link', 'set', old.nodeInterface, 'down']);
  const pod = await podOf(node, name, { addressesOf: old });
  for (const place of [...node.pods, node])
    await place.exec(['ip', 'neighbour', 'flush', 'all'], { restricted: false });
  return pod;
}

test.serial('a pod that gets the address of another is not reached by what was decided about that one', async (t) => {
  const { node, agent, pods } = bed;
  const { client } = pods;
  const old = await podOf(node, 'old');
  await tell(old);
  await agent.enrol(old);
  await changed(bed, (control) => control.write('old.yaml', podManifest(old)));
  const [{ argv }] = waysTo(old);
  await direct(bed, client, argv);

  const successor = await succeed(old, 'successor');
  const app = await serve(successor, apps.echo({ port: APP_PORT, mode: 'tell' }));
  await agent.enrol(successor);
  const refused = async (when: string): Promise<void> => {
    const talk = await converse(client, argv);
    t.truthy(talk.error, `${when}: ${JSON.stringify(talk)}`);
  };
  const early = converse(client, argv);
  const isTaken = settled(
    () => relayed(agent),
    (open) => open > 0,
  );
  await Promise.race([early, isTaken]);
  await changed(bed, (control) => control.write('old.yaml', [podManifest(successor), only([], 'successor')]));
  t.truthy((await early).error, 'when it came, nobody knew who that is');
  await refused('its policy forbids it');
  await agent.withdraw(old);
  await refused('it has the address alone');
  t.deepEqual(app.records.slice(1), [], 'its app has never seen anybody');

  await changed(bed, (control) => control.write('old.yaml', podManifest(successor)));
  const { talk, told } = await direct(bed, client, argv);
  t.is(talk.server?.peer, talk.local);
  t.is(told['dst.identity'], identity('successor'));
  await agent.withdraw(successor);
  await changed(bed, (control) => control.remove('old.yaml'));
});

/** Both endpoints of a pod's app that echoes. */
const echoOf = (pod: LabPod): string[] => pod.addresses.map((address) => apps.endpoint(address, ECHO_PORT));

/** Has the client reach each of these directly. */
async function directTo(endpoints: readonly string[]): Promise<void> {
  for (const to of endpoints)
    await direct(bed, bed.pods.client, apps.pythonConnect({ to: addressOf(to), port: portOf(to) }));
}

test.serial('no connection of others fails while pods of the node are enrolled and withdrawn', async (t) => {
  const { node, agent, pods } = bed;
  const { client, server } = pods;
  const guests = [await podOf(node, 'guest1'), await podOf(node, 'guest2')];
  const to = echoOf(server);
  await directTo(to);
  let load: Load | undefined;
  let end: LoadEnd | undefined;
  const past = await pastAgent(bed, client, async () => {
    load = await Load.start(client, to, soak ? 2000 : 500);
    for (let round = 0; round < (soak ? 60 : 4); round += 1) {
      await Promise.all(guests.map((guest) => agent.enrol(guest)));
      await changed(bed, (control) =>
        control.write(
          'guests.yaml',
          guests.map((guest) => podManifest(guest)),
        ),
      );
      for (const guest of guests) {
        const [{ argv }] = waysTo(server);
        t.is((await travel(bed, guest, argv)).talk.error, undefined);
      }
      await changed(bed, (control) => control.remove('guests.yaml'));
      await Promise.all(guests.map((guest) => agent.withdraw(guest)));
    }
    end = await load.end();
  });
  t.deepEqual(end?.errors, {});
  t.is(end?.answered, end?.started);
  t.deepEqual(past, { direct_local: end?.started }, 'and none has left the kernel path');
});

const strict = peerAuthenticationManifest('strict', { selector: { app: 'stranger' } });

/** Has the pod that nobody knows join the mesh, or leave it. */
async function join(...more: readonly Manifest[]): Promise<void> {
  const { stranger } = bed.pods;
  await bed.agent.enrol(stranger);
  await changed(bed, (control) => control.write('stranger.yaml', [podManifest(stranger), ...more]));
}

async function leave(): Promise<void> {
  await changed(bed, (control) => control.remove('stranger.yaml'));
  await bed.agent.withdraw(bed.pods.stranger);
}

test.serial(
  'who reaches an address that joins the mesh reaches who is there, and keeps what policy allows',
  async (t) => {
    const { client, stranger } = bed.pods;
    const to = echoOf(stranger);
    const held: Held[] = [];
    await directTo(to);
    const past = await pastAgent(bed, client, async () => {
      held.push(await Held.open(client, to, 6));
    });
    t.deepEqual(past, { direct_outside: 6 });

    await join();
    for (const kind of families) {
      const [{ argv }] = waysTo(stranger, kind);
      const first = await travel(bed, client, argv);
      t.like(first.told, { path: 'tunnel', 'dst.identity': identity('stranger') }, kind.name);
      const { talk, told } = await direct(bed, client, argv);
      t.is(talk.server?.peer, talk.local, kind.name);
      t.like(told, { flow: 'local', 'src.identity': identity('client'), 'dst.identity': identity('stranger') });
    }
    for (const each of held) t.deepEqual(await each.close(), { open: 6, lost: 0, errors: {} });

    // And back.
    await directTo(to);
    const inside = await Held.open(client, to, 6);
    await leave();
    for (const kind of families) {
      const [{ argv }] = waysTo(stranger, kind);
      const first = await travel(bed, client, argv);
      t.is(first.told.path, 'passthrough', kind.name);
      const { talk, told } = await direct(bed, client, argv);
      t.is(talk.server?.peer, talk.local, kind.name);
      t.like(told, { flow: 'outside', 'dst.workload': undefined });
    }
    t.deepEqual(await inside.close(), { open: 6, lost: 0, errors: {} });
  },
);

test.serial(
  'what was open to an address ends when who joins the mesh there lets in nobody without identity',
  async (t) => {
    const { agent, pods } = bed;
    const { client, server, stranger } = pods;
    const to = echoOf(stranger);
    await directTo([...to, ...echoOf(server)]);
    const doomed = await Held.open(client, to, 6);
    const others = await Held.open(client, echoOf(server), 6);
    const since = agent.process.lines.length;
    await join(strict);
    const told = await agent.told({ message: 'flows ended by a policy change' }, { since });
    t.is(told.count, 6);
    t.regex(`${told.policy}`, /strict/);
    t.is(await doomed.alive(), 0);
    t.is((await doomed.close()).lost, 6);
    t.deepEqual(await others.close(), { open: 6, lost: 0, errors: {} });
    for (const kind of families) {
      const [{ argv }] = waysTo(stranger, kind);
      t.like((await travel(bed, client, argv)).told, { path: 'tunnel', 'dst.identity': identity('stranger') });
    }
    await leave();
  },
);
