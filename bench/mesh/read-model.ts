/**
 * `./dev bench mesh/read-model`: what a look-up in the read model costs in a small and in a large mesh, and how fast an edit
 * of manifests is in force in a large one.
 *
 *   bench mesh/read-model [--rounds N] [--quick] [--json]
 *
 * Small: 10 workloads and 1 service; large: 10,000 and 1,000. The look-ups take turns within a round; each goes through all
 * keys of its mesh in another order than the one in which they came. Edits are written to files of 110 objects on disk, and the time
 * runs from the write to the update.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { table } from '../../src/cli/table.ts';
import { completeUpdate } from '../../src/control/build/changes.ts';
import { buildMesh, MeshBuilder } from '../../src/control/build/mesh-builder.ts';
import { parseManifest } from '../../src/control/manifests/parse.ts';
import { ManifestSource } from '../../src/control/manifests/source.ts';
import type { KubernetesObject } from '../../src/control/objects/index.ts';
import { type Address, type MeshUpdate, ReadModel } from '../../src/mesh/index.ts';
import { silentLog } from '../../src/telemetry/index.ts';
import { fixed, formatSpread, interleave, machine, pairwise, readOptions, type Spread, spread } from '../sample.ts';

const usage = 'usage: bench mesh/read-model [--rounds N] [--quick] [--json]';
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
  },
});
const rounds = Number(values.rounds ?? (values.quick ? 5 : 15));
const lookups = values.quick ? 100_000 : 400_000;
const SMALL = { workloads: 10, services: 1 };
const LARGE = { workloads: 10_000, services: 1000 };
const NAMESPACES = 50;
const NODES = 100;
const FILES = 100;
if (!(rounds >= 1)) {
  console.error(usage);
  process.exit(2);
}

/** Addresses of a network of pods, and of one of services. */
const podAddress = (index: number) => `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}` as Address;
const serviceAddress = (index: number) => `172.16.${index >> 8}.${index & 255}` as Address;
/** A service and its endpoints are of one namespace. */
const namespaceOf = (index: number, size: typeof LARGE) => `ns-${(index % size.services) % NAMESPACES}`;

function podText(index: number, size: typeof LARGE): string {
  return `apiVersion: v1
kind: Pod
metadata:
  name: web-${index}
  namespace: ${namespaceOf(index, size)}
  generateName: web-
  labels: {app: app-${index % size.services}, pod-template-hash: x${index % 7}, version: v1}
  annotations: {ambient.istio.io/redirection: enabled}
  ownerReferences: [{kind: ReplicaSet, name: app-${index % size.services}-x${index % 7}, controller: true}]
spec:
  nodeName: node-${index % NODES}
  serviceAccountName: app-${index % size.services}
  containers: [{ports: [{name: http, containerPort: 8080}]}]
status:
  phase: Running
  podIPs: [{ip: ${podAddress(index)}}]
  conditions: [{type: Ready, status: "True"}]
`;
}

function serviceText(index: number, size: typeof LARGE, port = 80): string {
  return `apiVersion: v1
kind: Service
metadata: {name: app-${index}, namespace: ${namespaceOf(index, size)}}
spec:
  clusterIP: ${serviceAddress(index)}
  selector: {app: app-${index}}
  ports: [{port: ${port}, targetPort: http}]
`;
}

/** Two entries with a block each, so that look-ups of what is unknown have blocks to look at. */
const ENTRIES = ['192.0.2.0/24', '198.18.0.0/15'].map(
  (block, index) => `apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: block-${index}, namespace: ns-0}
spec: {hosts: [block-${index}.example.com], addresses: [${block}], ports: [{number: 443}]}
`,
);

function nodeText(index: number): string {
  return `apiVersion: v1\nkind: Node\nmetadata: {name: node-${index}, labels: {topology.kubernetes.io/zone: z${index % 3}}}\n`;
}

function textsOf(size: typeof LARGE): string[] {
  return [
    ...ENTRIES,
    ...Array.from({ length: NODES }, (_, index) => nodeText(index)),
    ...Array.from({ length: size.services }, (_, index) => serviceText(index, size)),
    ...Array.from({ length: size.workloads }, (_, index) => podText(index, size)),
  ];
}

function objectsOf(texts: readonly string[]): KubernetesObject[] {
  const { objects, issues } = parseManifest(texts.join('---\n'));
  if (issues[0] !== undefined) throw new Error(issues[0].text);
  return objects.map(({ object }) => object);
}

type LookUp = (mesh: ReadModel, index: number, size: typeof LARGE) => unknown;

