/** Services past the agent: which backend the kernel picks, and what becomes of backends that go or change. */
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { limit } from '../../src/gen/layout.ts';
import { apps, type LabNode, type LabPod, type Manifest, podManifest, serviceManifest } from '../lab/index.ts';
import { addressOf, serve } from './conversation.ts';
import { Held } from './held.ts';
import { settled } from './inspect.ts';
import { changed, heartbeatAgeMs, pastAgent, weightsOf } from './kernel-path-bed.ts';
import { APP_PORT, podOf, SERVICE_PORT, type Tally, type TunnelBed, tally, tunnelBed } from './tunnel-bed.ts';

interface Pods {
  /** On the near node: */
  readonly client: LabPod;
  readonly near1: LabPod;
  readonly near2: LabPod;
  /** On the far node: */
  readonly far1: LabPod;
  readonly far2: LabPod;
}

type Name = keyof Pods;
const servers = ['near1', 'near2', 'far1', 'far2'] as const;

const WEB = { ipv4: '10.96.0.1', ipv6: 'fd00:c:96::1' } as const;
const WEIGHTED = '10.97.0.1';
/** Where apps of the service `idle` would listen: no connection has ever told how long one takes. */
const IDLE_PORT = 8081;
const IDLE = '10.97.0.2';
/** Only `far2` has an app there. */
const HALF_PORT = 8082;
const HALF = '10.97.0.3';

/** Of the apps whose connections are held. */
const ECHO_PORT = 8083;
const soak = process.env.CULVERT_SOAK === '1';
/** Connections of a sample. */
const draws = soak ? 3000 : 800;

let bed: TunnelBed<Pods>;
let near: {
  readonly lab: typeof bed.lab;
  readonly control: typeof bed.control;
  readonly agent: (typeof bed.agents)[0];
};

const web = { tier: 'web', weighted: 'yes' };

/** A machine at a pod's address. */
function machine(pod: LabPod, service: string, weight: number): Manifest {
  return {
    apiVersion: 'networking.istio.io/v1',
    kind: 'WorkloadEntry',
    metadata: { name: `${service}-${pod.name}`, namespace: 'shop' },
    spec: {
      address: pod.ipv4,
      labels: { [service]: 'yes', 'networking.istio.io/tunnel': 'http' },
      weight,
      serviceAccount: pod.name,
    },
  };
}

function entry(name: string, address: string, targetPort: number): Manifest {
  return {
    apiVersion: 'networking.istio.io/v1',
    kind: 'ServiceEntry',
    metadata: { name, namespace: 'shop' },
    spec: {
      hosts: [`${name}.example`],
      addresses: [address],
      resolution: 'STATIC',
      ports: [{ number: SERVICE_PORT, name: 'tcp', targetPort }],
      workloadSelector: { labels: { [name]: 'yes' } },
    },
  };
}

async function layout(nearNode: LabNode, farNode: LabNode) {
  const pods: Pods = {
    client: await podOf(nearNode, 'client'),
    near1: await podOf(nearNode, 'near1'),
    near2: await podOf(nearNode, 'near2'),
    far1: await podOf(farNode, 'far1'),
    far2: await podOf(farNode, 'far2'),
  };
  const { far1, far2 } = pods;
  return {
    pods,
    enrolled: Object.values(pods),
    manifests: {
      'client.yaml': podManifest(pods.client),
      ...Object.fromEntries(servers.map((name) => [`${name}.yaml`, manifestOf(pods, name)])),
      'services.yaml': [
        serviceManifest('web', {
          namespace: 'shop',
          clusterIps: [WEB.ipv4, WEB.ipv6],
          selector: { tier: 'web' },
          ports: { [SERVICE_PORT]: APP_PORT },
        }),
        entry('weighted', WEIGHTED, APP_PORT),
        entry('idle', IDLE, IDLE_PORT),
        entry('half', HALF, HALF_PORT),
      ],
      'machines.yaml': [machine(far1, 'weighted', 3), machine(far2, 'weighted', 2)],
      'idle.yaml': [machine(far1, 'idle', 4), machine(far2, 'idle', 1)],
      'half.yaml': [machine(far1, 'half', 1), machine(far2, 'half', 1)],
    },
  };
}

/** Of the weighted service the near ones are endpoints as pods, the far ones as machines. */
function manifestOf(pods: Pods, name: Name, labels: Readonly<Record<string, string>> = labelsOf(name), ready = true) {
  return podManifest(pods[name], { labels, ready });
}

