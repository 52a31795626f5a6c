/** A server on the kernel path that only one client may reach, and everybody else who would like to. */
import type { ExecutionContext } from 'ava';
import { shellIn } from '../lab/command.ts';
import {
  apps,
  authorizationPolicyManifest,
  furnish,
  type LabPod,
  type LabProcess,
  type Manifest,
  type PodOptions,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { type Conversation, families, serve } from './conversation.ts';
import { changed, direct, type PathBed, pathBed, waysTo } from './kernel-path-bed.ts';
import { Policies, reached } from './policy-bed.ts';
import { APP_PORT, podOf } from './tunnel-bed.ts';

export interface GuardedPods {
  readonly client: LabPod;
  /** Lets in the client, and nobody else. */
  readonly server: LabPod;
  /** Lets in the rogue, and nobody else. */
  readonly other: LabPod;
  /** Enrolled; its processes may do anything in its network. */
  readonly rogue: LabPod;
  /** In no mesh, and nobody knows it. It has an app too. */
  readonly stranger: LabPod;
}

export interface GuardedBed extends PathBed<GuardedPods> {
  readonly policies: Policies;
  /** The server's, which tells who comes. */
  readonly app: LabProcess;
}

/** Lets only these service accounts of `shop` in to the pods of one app. */
function allow(to: string, ...from: string[]): Manifest {
  const principals = from.map((name) => `cluster.local/ns/shop/sa/${name}`);
  const rules = principals.length === 0 ? [] : [{ from: [{ source: { principals } }] }];
  return authorizationPolicyManifest(`to-${to}`, { selector: { app: to }, rules });
}

/** STRICT; the server lets in these, and the other pod the rogue. */
export function letIn(...clients: string[]): Manifest[] {
  return [peerAuthenticationManifest('strict'), allow('server', ...clients), allow('other', 'rogue')];
}

/** What is in force at the beginning. */
export const usual: readonly Manifest[] = letIn('client');

export async function guardedBed(title: string): Promise<GuardedBed> {
  const bed = await pathBed(title, async (node) => {
    const names = ['client', 'server', 'other', 'rogue', 'stranger'] as const;
    const made = await Promise.all(names.map(async (name) => [name, await podOf(node, name)] as const));
    const { stranger, ...enrolled } = Object.fromEntries(made) as unknown as GuardedPods;
    return {
      pods: { stranger, ...enrolled },
      enrolled: Object.values(enrolled),
      manifests: { 'pods.yaml': Object.values(enrolled).map((pod) => podManifest(pod)) },
    };
  });
  return await furnish(bed, async () => {
    await bed.agent.told({ message: 'the mesh is known' });
    const { control } = bed;
    const policies = new Policies({
      control,
      get agents() {
        return [bed.agent];
      },
    });
    await policies.are(...usual);
    const { server, other, stranger } = bed.pods;
    const tell = (pod: LabPod): Promise<LabProcess> => serve(pod, apps.echo({ port: APP_PORT, mode: 'tell' }));
    const [app] = [await tell(server), await tell(other), await tell(stranger)];
    return Object.assign(bed, { policies, app });
  });
}

/** Gives the mesh another pod. */
export async function newcomer(bed: GuardedBed, name: string, options: PodOptions = {}): Promise<LabPod> {
  const pod = await podOf(bed.node, name, options);
  await bed.agent.enrol(pod);
  await changed(bed, (control) => control.write(`${name}.yaml`, podManifest(pod)));
  return pod;
}

/** What an app may see of a connection that is not let in, or whose packets nobody answers. */
export const refusals: readonly string[] = [
  ...['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED', 'ENOTCONN', 'EPIPE'],
  ...['ETIMEDOUT', 'ENETUNREACH'],
];

/** What the agent's log says when what arrives at a pod is not what has left another. */
export const MASQUERADED =
  'somebody rewrites the source of connections between two pods of this node: they use the tunnel for 10 minutes';

/** Asserts that whatever `work` does is not let in, and that no connection reaches the server's app meanwhile. */
export async function assertKeptOut(
  t: ExecutionContext,
  app: LabProcess,
  who: string,
  work: () => Promise<Pick<Conversation, 'error' | 'reply'>>,
): Promise<void> {
  const before = await reached({ apps: [app] });
  const { error, reply } = await work();
  t.true(refusals.includes(error ?? 'none'), `${who}: ${error}`);
  t.is(reply, undefined, who);
  t.is(await reached({ apps: [app] }), before, `${who}: the app has seen it`);
}

/** The client goes to the server past the agent, in both families. */
export async function assertClientUnharmed(bed: GuardedBed): Promise<void> {
  for (const kind of families) await direct(bed, bed.pods.client, waysTo(bed.pods.server, kind)[0].argv);
}

/** Rules of a pod's own, until the end of the block. */
export async function rules(pod: LabPod, lines: string): Promise<AsyncDisposable> {
  await shellIn(pod.netns, `nft 'table inet own { ${lines} }'`);
  return { [Symbol.asyncDispose]: async () => void (await shellIn(pod.netns, 'nft delete table inet own')) };
}
