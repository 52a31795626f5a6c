/** AuthorizationPolicy to the form that agents enforce (wire contract, section 5.5). */
import type { AuthorizationPolicy, PolicyRule } from '../../mesh/index.ts';
import type * as objects from '../objects/index.ts';
import type { IgnoredPart, PolicyCondition } from '../ports.ts';
import { convertRules } from './policy-rules.ts';

/** What is made of an object that says who may connect. */
export interface Conversion {
  /** Undefined: there is nothing to enforce. */
  readonly policy: AuthorizationPolicy | undefined;
  readonly condition: PolicyCondition;
}

/**
 * Longest rules that agents are told of, as JSON. Without a bound one namespace's policy could be longer than what an agent
 * takes as one line, and keep it from all that has changed in the mesh.
 */
const MAX_RULES_CHARACTERS = 1024 * 1024;
const DENY_ALL: readonly PolicyRule[] = [{ clauses: [], unlessThroughWaypoint: false }];
/** Parts that a message names. */
const MAX_NAMED = 10;
/** Of a message as agents are told of it. */
const MAX_REASON_CHARACTERS = 1024;
const DRY_RUN = 'istio.io/dry-run';

const ACTIONS: ReadonlyMap<string, AuthorizationPolicy['action']> = new Map([
  ['ALLOW', 'allow'],
  ['DENY', 'deny'],
]);

export const ACCEPTED: PolicyCondition = {
  type: 'ZtunnelAccepted',
  status: 'True',
  reason: 'Accepted',
  message: 'It is enforced as it is written.',
  ignored: [],
};

export function convertAuthorizationPolicy(object: objects.AuthorizationPolicy, rootNamespace: string): Conversion {
  const { metadata, spec } = object;
  const { name, namespace } = metadata;
  const action = actionOf(object);
  if (action === undefined) return notSent(object);
  const { rules, ignored } = convertRules(spec.rules, { namespace, action });
  const isWide = Object.keys(spec.selector).length === 0;
  const scope = isWide ? (namespace === rootNamespace ? 'global' : 'namespace') : 'workload-selector';
  const dryRun = metadata.annotations[DRY_RUN] === 'true';
  const policy: AuthorizationPolicy = { namespace, name, scope, action, rules, dryRun };
  if (JSON.stringify(rules).length > MAX_RULES_CHARACTERS) return tooLong(policy);
  const condition = conditionOf(policy, dryRunIssue(object), ignored);
  return { policy: condition === ACCEPTED ? policy : partial(policy, condition), condition };
}

/** Undefined: agents are not told of it. */
export function actionOf({ spec }: objects.AuthorizationPolicy): AuthorizationPolicy['action'] | undefined {
  return spec.isForWaypoints ? undefined : ACTIONS.get(spec.action);
}

/** `message` first, then the parts that it speaks of. */
export function unsupported(
  status: PolicyCondition['status'],
  message: string,
  ignored: readonly IgnoredPart[],
): PolicyCondition {
  const named = ignored.slice(0, MAX_NAMED).map(({ field, text }) => `${field} ${text}`);
  const more = ignored.length > MAX_NAMED ? `; ${ignored.length - MAX_NAMED} more` : '';
  return {
    type: 'ZtunnelAccepted',
    status,
    reason: 'UnsupportedValue',
    message: `${message}: ${named.join('; ')}${more}.`,
    ignored,
  };
}

function notSent({ spec }: objects.AuthorizationPolicy): Conversion {
  const part = spec.isForWaypoints
    ? { field: 'spec.targetRefs', text: 'is for waypoints' }
    : { field: 'spec.action', text: `${spec.action} is not supported` };
  return { policy: undefined, condition: unsupported('False', 'No agent enforces anything of it', [part]) };
}

/** Nothing of it is looked at, so nothing passes. */
function tooLong(policy: AuthorizationPolicy): Conversion {
  const isDeny = policy.action === 'deny';
  const message = isDeny ? 'It denies everything' : 'It allows nothing';
  const parts = [
    { field: 'spec.rules', text: `is longer than ${MAX_RULES_CHARACTERS} characters as agents are told of it` },
  ];
  const condition = unsupported('False', message, parts);
  return { policy: partial({ ...policy, rules: isDeny ? DENY_ALL : [] }, condition), condition };
}

function partial(policy: AuthorizationPolicy, { message }: PolicyCondition): AuthorizationPolicy {
  return { ...policy, partial: true, partialBecause: message.slice(0, MAX_REASON_CHARACTERS) };
}

/** @param wrongAnnotations what has no part in the rules */
function conditionOf(
  { action, rules }: AuthorizationPolicy,
  wrongAnnotations: readonly IgnoredPart[],
  ignored: readonly IgnoredPart[],
): PolicyCondition {
  const all = [...ignored, ...wrongAnnotations];
  if (all.length === 0) return ACCEPTED;
  if (ignored.length === 0) return unsupported('True', 'It is enforced, and not only tried', all);
  if (action === 'deny') return unsupported('True', denialOf(rules), all);
  if (rules.length > 0)
    return unsupported('True', 'Rules with what cannot be looked at are left out, so it allows less', all);
  return unsupported('False', 'No rule is left, so it allows nothing', all);
}

function denialOf(rules: AuthorizationPolicy['rules']): string {
  const exception = rules.some(({ unlessThroughWaypoint }) => unlessThroughWaypoint) ? ', unless a waypoint asks' : '';
  return `What cannot be looked at is left out, so it denies more${exception}`;
}

/** It is enforced then: an ALLOW for show would be no reason to refuse anything, and a DENY none at all. */
function dryRunIssue({ metadata }: objects.AuthorizationPolicy): IgnoredPart[] {
  const said = metadata.annotations[DRY_RUN];
  if (said === undefined || said === 'true' || said === 'false') return [];
  return [{ field: `metadata.annotations[${JSON.stringify(DRY_RUN)}]`, text: 'must be "true" or "false"' }];
}
