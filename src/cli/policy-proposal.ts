/** What manifests would change of the policies that are in force. Pure. */
import type { ManifestReading, ReadPolicy } from '../control/index.ts';
import { policyName } from '../mesh/index.ts';
import type { Proposal, ProposedNames, SeenWorkload } from './policy-changes.ts';

export interface ProposalOptions {
  /** The manifests are of the whole mesh: which policies a workload in them names, they alone say. */
  readonly isWhole: boolean;
  readonly rootNamespace: string;
}

/**
 * An agent knows which selector policies a workload names, but neither labels nor PeerAuthentications. So a workload that is
 * not in the manifests keeps what it names, and what it might gain or lose is told beside it.
 */
export function proposalOf({ mesh, policies }: ManifestReading, { isWhole, rootNamespace }: ProposalOptions): Proposal {
  const proposed = new Set<string>(mesh.policies.map(policyName));
  const described = new Map(mesh.workloads.map(({ uid, authorizationPolicies }) => [uid, authorizationPolicies]));
  return {
    policies: mesh.policies,
    namesOf(workload): ProposedNames {
      const named = described.get(workload.uid);
      if (named !== undefined && isWhole) return { names: named, otherwise: [] };
      const isReached = ({ namespace }: ReadPolicy) => namespace === rootNamespace || namespace === workload.namespace;
      const reaching = policies.filter(isReached);
      if (named === undefined) return unlabelled(workload, reaching);
      const kept = workload.authorizationPolicies.filter((name) => !proposed.has(name) || isOfMtls(name));
      const names = [...new Set([...kept, ...named])];
      return { names, otherwise: reaching.flatMap((read) => withoutMtls(read, names)) };
    },
  };
}

/** It is not in the manifests, so nobody can tell which selectors select it. */
function unlabelled({ authorizationPolicies: now }: SeenWorkload, reaching: readonly ReadPolicy[]): ProposedNames {
  const strict = reaching.find((read) => read.mtls === 'STRICT' && !isSelecting(read) && read.policy !== undefined);
  const gained = strict?.policy === undefined || now.some(isOfMtls) ? [] : [policyName(strict.policy)];
  const names = [...now, ...gained];
  return {
    names,
    otherwise: reaching.flatMap((read) => (isSelecting(read) ? withSelected(read, names) : withoutMtls(read, names))),
  };
}

function withSelected(read: ReadPolicy, names: readonly string[]): ProposedNames['otherwise'] {
  if (read.policy === undefined) return withoutMtls(read, names);
  const name = policyName(read.policy);
  return names.includes(name) ? [] : [{ names: [...names, name], because: objectOf(read) }];
}

/** A PeerAuthentication that is not strict could be the one that decides from now on. */
function withoutMtls(read: ReadPolicy, names: readonly string[]): ProposedNames['otherwise'] {
  if (read.mtls !== 'PERMISSIVE' && read.mtls !== 'DISABLE') return [];
  const rest = names.filter((name) => !isOfMtls(name));
  return rest.length === names.length ? [] : [{ names: rest, because: objectOf(read) }];
}

/** Whether a policy is made of a PeerAuthentication (wire contract, section 5.4). */
function isOfMtls(name: string): boolean {
  return /\/(istio_converted_static_strict$|converted_peer_authentication_)/.test(name);
}

function isSelecting({ selector }: ReadPolicy): boolean {
  return Object.keys(selector).length > 0;
}

function objectOf({ kind, namespace, name }: ReadPolicy): string {
  return `${kind} ${namespace}/${name}`;
}
