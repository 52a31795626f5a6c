/** Answers "may this one connect to that one?" from what is known of the mesh. Pure. */
import {
  type Address,
  familyOf,
  formatEndpoint,
  identityOf,
  isWaypointOf,
  type PolicyName,
  type ReadModel,
  type SpiffeId,
  serviceName,
  type Workload,
} from '../mesh/index.ts';
import { type Attempt, type Decision, explanationLines, type PolicyBook, type Rules } from '../policy/index.ts';
import type { PolicyAnswer } from './policy-protocol.ts';
import { identityOfAccount, type QuestionSource, type QuestionTarget } from './policy-question.ts';

type AnswerMesh = Pick<
  ReadModel,
  | 'isComplete'
  | 'settings'
  | 'snapshot'
  | 'workload'
  | 'workloadAt'
  | 'service'
  | 'serviceAt'
  | 'endpoints'
  | 'members'
  | 'gateway'
>;

export interface AnswerDeps {
  readonly mesh: AnswerMesh;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
}

interface Question {
  readonly source: QuestionSource;
  readonly target: QuestionTarget;
  /** Every policy and rule too. */
  readonly explain: boolean;
}

/** Combinations of addresses that are tried, where addresses matter. */
const MAX_ATTEMPTS = 1_000;
const MAX_EXPLANATION_LINES = 5_000;
/** Stands for an address that nobody looks at. */
const ANY_ADDRESS = '0.0.0.0' as Address;

export function answerQuestion(deps: AnswerDeps, { source, target, explain }: Question): PolicyAnswer {
  const { mesh, book } = deps;
  const notes: string[] = [];
  const found = mesh.isComplete ? findTarget(mesh, target) : MESH_UNKNOWN;
  if ('text' in found)
    return {
      ...blank('unknown', found.reason, found.text),
      destination: { addresses: target.pod.kind === 'address' ? [target.pod.address] : [], port: target.port },
    };
  const { workload, addresses } = found;
  const client = findSource(mesh, source, notes);
  const parties = {
    source: partyOf(client),
    destination: {
      pod: nameOf(workload),
      identity: identityOf(workload),
      addresses: [...addresses],
      port: target.port,
    },
    notes,
  };
  if (workload.protocol === 'tcp' && !workload.nativeTunnel) {
    const text = `${nameOf(workload)} is not in the mesh, so no policy is enforced at it`;
    return { ...blank('allowed', 'not-in-mesh', text), ...parties };
  }
  if (workload.nativeTunnel)
    notes.push(`${nameOf(workload)} ends tunnels itself, so policies are enforced by it alone`);
  const rules = book.rulesFor(workload);
  const attempts = attemptsOf(mesh, client, found, target.port, rules);
  return { ...judge(rules, attempts, workload, client, explain), ...parties };
}

/** Who connects, as far as the mesh knows. */
interface Client {
  readonly identity: SpiffeId | undefined;
  readonly pod: Workload | undefined;
  /** Empty: it has not been said, and the mesh does not know. */
  readonly addresses: readonly Address[];
}

interface Destination {
  readonly workload: Workload;
  readonly addresses: readonly [Address, ...Address[]];
}

type NotFound = Pick<PolicyAnswer, 'reason' | 'text'>;

const MESH_UNKNOWN: NotFound = {
  reason: 'mesh-unknown',
  text: 'nothing is known of the mesh yet; is the control process running? culvert status shows the link to it',
};

function findTarget(mesh: AnswerMesh, { pod }: QuestionTarget): Destination | NotFound {
  if (pod.kind === 'address') {
    const workload = mesh.workloadAt(mesh.settings.network, pod.address);
    return workload === undefined ? noPodAt(mesh, pod.address) : { workload, addresses: [pod.address] };
  }
  const workload = podNamed(mesh, pod);
  if (workload === undefined) return noPodNamed(mesh, pod);
  const [first, ...rest] = workload.addresses;
  if (first !== undefined) return { workload, addresses: [first, ...rest] };
  return { reason: 'no-such-pod', text: `${nameOf(workload)} has no address, so nobody connects to it directly` };
}

function noPodAt(mesh: AnswerMesh, address: Address): NotFound {
  const service = mesh.serviceAt(mesh.settings.network, address, undefined);
  if (service !== undefined) return notAPod(mesh, `${address} is the address of the service`, service);
  return {
    reason: 'no-such-pod',
    text: `no pod of the mesh has the address ${address}; culvert knows no policy for it`,
  };
}