function labelsOf(name: Name): Readonly<Record<string, string>> {
  return name.startsWith('near') ? web : { tier: 'web' };
}

test.serial.before(async () => {
  bed = await tunnelBed('services on the kernel path', layout, { kernelPath: true });
  near = { lab: bed.lab, control: bed.control, agent: bed.agents[0] };
  const { far2 } = bed.pods;
  const tell = (pod: LabPod, port: number) => serve(pod, apps.pythonEcho({ port, mode: 'tell' }));
  const echo = (pod: LabPod) => serve(pod, apps.pythonEcho({ port: ECHO_PORT }));
  await Promise.all(servers.flatMap((name) => [tell(bed.pods[name], APP_PORT), echo(bed.pods[name])]));
  await tell(far2, HALF_PORT);
});

test.serial.after.always(() => bed?.lab.dispose());

const weights = (vip: string) => weightsOf(bed.nodes[0], vip);

/** Tells who answers connections to a service. */
async function drawn(vip: string, count: number, atOnce = 1): Promise<Tally> {
  return await tally(bed.pods.client, { to: vip, port: SERVICE_PORT, count, atOnce });
}

const isNear = (endpoint: string): boolean =>
  [bed.pods.near1, bed.pods.near2].some(({ addresses }) => addresses.includes(addressOf(endpoint)));

/**
 * Connects until all near backends are reached directly, so that both ways take part, and until each weighs as much as a
 * sample needs to tell of it (five answers), also one whose first connections were slow.
 */
async function warm(vip: string): Promise<void> {
  const isWarm = await settled(
    async () => {
      let answers: Tally['answers'] = {};
      const past = await pastAgent(near, bed.pods.client, async () => {
        ({ answers } = await drawn(vip, 30));
      });
      const byNear = Object.entries(answers).filter(([endpoint]) => isNear(endpoint));
      const table = Object.values(weights(vip) ?? {});
      return (
        byNear.length === 2 &&
        past.direct_local === sum(byNear.map(([, count]) => count)) &&
        table.every((weight) => weight * draws >= 5 * sum(table))
      );
    },
    (value) => value,
  );
  if (!isWarm) throw new Error('not all is reached as it should be');
}

interface Sample {
  readonly table: Readonly<Record<string, number>>;
  readonly answers: Readonly<Record<string, number>>;
  readonly direct: number;
}

/**
 * Has so many connections drawn while the agent is stopped, so that nothing it knows of backends can change; those that are to
 * be led wait for it. Undefined: it took too long, so that verdicts counted no longer.
 */
async function sample(t: ExecutionContext, vip: string, count: number): Promise<Sample | undefined> {
  const { client } = bed.pods;
  let table: Sample['table'] | undefined;
  let said = '';
  let isFresh = false;
  const past = await pastAgent(near, client, async () => {
    near.agent.process.signal('SIGSTOP');
    table = weights(vip);
    const app = client.run(tallyOf(vip, count));
    await app.json({ event: 'open', open: count });
    isFresh = heartbeatAgeMs(bed.nodes[0]) < limit.HEARTBEAT_MS;
    t.deepEqual(weights(vip), table, 'frozen');
    near.agent.process.signal('SIGCONT');
    app.write('\n');
    await app.exit;
    said = app.lines.at(-1) ?? '';
  });
  const { answers, errors, asItself } = JSON.parse(said) as Tally;
  t.deepEqual([errors, asItself], [{}, count]);
  if (!isFresh || table === undefined) return undefined;
  return { table, answers, direct: past.direct_local ?? 0 };
}

function tallyOf(vip: string, count: number): string[] {
  const script = join(import.meta.dirname, 'tally.py');
  const argv = ['--to', vip, '--port', `${SERVICE_PORT}`, '--count', `${count}`, '--at-once', `${count}`, '--wait'];
  return ['/usr/bin/python3', script, ...argv];
}

/** Above this one of a thousand samples of what is right lies, by the number of backends less one. */
const CRITICAL = [Number.NaN, 10.828, 13.816, 16.266, 18.467];

/** Pearson's statistic: how far the answers are from what the table says. */
function chiSquare({ table, answers }: Sample): number {
  const total = sum(Object.values(table));
  const count = sum(Object.values(answers));
  return sum(
    Object.entries(table).map(([endpoint, weight]) => {
      const expected = (count * weight) / total;
      return ((answers[endpoint] ?? 0) - expected) ** 2 / expected;
    }),
  );
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, one) => all + one, 0);
}

