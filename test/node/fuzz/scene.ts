/** Two nodes for the fuzz: pods of several namespaces and accounts, services over them, and an app in each. */
import { furnish, Lab, type LabAgent, type LabControl, type LabNode, type LabPod } from '../../lab/index.ts';
import type { Random } from '../../unit/policy/random.ts';
import { labOptions } from '../conversation.ts';
import { Actor } from './actor.ts';
import { manifestsOf } from './manifests.ts';
import type { Pod, Service, World } from './model.ts';
import { randomLabels } from './random-world.ts';

type Role = Pick<Pod, 'name' | 'node' | 'namespace' | 'account' | 'isEnrolled' | 'isKnown'>;

const ROLES: readonly Role[] = [
  ...[
    ['near', 'shop', 'web'],
    ['near', 'shop', 'web'],
    ['near', 'shop', 'api'],
    ['near', 'pay', 'web'],
    ['near', 'pay', 'api'],
    ['near', 'pay', 'api'],
    ['near', 'ops', 'default'],
    ['near', 'ops', 'api'],
    ['far', 'shop', 'web'],
    ['far', 'pay', 'api'],
  ].map(([node, namespace = '', account = ''], index) => ({
    ...{ name: `pod-${index}`, node: node === 'far' ? ('far' as const) : ('near' as const), namespace, account },
    ...{ isEnrolled: true, isKnown: true },
  })),
  { name: 'stranger', node: 'near', namespace: 'shop', account: 'default', isEnrolled: false, isKnown: true },
  { name: 'unknown', node: 'near', namespace: 'pay', account: 'web', isEnrolled: false, isKnown: false },
];

const SERVICES: readonly Service[] = [
  { namespace: 'shop', selector: { tier: 'front' } },
  { namespace: 'shop', selector: { color: 'red' } },
  { namespace: 'pay', selector: { tier: 'back' } },
  { namespace: 'ops', selector: { app: 'pod-6' } },
].map((service, index) => ({
  ...service,
  name: `service-${index}`,
  ipv4: `10.96.0.${index + 1}`,
  ipv6: `fd00:c:96::${index + 1}`,
  ports: { 80: 8080, 81: 8082 },
  isThere: true,
}));

const SERVICE_BLOCKS = ['10.96.0.0/16', 'fd00:c:96::/64'];
const FILE = 'mesh.yaml';
/** Workloads of the mesh: more than pods, and another number after each change, so that each can be told by it. */
const LEAST_WORKLOADS = 20;
const NUMBERS = 7;

export class FuzzScene implements AsyncDisposable {
  /** As they are at the beginning. */
  readonly pods: readonly Pod[];
  readonly services = SERVICES;
  readonly agents: readonly LabAgent[];
  readonly #lab: Lab;
  readonly #control: LabControl;
  readonly #labPods: ReadonlyMap<string, LabPod>;
  readonly #actors: ReadonlyMap<string, Actor>;
  /** Names of pods. */
  readonly #enrolled = new Set<string>();
  #changes = 0;

  private constructor(
    lab: Lab,
    pods: readonly Pod[],
    labPods: ReadonlyMap<string, LabPod>,
    actors: ReadonlyMap<string, Actor>,
    { control, agents }: { control: LabControl; agents: readonly LabAgent[] },
  ) {
    this.#lab = lab;
    this.pods = pods;
    this.#labPods = labPods;
    this.#actors = actors;
    this.#control = control;
    this.agents = agents;
  }