function noPodNamed(mesh: AnswerMesh, { namespace, name }: { namespace: string; name: string }): NotFound {
  const hostname = `${name}.${namespace}.svc.${mesh.settings.clusterDomain}`;
  const service = mesh.service(serviceName({ namespace, hostname }));
  if (service !== undefined) return notAPod(mesh, 'that is the service', service);
  const others = someNames(mesh.snapshot().workloads.filter((each) => each.namespace === namespace));
  const hint = others === '' ? `the mesh has no pod in namespace ${namespace}` : `pods of that namespace: ${others}`;
  return { reason: 'no-such-pod', text: `no pod ${namespace}/${name} is known; ${hint}` };
}

function notAPod(mesh: AnswerMesh, prefix: string, service: Parameters<AnswerMesh['endpoints']>[0]): NotFound {
  const pods = someNames(mesh.endpoints(service).map(({ workload }) => workload));
  const hint = pods === '' ? 'it has no pod that is ready' : `name one of its pods: ${pods}`;
  const text = `${prefix} ${service.namespace}/${service.name}, and policy is decided where a connection arrives; ${hint}`;
  return { reason: 'not-a-pod', text };
}

function findSource(mesh: AnswerMesh, source: QuestionSource, notes: string[]): Client {
  switch (source.kind) {
    case 'none':
      return { identity: undefined, pod: undefined, addresses: [] };
    case 'address': {
      const pod = mesh.workloadAt(mesh.settings.network, source.address);
      if (pod?.protocol === 'hbone')
        notes.push(
          `${source.address} is ${nameOf(pod)}, which is in the mesh: what it connects to learns its identity; to ask for that, use --from ${nameOf(pod)}`,
        );
      return { identity: undefined, pod: undefined, addresses: [source.address] };
    }
    case 'identity':
      return clientOf(mesh, source.identity, notes);
    case 'name': {
      const pod = podNamed(mesh, source);
      const account = identityOfAccount(mesh.settings, source);
      return pod === undefined ? clientOf(mesh, account, notes) : clientPod(mesh, pod, account, notes);
    }
  }
}

function clientPod(mesh: AnswerMesh, pod: Workload, account: SpiffeId, notes: string[]): Client {
  const isProven = pod.protocol === 'hbone' || pod.nativeTunnel;
  if (!isProven) notes.push(`${nameOf(pod)} is not in the mesh, so its connections prove no identity`);
  if (identityOf(pod) !== account && withIdentity(mesh, account).length > 0)
    notes.push(
      `${nameOf(pod)} is a pod and also a service account; the pod is meant here, --from ${account} is the other`,
    );
  return { identity: isProven ? identityOf(pod) : undefined, pod, addresses: pod.addresses };
}

function clientOf(mesh: AnswerMesh, identity: SpiffeId, notes: string[]): Client {
  const pods = withIdentity(mesh, identity);
  if (pods.length === 0) notes.push(`no pod of the mesh has the identity ${identity}; is the name right?`);
  return { identity, pod: undefined, addresses: pods.flatMap(({ addresses }) => addresses) };
}

function withIdentity(mesh: AnswerMesh, identity: SpiffeId): Workload[] {
  return mesh.snapshot().workloads.filter((each) => identityOf(each) === identity);
}

/** One for each pair of addresses that could make a difference. */
function attemptsOf(
  mesh: AnswerMesh,
  { identity, addresses }: Client,
  { workload, addresses: servers }: Destination,
  port: number,
  rules: Rules,
): Attempt[] {
  const throughWaypoint = isWaypointOf(mesh, workload, identity);
  const make = (sourceAddress: Address, address: Address): Attempt => ({
    source: identity,
    sourceAddress,
    destination: { address, port },
    throughWaypoint,
  });
  const pairs = servers.flatMap((server) => {
    const reaching = addresses.filter((client) => familyOf(client) === familyOf(server));
    return (rules.dependsOnSourceAddress ? reaching : reaching.slice(0, 1)).map((client) => make(client, server));
  });
  if (pairs.length > 0) return pairs.slice(0, MAX_ATTEMPTS);
  return rules.dependsOnSourceAddress ? [] : servers.map((server) => make(addresses[0] ?? ANY_ADDRESS, server));
}