/** A sample that was taken while verdicts counted. */
async function wholeSample(t: ExecutionContext, vip: string, count: number): Promise<Sample> {
  const found = await settled(
    () => sample(t, vip, count),
    (taken) => taken !== undefined,
  );
  if (found === undefined) throw new Error('the machine is too slow');
  return found;
}

for (const [what, vip] of [
  ['a service of IPv6', WEB.ipv6],
  ['a service whose backends weigh differently', WEIGHTED],
] as const)
  test.serial(
    `backends of ${what} get connections as the published weights say, directly or through the tunnel`,
    async (t) => {
      await warm(vip);
      // One sample of a thousand fails by right, so it may be taken again once: then one of a million.
      let last: Sample | undefined;
      for (let attempt = 0; attempt < 2; attempt += 1) {
        last = await wholeSample(t, vip, draws);
        t.log(JSON.stringify(last), chiSquare(last));
        if (chiSquare(last) < (CRITICAL[Object.keys(last.table).length - 1] ?? 0)) break;
      }
      if (last === undefined) return t.fail();
      const { table, answers, direct } = last;
      for (const answering of Object.keys(answers)) t.true(answering in table, answering);
      t.true(chiSquare(last) < (CRITICAL[Object.keys(table).length - 1] ?? 0), JSON.stringify(last));
      const byNear = Object.entries(answers).filter(([endpoint]) => isNear(endpoint));
      t.is(direct, sum(byNear.map(([, count]) => count)), 'all of the near ones directly');
    },
  );

const endpointsOf = (names: readonly Name[], port = APP_PORT) =>
  names.map((name) => apps.endpoint(bed.pods[name].ipv4, port)).sort();

/** Asserts who answers connections to the service. */
async function assertServe(t: ExecutionContext, names: readonly Name[]): Promise<void> {
  t.deepEqual(Object.keys(weights(WEB.ipv4) ?? {}).sort(), endpointsOf(names));
  const { answers, errors } = await drawn(WEB.ipv4, 60);
  t.deepEqual(errors, {});
  for (const answering of Object.keys(answers)) t.true(endpointsOf(names).includes(answering), answering);
}

for (const [what, change] of [
  ['is removed from its service', (name: Name) => manifestOf(bed.pods, name, {})],
  ['is not ready', (name: Name) => manifestOf(bed.pods, name, labelsOf(name), false)],
] as const)
  for (const gone of ['near1', 'far1'] as const)
    test.serial(`a backend that ${what} gets no further connection, and keeps those it has: ${gone}`, async (t) => {
      await warm(WEB.ipv4);
      const [own = ''] = endpointsOf([gone], ECHO_PORT);
      const held = await Held.open(bed.pods.client, [own], 4);
      await changed(near, (control) => control.write(`${gone}.yaml`, change(gone)));
      await assertServe(
        t,
        servers.filter((name) => name !== gone),
      );
      t.is(await held.alive(), 4);
      await changed(near, (control) => control.write(`${gone}.yaml`, manifestOf(bed.pods, gone)));
      await assertServe(t, servers);
      t.deepEqual(await held.close(), { open: 4, lost: 0, errors: {} });
    });

test.serial('the capacity of machines is what their weights are, as soon as it is said', async (t) => {
  const { far1, far2 } = bed.pods;
  const [one = '', two = ''] = endpointsOf(['far1', 'far2'], IDLE_PORT);
  t.deepEqual(weights(IDLE), { [one]: 1000, [two]: 250 });
  await changed(near, (control) => control.write('idle.yaml', [machine(far1, 'idle', 1), machine(far2, 'idle', 2)]));
  t.deepEqual(weights(IDLE), { [one]: 500, [two]: 1000 });
});

test.serial('a backend that fails is chosen no more, and no client has noticed it', async (t) => {
  const [failing = '', answering = ''] = endpointsOf(['far1', 'far2'], HALF_PORT);
  t.deepEqual(Object.keys(weights(HALF) ?? {}).sort(), [failing, answering].sort());
  const left = await settled(
    async () => {
      const { answers, errors } = await drawn(HALF, 20);
      t.deepEqual([Object.keys(answers), errors], [[answering], {}]);
      return Object.keys(weights(HALF) ?? {});
    },
    (keys) => keys.length === 1,
  );
  t.deepEqual(left, [answering]);
});