  static async create(title: string, random: Random): Promise<FuzzScene> {
    return await furnish(await Lab.create(title, labOptions), async (lab) => {
      const nodes = { near: await lab.node('near'), far: await lab.node('far') };
      await lab.link(nodes.near, nodes.far);
      await Promise.all(Object.values(nodes).map(refuseServices));
      const labPods = new Map<string, LabPod>();
      const pods: Pod[] = [];
      for (const role of ROLES) {
        const labPod = await podOf(nodes[role.node], role);
        labPods.set(role.name, labPod);
        pods.push(modelOf(role, labPod, random));
      }
      const actors = await startActors(pods, labPods);
      const world: World = { pods, services: SERVICES, sameNode: {}, policies: [], peers: [] };
      const control = await lab.control({ manifests: { [FILE]: manifestsOf(world, labPods, LEAST_WORKLOADS) } });
      const agents = await Promise.all(Object.values(nodes).map((node) => node.agent({ control, kernelPath: true })));
      await Promise.all(agents.map((agent) => agent.told({ message: 'the mesh is known' })));
      const scene = new FuzzScene(lab, pods, labPods, actors, { control, agents });
      await scene.#enrol(world);
      return scene;
    });
  }

  /** Tells the mesh of a change, all at once, and waits until it is in force on both nodes. */
  async change(world: World): Promise<void> {
    this.#changes += 1;
    await this.#enrol(world);
    const workloads = LEAST_WORKLOADS + (this.#changes % NUMBERS);
    const since = this.agents.map((agent) => agent.process.lines.length);
    this.#control.write(FILE, manifestsOf(world, this.#labPods, workloads));
    const told = { message: 'the mesh has changed', workloads };
    await Promise.all(
      this.agents.map((agent, index) => agent.told(told, { since: since[index] ?? 0, deadlineMs: 60_000 })),
    );
  }

  async #enrol({ pods }: World): Promise<void> {
    for (const { name, node, isEnrolled } of pods) {
      const [labPod, agent] = [this.#labPods.get(name), this.agents[node === 'near' ? 0 : 1]];
      if (labPod === undefined || agent === undefined || isEnrolled === this.#enrolled.has(name)) continue;
      if (isEnrolled) await agent.enrol(labPod);
      else await agent.withdraw(labPod);
      if (isEnrolled) this.#enrolled.add(name);
      else this.#enrolled.delete(name);
    }
  }

  actor(pod: Pod): Actor {
    const actor = this.#actors.get(pod.name);
    if (actor === undefined) throw new Error(`${pod.name} has no app`);
    return actor;
  }

  /** What the agents have logged of connections from the pod since they had written so many lines. */
  told(pod: Pod, since: readonly number[]): string[] {
    const isAbout = (line: string) => line.includes(`"src.addr":"${pod.ipv4}:`) || line.includes(`[${pod.ipv6}]:`);
    return this.agents.flatMap(({ process }, index) => process.lines.slice(since[index] ?? 0).filter(isAbout));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#lab.dispose();
  }
}

/** The address of a service that is gone leads to the node, where nobody listens: so it is refused at once. */
async function refuseServices(node: LabNode): Promise<void> {
  for (const block of SERVICE_BLOCKS) {
    const { code, stderr } = await node.exec(['ip', 'route', 'add', 'local', block, 'dev', 'lo']);
    if (code !== 0) throw new Error(`no route of its own for ${block}: ${stderr}`);
  }
}

function podOf(node: LabNode, { name, namespace, account }: Role): Promise<LabPod> {
  return node.pod(name, { namespace, serviceAccount: account });
}

function modelOf(role: Role, { ipv4, ipv6 }: LabPod, random: Random): Pod {
  const tag = String.fromCharCode('a'.charCodeAt(0) + ROLES.indexOf(role));
  const labels = randomLabels(random, role.name);
  return { ...role, tag, ipv4, ipv6, labels, isReady: true, sameNode: 'unsaid' };
}

async function startActors(
  pods: readonly Pod[],
  labPods: ReadonlyMap<string, LabPod>,
): Promise<ReadonlyMap<string, Actor>> {
  const actors = new Map<string, Actor>();
  for (const { name, tag } of pods) {
    const labPod = labPods.get(name);
    if (labPod !== undefined) actors.set(name, await Actor.start(labPod, tag));
  }
  return actors;
}
