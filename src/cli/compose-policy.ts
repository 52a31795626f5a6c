/** Joins manifests, the agent's socket and the rules of policy to the commands that ask about policy. */
import { answerQuestion, callAgent, parseQuestionSource, parseQuestionTarget, runDirectory } from '../agent/index.ts';
import { type ManifestReading, readManifests } from '../control/index.ts';
import { messageOf, policyName, ReadModel } from '../mesh/index.ts';
import { PolicyBook } from '../policy/index.ts';
import { type ExitCode, exitCode, type Output } from './exit.ts';
import type { Proposal } from './policy-changes.ts';
import { policyCheck } from './policy-check.ts';
import { proposalOf } from './policy-proposal.ts';
import { type PolicyReplayDeps, policyReplay } from './policy-replay.ts';
import { type PolicyTestDeps, policyTest } from './policy-test.ts';

export function runPolicyCheck(
  paths: readonly string[],
  options: { json: boolean },
  output: Output,
): Promise<ExitCode> {
  return policyCheck({ read: readManifests }, paths, options, output);
}

interface TestOptions {
  readonly from: string;
  readonly to: string;
  /** Empty: the agent answers. */
  readonly manifests: readonly string[];
  readonly run: string;
  readonly explain: boolean;
  readonly json: boolean;
}

export function runPolicyTest(options: TestOptions, output: Output): Promise<ExitCode> {
  const ask = options.manifests.length === 0 ? () => askAgent(options) : () => askManifests(options);
  return orUndecided(output, () => policyTest({ ask }, options, output));
}

interface ReplayOptions {
  readonly run: string;
  /** Manifests of the whole mesh, for labels. */
  readonly manifests: readonly string[];
  readonly json: boolean;
}

export function runPolicyReplay(paths: readonly string[], options: ReplayOptions, output: Output): Promise<ExitCode> {
  const deps: PolicyReplayDeps = {
    seen: () => seenBy(options.run),
    propose: (rootNamespace) => proposed(paths, options.manifests, rootNamespace),
  };
  return orUndecided(output, () => policyReplay(deps, options, output));
}

/** A failure must not look like a no. */
async function orUndecided(output: Output, run: () => Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await run();
  } catch (error) {
    output.error(`culvert: ${messageOf(error)}\n`);
    return exitCode.undecided;
  }
}

const askAgent: (options: TestOptions) => ReturnType<PolicyTestDeps['ask']> = async ({ from, to, explain, run }) => {
  // Before anybody is called.
  parseQuestionSource(from);
  parseQuestionTarget(to);
  const { socket } = runDirectory(run);
  return (await callAgent<'policy-test'>({ method: 'policy-test', from, to, explain }, { path: socket })).answer;
};

const askManifests: (options: TestOptions) => ReturnType<PolicyTestDeps['ask']> = async (options) => {
  const question = {
    source: parseQuestionSource(options.from),
    target: parseQuestionTarget(options.to),
    explain: options.explain,
  };
  const mesh = new ReadModel();
  mesh.apply((await readSound(options.manifests)).mesh);
  return answerQuestion({ mesh, book: new PolicyBook(mesh) }, question);
};

/** One pod at a time, so that no answer is large and the agent is never busy with it for long. */
async function seenBy(run: string): Promise<Awaited<ReturnType<PolicyReplayDeps['seen']>>> {
  const path = runDirectory(run).socket;
  const { status } = await callAgent<'status'>({ method: 'status' }, { path });
  const all = [];
  for (const { uid } of status.pods)
    all.push((await callAgent<'recent-flows'>({ method: 'recent-flows', uid }, { path })).recent);
  const workloads = new Map(all.flatMap((each) => each.workloads.map((workload) => [workload.uid, workload])));
  const policies = new Map(all.flatMap((each) => each.policies.map((policy) => [policyName(policy), policy])));
  return {
    flows: all.flatMap(({ flows }) => flows),
    workloads: [...workloads.values()],
    policies: [...policies.values()],
    outsideMesh: all.reduce((sum, each) => sum + each.outsideMesh, 0),
    rootNamespace: all[0]?.rootNamespace ?? 'istio-system',
  };
}

async function proposed(
  paths: readonly string[],
  manifests: readonly string[],
  rootNamespace: string,
): Promise<Proposal> {
  const reading = await readSound(paths);
  if (reading.policies.length === 0)
    throw new Error(
      `there is no AuthorizationPolicy and no PeerAuthentication in ${paths.join(', ')}; name a file with one`,
    );
  if (manifests.length === 0) return proposalOf(reading, { isWhole: false, rootNamespace });
  // The first of a name counts, so the proposed ones take the place of those of the mesh.
  return proposalOf(await readSound([...paths, ...manifests], ['duplicate']), { isWhole: true, rootNamespace });
}

/** @throws Error if something is wrong with a file: an answer would be of another mesh than is meant */
async function readSound(paths: readonly string[], tolerated: readonly string[] = []): Promise<ManifestReading> {
  const reading = await readManifests(paths);
  const problems = reading.problems.filter(({ reason }) => !tolerated.includes(reason));
  const [first] = problems;
  if (first === undefined) return reading;
  const where = first.place === undefined ? '' : `${first.place.file}:${first.place.line}: `;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  throw new Error(
    `${where}${first.text}${more} Mend it first; culvert policy check ${paths.join(' ')} lists everything`,
  );
}
