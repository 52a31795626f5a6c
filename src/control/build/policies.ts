/** The policies of one namespace, and which of its workloads name them. */
import { type AuthorizationPolicy, type PolicyName, policyName } from '../../mesh/index.ts';
import type * as objects from '../objects/index.ts';
import { actionOf, type Conversion, convertAuthorizationPolicy } from './authorization.ts';
import type { NamespaceGroup } from './groups.ts';
import { Memo, sameIfEqual } from './memory.ts';
import { convertPeerAuthentication, isStrict, type Levels, levelsOf, staticStrictName } from './peer-authentication.ts';
import { type PolicyKeyParts, PolicyKeys, type SelectingAuthentication, type SelectingPolicy } from './policy-keys.ts';

/** An object that says who may connect. */
export type PolicyObject = objects.AuthorizationPolicy | objects.PeerAuthentication;

/** What the root namespace's objects do to the workloads of every namespace. Plain, so that it can be compared. */
export interface MeshPolicies {
  readonly rootNamespace: string;
  readonly selecting: readonly SelectingPolicy[];
  readonly isStrict: boolean;
}

/** @param root the root namespace's objects, if there are any */
export function meshPolicies(root: NamespaceGroup | undefined, rootNamespace: string): MeshPolicies {
  const levels = levelsOf(root?.peerAuthentications ?? []);
  return {
    rootNamespace,
    selecting: (root?.authorizationPolicies ?? []).flatMap(selectingOf),
    isStrict: isStrict(levels, false),
  };
}

export interface NamespacePolicies {
  readonly keys: PolicyKeys;
  readonly conversions: ReadonlyMap<PolicyObject, Conversion>;
}

export class PolicyBuilder {
  readonly #authorization = new Memo<Conversion>();
  readonly #peers = new Memo<Conversion>();
  #keys: PolicyKeys | undefined;

  build(group: NamespaceGroup, mesh: MeshPolicies): NamespacePolicies {
    const { rootNamespace } = mesh;
    const conversions = new Map<PolicyObject, Conversion>();
    for (const object of group.authorizationPolicies) {
      const make = () => convertAuthorizationPolicy(object, rootNamespace);
      conversions.set(object, this.#authorization.of(object, [rootNamespace], make));
    }
    const levels = levelsOf(group.peerAuthentications);
    const isStrictAround = isStrict(levels, mesh.isStrict);
    for (const object of group.peerAuthentications) {
      const [first] = levels.wide;
      const elder = object !== first && levels.wide.includes(object) ? first : undefined;
      const make = () => convertPeerAuthentication(object, { rootNamespace, isStrictAround, elder });
      conversions.set(object, this.#peers.of(object, [rootNamespace, isStrictAround, elder], make));
    }
    const own = group.name === rootNamespace ? [] : group.authorizationPolicies.flatMap(selectingOf);
    return {
      conversions,
      keys: this.#keep({
        policies: [...mesh.selecting, ...own],
        authentications: selectingAuthentications(levels, group.name === rootNamespace, conversions),
        otherwise: isStrictAround ? staticStrictName(rootNamespace) : undefined,
      }),
    };
  }

  #keep(parts: PolicyKeyParts): PolicyKeys {
    if (this.#keys === undefined || sameIfEqual(this.#keys.parts, parts) !== this.#keys.parts)
      this.#keys = new PolicyKeys(parts);
    return this.#keys;
  }
}

function selectingOf(object: objects.AuthorizationPolicy): SelectingPolicy[] {
  const { metadata, spec } = object;
  if (actionOf(object) === undefined || Object.keys(spec.selector).length === 0) return [];
  return [{ selector: spec.selector, name: policyName(metadata) }];
}

/** Those in the root namespace select nothing. */
function selectingAuthentications(
  { selecting }: Levels,
  isRoot: boolean,
  conversions: NamespacePolicies['conversions'],
): SelectingAuthentication[] {
  if (isRoot) return [];
  return selecting.map((object, rank) => ({
    selector: object.spec.selector,
    rank,
    name: nameOf(conversions.get(object)?.policy),
  }));
}

function nameOf(policy: AuthorizationPolicy | undefined): PolicyName | undefined {
  return policy && policyName(policy);
}