const LOOK_UPS: Readonly<Record<string, LookUp>> = {
  'workload by address': (mesh, index) => mesh.workloadAt('', podAddresses[index] as Address),
  'workload of a local pod': (mesh, index, size) =>
    mesh.localWorkload(
      nodes[index % NODES] ?? '',
      namespaces[index] ?? '',
      names[index] ?? '',
      apps[index % size.services] ?? '',
    ),
  'service by address': (mesh, index, size) =>
    mesh.serviceAt('', serviceAddresses[index % size.services] as Address, 'ns-1'),
  'service by hostname': (mesh, index, size) => mesh.serviceByHostname(hostnames[index % size.services] ?? '', 'ns-1'),
  'service by block': (mesh, index) => mesh.serviceAt('', blocked[index % blocked.length] as Address, 'ns-1'),
  'nothing at an address': (mesh, index) =>
    mesh.workloadAt('', blocked[index % blocked.length] as Address) ??
    mesh.serviceAt('', unknown[index % unknown.length] as Address, 'ns-1'),
  'endpoints of a service': (mesh, index, size) => {
    const service = mesh.service(serviceNames[index % size.services] ?? 'a/b');
    return service && mesh.endpoints(service);
  },
};

const indices = (length: number) => Array.from({ length }, (_, index) => index);
const nodes = indices(NODES).map((index) => `node-${index}`);
const podAddresses = indices(LARGE.workloads).map(podAddress);
const names = indices(LARGE.workloads).map((index) => `web-${index}`);
const apps = indices(LARGE.services).map((index) => `app-${index}`);
const namespaces = indices(LARGE.workloads).map((index) => namespaceOf(index, LARGE));
const serviceAddresses = indices(LARGE.services).map(serviceAddress);
const hostnames = indices(LARGE.services).map((index) => `app-${index}.${namespaceOf(index, LARGE)}.svc.cluster.local`);
const serviceNames = indices(LARGE.services).map(
  (index) => `${namespaceOf(index, LARGE)}/${hostnames[index] ?? ''}` as const,
);
const blocked = indices(200).map((index) => `192.0.2.${index}`);
const unknown = indices(200).map((index) => `203.0.113.${index}`);

interface LookUpCost {
  readonly what: string;
  readonly smallNs: Spread;
  readonly largeNs: Spread;
  readonly ratio: Spread;
}

/** Nanoseconds of one look-up; the keys in steps that reach all of them. */
function timeLookUps(lookUp: LookUp, mesh: ReadModel, size: typeof LARGE): number {
  const step = size.workloads === LARGE.workloads ? 7919 : 7;
  let found = 0;
  let index = 0;
  const start = performance.now();
  for (let count = 0; count < lookups; count += 1) {
    index = (index + step) % size.workloads;
    if (lookUp(mesh, index, size) !== undefined) found += 1;
  }
  const ns = ((performance.now() - start) * 1e6) / lookups;
  if (found > lookups) throw new Error('more was found than looked up');
  return ns;
}

async function measureLookUps(small: ReadModel, large: ReadModel): Promise<LookUpCost[]> {
  const costs: LookUpCost[] = [];
  for (const [what, lookUp] of Object.entries(LOOK_UPS)) {
    const run = (each: 'small' | 'large') =>
      timeLookUps(lookUp, each === 'small' ? small : large, each === 'small' ? SMALL : LARGE);
    run('small');
    run('large');
    const { small: smallNs, large: largeNs } = await interleave(['small', 'large'], rounds, async (each) => run(each));
    const ratio = spread(pairwise(largeNs, smallNs, (value, base) => value / base));
    costs.push({ what, smallNs: spread(smallNs), largeNs: spread(largeNs), ratio });
  }
  return costs;
}

interface Step {
  readonly what: string;
  readonly ms: Spread;
}

function timed(run: () => unknown): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}

/** Building the large mesh, and building it again after one object was replaced. */
function measureBuilds(objects: readonly KubernetesObject[]): Step[] {
  const full = indices(rounds).map(() => timed(() => buildMesh(objects)));
  const builder = new MeshBuilder();
  builder.build(objects);
  const edited = [...objects];
  const edit = (text: string, kind: string) => {
    const [object] = objectsOf([text]);
    const place = edited.findIndex((each) => each.kind === kind);
    if (object === undefined) throw new Error(text);
    edited[place] = object;
    return timed(() => builder.build(edited));
  };
  const pods = indices(rounds).map((round) =>
    edit(podText(0, LARGE).replace('version: v1', `version: w${round}`), 'Pod'),
  );
  const services = indices(rounds).map((round) => edit(serviceText(0, LARGE, 1000 + round), 'Service'));
  return [
    { what: 'building all', ms: spread(full) },
    { what: 'building after a pod has changed', ms: spread(pods) },
    { what: 'building after a service has changed', ms: spread(services) },
  ];
}

