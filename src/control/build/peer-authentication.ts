/** PeerAuthentication: who must prove an identity (wire contract, section 5.4). Pure. */
import { type AuthorizationPolicy, matchOf, type PolicyClause, type PolicyName } from '../../mesh/index.ts';
import type { MtlsMode, PeerAuthentication } from '../objects/index.ts';
import type { PolicyCondition } from '../ports.ts';
import { byAge } from './age.ts';
import { ACCEPTED, type Conversion, unsupported } from './authorization.ts';

/** Ports of one object, so that its policy stays within what agents take. */
const MAX_PORTS = 1000;
const STATIC_STRICT = 'istio_converted_static_strict';
const CONVERTED = 'converted_peer_authentication_';

/** Denies everybody without an identity. What every workload names for which STRICT holds and nothing else. */
export function staticStrict(rootNamespace: string): AuthorizationPolicy {
  const clauses = [{ matches: [matchOf({ notPrincipals: [{ kind: 'presence' }] })] }];
  return {
    namespace: rootNamespace,
    name: STATIC_STRICT,
    scope: 'workload-selector',
    action: 'deny',
    rules: [{ clauses, unlessThroughWaypoint: false }],
    dryRun: false,
  };
}

export function staticStrictName(rootNamespace: string): PolicyName {
  return `${rootNamespace}/${STATIC_STRICT}`;
}

export function isStaticStrict({ name }: AuthorizationPolicy): boolean {
  return name === STATIC_STRICT;
}

/** A namespace's PeerAuthentications, by whom they are for; the oldest first. */
export interface Levels {
  /** For all of the namespace; in the root namespace for all of the mesh. */
  readonly wide: readonly PeerAuthentication[];
  readonly selecting: readonly PeerAuthentication[];
}

export function levelsOf(all: readonly PeerAuthentication[]): Levels {
  const sorted = all.toSorted(byAge);
  return { wide: sorted.filter((each) => !isSelecting(each)), selecting: sorted.filter(isSelecting) };
}

/** Whether STRICT holds; the more specific one decides, unless it says nothing. */
export function isStrict({ wide: [oldest] }: Pick<Levels, 'wide'>, parent: boolean): boolean {
  return strictness(oldest?.spec.mtls ?? 'UNSET', parent);
}

function strictness(mode: MtlsMode, parent: boolean): boolean {
  return mode === 'UNSET' ? parent : mode === 'STRICT';
}

export interface PeerSurroundings {
  readonly rootNamespace: string;
  /** Whether STRICT holds where no selector says otherwise. */
  readonly isStrictAround: boolean;
  /** It has one for the whole namespace, and a second counts for nothing. */
  readonly elder: PeerAuthentication | undefined;
}

export function convertPeerAuthentication(
  object: PeerAuthentication,
  { rootNamespace, isStrictAround, elder }: PeerSurroundings,
): Conversion {
  const { metadata, spec } = object;
  if (isSelecting(object) && metadata.namespace === rootNamespace)
    return without(
      unsupported('False', 'It counts for nothing', [
        { field: 'spec.selector', text: 'selects no workload from the root namespace' },
      ]),
    );
  if (elder !== undefined)
    return without(
      unsupported('False', 'It counts for nothing', [
        { field: 'metadata.name', text: `comes after ${elder.metadata.name}, which is for the same workloads` },
      ]),
    );
  if (spec.portLevelMtls.size > MAX_PORTS)
    return {
      policy: staticStrict(rootNamespace),
      condition: unsupported('False', 'STRICT holds for all ports', [
        { field: 'spec.portLevelMtls', text: `has more than ${MAX_PORTS} ports` },
      ]),
    };
  const base = strictness(spec.mtls, isStrictAround);
  const policy = portPolicy(object, base);
  if (policy !== undefined) return { policy, condition: ACCEPTED };
  const isStatic = isSelecting(object) ? base : spec.mtls === 'STRICT';
  const condition = base ? disabledPorts(object) : ACCEPTED;
  return { policy: isStatic ? staticStrict(rootNamespace) : undefined, condition };
}

/** Its ports are no exception from what holds anyway: it has no policy of its own. */
function portPolicy(object: PeerAuthentication, base: boolean): AuthorizationPolicy | undefined {
  const clauses = base ? exceptionClauses(object.spec) : [];
  const rules = base ? (clauses.length === 0 ? [] : [clauses]) : strictPorts(object.spec);
  if (rules.length === 0) return undefined;
  return {
    namespace: object.metadata.namespace,
    name: `${CONVERTED}${object.metadata.name}`,
    scope: 'workload-selector',
    action: 'deny',
    rules: rules.map((each) => ({ clauses: each, unlessThroughWaypoint: false })),
    dryRun: false,
  };
}

/** One rule for each port that is STRICT. */
function strictPorts({ portLevelMtls }: PeerAuthentication['spec']): ReadonlyArray<readonly PolicyClause[]> {
  return portsOf(portLevelMtls, 'STRICT').map((port) => [
    { matches: [matchOf({ notPrincipals: [{ kind: 'presence' }], destinationPorts: [port] })] },
  ]);
}

/** Clauses of the one rule that leaves out the ports that are not STRICT; none if there is no such port. */
function exceptionClauses({ mtls, portLevelMtls }: PeerAuthentication['spec']): readonly PolicyClause[] {
  const open = portsOf(portLevelMtls, 'PERMISSIVE', 'DISABLE');
  // What DISABLE says is heard only beside a word that makes the policy one of its own.
  if (open.length === 0 || (mtls === 'UNSET' && portsOf(portLevelMtls, 'PERMISSIVE').length === 0)) return [];
  return [
    { matches: [matchOf({ notPrincipals: [{ kind: 'presence' }] })] },
    ...open.map((port) => ({ matches: [matchOf({ notDestinationPorts: [port] })] })),
  ];
}

function disabledPorts({ spec }: PeerAuthentication): PolicyCondition {
  const ports = portsOf(spec.portLevelMtls, 'DISABLE');
  if (ports.length === 0) return ACCEPTED;
  const parts = ports.map((port) => ({ field: `spec.portLevelMtls["${port}"]`, text: 'must say PERMISSIVE instead' }));
  return unsupported('True', 'STRICT holds for all ports, as around it', parts);
}

function portsOf(ports: ReadonlyMap<number, MtlsMode>, ...modes: readonly MtlsMode[]): number[] {
  return [...ports].filter(([, mode]) => modes.includes(mode)).map(([port]) => port);
}

function isSelecting({ spec }: PeerAuthentication): boolean {
  return Object.keys(spec.selector).length > 0;
}

function without(condition: PolicyCondition): Conversion {
  return { policy: undefined, condition };
}
