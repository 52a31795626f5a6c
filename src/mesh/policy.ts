import type { Cidr } from './address.ts';

/** Name of an authorization policy as the Workload API writes it: `namespace/name` (wire contract, section 4.6). */
export type PolicyName = `${string}/${string}`;

/** A string that must match (istio.security.StringMatch). `presence`: anything but nothing. */
export type StringMatch =
  | { readonly kind: 'exact' | 'prefix' | 'suffix'; readonly value: string }
  | { readonly kind: 'presence' };

/** A service account of a namespace, of any trust domain (istio.security.ServiceAccountMatch). */
export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * All that must hold of one connection (istio.security.Match; wire contract, section 5.3): kinds of fields AND; the values of
 * a positive field OR; of a `not` field none may match. One with no field at all matches nothing.
 */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  /** Without `spiffe://`: `trust-domain/ns/namespace/sa/account`. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  /** A single address is a block of all its bits. */
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
}

/** Matches OR; none at all: true. */
export interface PolicyClause {
  readonly matches: readonly PolicyMatch[];
}

/** Clauses AND; none at all: matches everything. */
export interface PolicyRule {
  readonly clauses: readonly PolicyClause[];
  /**
   * Of DENY: what it asks of L7 has been left out, so it denies more than it says. It does not hold for a connection that
   * comes from a waypoint of the destination: that one has looked at the rest.
   */
  readonly unlessThroughWaypoint: boolean;
}

/**
 * Who may connect to whom (istio.security.Authorization; wire contract, sections 4.8 and 5). Made by the control plane of
 * AuthorizationPolicy and PeerAuthentication.
 */
export interface AuthorizationPolicy {
  readonly namespace: string;
  readonly name: string;
  /** `workload-selector`: only for workloads that name it in `authorizationPolicies`. */
  readonly scope: 'global' | 'namespace' | 'workload-selector';
  readonly action: 'allow' | 'deny';
  /** OR; none at all: never matches, so an ALLOW of this kind denies everything. */
  readonly rules: readonly PolicyRule[];
  /** Evaluated, logged and counted, never enforced. */
  readonly dryRun: boolean;
  /**
   * Something of the object could not be understood, or needs a waypoint, and has been left out: so it denies more, or allows
   * less, than is written there. Default: it has not.
   */
  readonly partial?: true | undefined;
  /** Of a partial one: what of it, for people. */
  readonly partialBecause?: string | undefined;
}

export function policyName({ namespace, name }: { namespace: string; name: string }): PolicyName {
  return `${namespace}/${name}`;
}

/** A match that asks for nothing: it matches everybody. */
export const NO_MATCH: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
  serviceAccounts: [],
  notServiceAccounts: [],
};

/** A match that asks for nothing else. */
export function matchOf(fields: Partial<PolicyMatch>): PolicyMatch {
  return { ...NO_MATCH, ...fields };
}