function measureApply(update: MeshUpdate): Step[] {
  const whole = indices(rounds).map(() => timed(() => new ReadModel().apply(update)));
  const mesh = new ReadModel();
  mesh.apply(update);
  const one: MeshUpdate = { ...update, complete: false, workloads: update.workloads.slice(0, 1), services: [] };
  const deltas = indices(rounds).map(() => timed(() => mesh.apply(one)));
  return [
    { what: 'applying all to a read model', ms: spread(whole) },
    { what: 'applying one workload', ms: spread(deltas) },
  ];
}

/** From the write of a file to the update that comes of it. */
async function measureSource(texts: readonly string[]): Promise<Step[]> {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
  const files = indices(FILES).map((file) => texts.filter((_, index) => index % FILES === file));
  const write = (file: number, edited: readonly string[]) =>
    writeFileSync(join(directory, `part-${file}.yaml`), edited.join('---\n'));
  files.forEach((each, file) => void write(file, each));
  const source = new ManifestSource({ log: silentLog() }, { directory });
  const alive = setInterval(() => undefined, 1000);
  try {
    let told = Promise.withResolvers<void>();
    source.onUpdate(() => told.resolve());
    const start = performance.now();
    await source.start();
    const startMs = performance.now() - start;
    const edit = async (round: number, count: number) => {
      told = Promise.withResolvers();
      const file = round % FILES;
      const last = (files[file] ?? []).length - count;
      files[file] = (files[file] ?? []).map((text, index) =>
        index < last ? text : text.replace(/version: v\w+/, `version: v${round}x${count}`),
      );
      const began = performance.now();
      write(file, files[file]);
      await told.promise;
      return performance.now() - began;
    };
    const { one, all } = await interleave(['one', 'all'], rounds, (each, round) =>
      edit(round, each === 'one' ? 1 : 100),
    );
    return [
      { what: `reading ${FILES} files at the start`, ms: spread([startMs]) },
      { what: 'from the write of a file with one object changed to the update', ms: spread(one) },
      { what: 'the same with 100 objects changed', ms: spread(all) },
    ];
  } finally {
    clearInterval(alive);
    source.close();
    rmSync(directory, { recursive: true });
  }
}

/** Heap that a read model of the update takes in a worker thread, where its objects are a copy. */
async function measureMemory(update: MeshUpdate): Promise<number> {
  const code = `
    const { parentPort } = require('node:worker_threads');
    require('node:v8').setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    const settle = () => { gc(); gc(); return process.memoryUsage().heapUsed; };
    import(${JSON.stringify(new URL('../../src/mesh/index.ts', import.meta.url).href)}).then(({ ReadModel }) => {
      const mesh = new ReadModel();
      const before = settle();
      parentPort.once('message', (update) => {
        mesh.apply(update);
        setImmediate(() => { update = undefined; parentPort.postMessage(settle() - before); globalThis.mesh = mesh; });
      });
      parentPort.postMessage(0);
    });`;
  const worker = new Worker(code, { eval: true });
  const next = () => new Promise<number>((resolve, reject) => worker.once('message', resolve).once('error', reject));
  await next();
  worker.postMessage(update);
  const bytes = await next();
  await worker.terminate();
  return bytes / update.workloads.length;
}

const texts = textsOf(LARGE);
const objects = objectsOf(texts);
const update = completeUpdate(buildMesh(objects));
const [small, large] = [new ReadModel(), new ReadModel()];
small.apply(completeUpdate(buildMesh(objectsOf(textsOf(SMALL)))));
large.apply(update);
const report = {
  machine: machine(),
  rounds,
  lookUps: await measureLookUps(small, large),
  steps: [...measureBuilds(objects), ...measureApply(update), ...(await measureSource(texts))],
  bytesPerWorkload: await measureMemory(update),
};
if (values.json) console.log(JSON.stringify(report, undefined, 2));
else {
  const rows = report.lookUps.map(({ what, smallNs, largeNs, ratio }) => [
    what,
    formatSpread(smallNs, fixed(0)),
    formatSpread(largeNs, fixed(0)),
    formatSpread(ratio, fixed(2)),
  ]);
  console.log(
    table(
      ['look-up, ns', `${SMALL.workloads} workloads`, `${LARGE.workloads} and ${LARGE.services} services`, 'ratio'],
      rows,
    ),
  );
  console.log(
    table(
      ['in the large mesh', 'ms'],
      report.steps.map(({ what, ms }) => [what, formatSpread(ms, fixed(2))]),
    ),
  );
  console.log(`heap of a read model in a worker: ${(report.bytesPerWorkload / 1024).toFixed(1)} KiB per workload`);
}