function judge(
  rules: Rules,
  attempts: readonly Attempt[],
  workload: Workload,
  client: Client,
  explain: boolean,
): PolicyAnswer {
  const decided = attempts.map((attempt) => ({ attempt, decision: rules.decide(attempt) }));
  const [first] = decided;
  if (first === undefined)
    return blank(
      'unknown',
      'depends-on-address',
      `a policy of ${nameOf(workload)} looks at the client's address, and none is known of it; use --from with ${client.identity === undefined ? 'an IP address' : 'a pod, NAMESPACE/POD'}`,
    );
  const other = decided.find(({ decision }) => decision.allowed !== first.decision.allowed);
  if (other !== undefined) {
    const each = [first, other].map(({ attempt, decision }) => `${pairOf(attempt)} ${verdictOf(decision)}`);
    return blank('unknown', 'depends-on-address', `it depends on the address: ${each.join(', ')}; name the addresses`);
  }
  const { decision } = first;
  return {
    ...blank(verdictOf(decision), decision.reason, sentenceOf(decision, workload)),
    ...(decision.policy === undefined ? {} : { policy: decision.policy }),
    ...(decision.rule === undefined ? {} : { rule: decision.rule }),
    candidates: [...decision.candidates],
    dryRun: decision.dryRun.map(({ policy, would }) => ({ policy, would })),
    explanation: explain ? explanationLines(rules.explain(first.attempt)).slice(0, MAX_EXPLANATION_LINES) : [],
  };
}

function verdictOf({ allowed }: Decision): 'allowed' | 'denied' {
  return allowed ? 'allowed' : 'denied';
}

function pairOf({ sourceAddress, destination }: Attempt): string {
  return `from ${sourceAddress} to ${formatEndpoint(destination)}`;
}

/** A decision for people. */
function sentenceOf({ reason, policy, rule, candidates }: Decision, workload: Workload): string {
  const by = `policy ${policy}${rule === undefined ? '' : `, rule ${rule + 1}`}`;
  switch (reason) {
    case 'no-policy':
      return `no policy applies to ${nameOf(workload)}`;
    case 'no-allow-policy':
      return 'no DENY policy matches, and no ALLOW policy applies';
    case 'allowed':
      return `${by}, lets it in`;
    case 'denied':
      return `${by}, refuses it${isOfMtls(policy) ? ': a PeerAuthentication says STRICT, and nobody has proven an identity' : ''}`;
    case 'not-allowed':
      return `ALLOW policies apply, and none of them matches; one of these would have to: ${candidates.join(', ')}`;
    case 'unknown-policy':
      return `${nameOf(workload)} names policy ${policy}, which is not known, so nothing is let in until it is`;
    case 'workload-unknown':
      return 'the destination is not known, so nothing is let in';
  }
}

/** Whether a policy is made of a PeerAuthentication (wire contract, section 5.4). */
function isOfMtls(name: PolicyName | undefined): boolean {
  return name !== undefined && /\/(istio_converted_static_strict$|converted_peer_authentication_)/.test(name);
}

function blank(verdict: PolicyAnswer['verdict'], reason: string, text: string): PolicyAnswer {
  return {
    verdict,
    reason,
    text,
    source: { addresses: [] },
    destination: { addresses: [], port: 0 },
    candidates: [],
    dryRun: [],
    notes: [],
    explanation: [],
  };
}

function partyOf({ identity, pod, addresses }: Client): PolicyAnswer['source'] {
  return {
    ...(identity === undefined ? {} : { identity }),
    ...(pod === undefined ? {} : { pod: nameOf(pod) }),
    addresses: addresses.slice(0, MAX_ATTEMPTS),
  };
}

/** A pod; else something outside Kubernetes that has been given a name (wire contract, section 12.2). */
function podNamed(mesh: AnswerMesh, { namespace, name }: { namespace: string; name: string }): Workload | undefined {
  const { clusterId } = mesh.settings;
  return (
    mesh.workload(`${clusterId}//Pod/${namespace}/${name}`) ??
    mesh.workload(`${clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`)
  );
}

function nameOf({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

const SOME = 5;

function someNames(workloads: readonly Workload[]): string {
  const names = workloads.map(nameOf).sort();
  return names.length > SOME ? `${names.slice(0, SOME).join(', ')} and ${names.length - SOME} more` : names.join(', ');
}
