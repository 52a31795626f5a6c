/**
 * What is right in the fuzz's world, said slowly and from its model alone: which app may answer a connection, and which way
 * it may go. It shares no code with what the agent decides by, nor with what makes policies of manifests.
 */
import type { AuthorizationPolicy, PolicyMatch, StringMatch } from '../../../src/mesh/index.ts';
import { judge } from '../../unit/policy/oracle.ts';
import {
  type Condition,
  type Labels,
  type Mode,
  type Operation,
  type PeerAuthentication,
  type Pod,
  type Policy,
  ROOT_NAMESPACE,
  type Rule,
  type Source,
  type World,
} from './model.ts';

/** A connection that somebody asks for. */
export interface Question {
  /** As it was when it was asked; what it is in another world, its name tells. */
  readonly from: Pod;
  /** Perhaps a mapped one. */
  readonly address: string;
  readonly port: number;
}

/** What may become of it: this pod is meant, and it lets it in or not. */
export interface Possibility {
  readonly to: Pod;
  readonly port: number;
  readonly isAllowed: boolean;
  /** For people. */
  readonly why: string;
}

/** All that may become of a connection; nothing: it leads nowhere, so it must fail. */
export function possibilities(world: World, { from: asking, address, port }: Question): Possibility[] {
  const from = podOf(world, asking.name);
  const plain = address.replace('::ffff:', '');
  const pod = world.pods.find((each) => each.ipv4 === plain || each.ipv6 === plain);
  if (pod !== undefined) return [judged(world, from, pod, plain, port, pod.name === from.name)];
  // Without the mesh nobody makes pods of services here.
  if (!from.isEnrolled) return [];
  const service = world.services.find((each) => each.isThere && (each.ipv4 === plain || each.ipv6 === plain));
  const target = service?.ports[port];
  if (service === undefined || target === undefined) return [];
  return world.pods
    .filter(({ isKnown, isReady, namespace }) => isKnown && isReady && namespace === service.namespace)
    .filter(({ labels }) => has(labels, service.selector))
    .map((each) => judged(world, from, each, plain.includes(':') ? each.ipv6 : each.ipv4, target, false));
}

/** @param isInside it never leaves the pod, and nobody looks at it */
function judged(world: World, from: Pod, to: Pod, address: string, port: number, isInside: boolean): Possibility {
  if (isInside || !to.isEnrolled) return { to, port, isAllowed: true, why: isInside ? 'itself' : 'not enrolled' };
  if (!from.isEnrolled && isStrict(world, to, port)) return { to, port, isAllowed: false, why: 'STRICT' };
  const sourceAddress = address.includes(':') ? from.ipv6 : from.ipv4;
  const { allowed, reason, because } = judge(
    world.policies.map(enforced),
    { namespace: to.namespace, authorizationPolicies: namedBy(world, to) },
    {
      source: from.isEnrolled ? `spiffe://cluster.local/ns/${from.namespace}/sa/${from.account}` : undefined,
      sourceAddress,
      destination: { address, port },
      throughWaypoint: false,
    },
  );
  return { to, port, isAllowed: allowed, why: `${reason} ${because.join()}` };
}

/** A connection that was answered, and has been open since. */
export interface Held {
  readonly question: Question;
  /** Whose app answered, by name. */
  readonly to: string;
  readonly port: number;
  /** As in `faultOfWay`. */
  readonly client: string;
  readonly server: string;
}

/**
 * Whether a connection that is made while one world becomes another should be answered: nothing has spoken against it, nor
 * against going directly, and nobody who may be meant is just being enrolled or withdrawn.
 */
export function shouldAnswer(worlds: readonly World[], question: Question): boolean {
  const all = worlds.map((world) => possibilities(world, question));
  const names = new Set([question.from.name, ...all.flat().map(({ to }) => to.name)]);
  const isSteady = [...names].every((name) => new Set(worlds.map((world) => podOf(world, name).isEnrolled)).size === 1);
  const isFree = worlds.every((world) => !wantsTunnel(world, ...[...names].map((name) => podOf(world, name))));
  return isSteady && isFree && all.every((some) => some.length > 0 && some.every(({ isAllowed }) => isAllowed));
}

/**
 * Whether this may have been the answer while one world became another: each agent and each worker takes over a change in a
 * moment of its own, so one may have led by the old and another let in by the new.
 */
export function mayHaveAnswered(
  worlds: readonly World[],
  question: Question,
  { tag, client, server }: { readonly tag: string; readonly client: string; readonly server: string },
): boolean {
  const all = worlds.flatMap((world) => possibilities(world, question)).filter(({ to }) => to.tag === tag);
  return all.some(({ to, port }) =>
    worlds.some((world) => mayStay(world, { question, to: to.name, port, client, server })),
  );
}

/** Whether a held connection must still be open; if not, it must have been ended. */
export function mayStay(world: World, { question, to: name, port, client, server }: Held): boolean {
  const [from, to] = [podOf(world, question.from.name), podOf(world, name)];
  const plain = question.address.replace('::ffff:', '');
  const isInside = to === from && (plain === from.ipv4 || plain === from.ipv6);
  const address = plain.includes(':') ? to.ipv6 : to.ipv4;
  const { isAllowed } = judged(world, from, to, address, port, isInside);
  return isAllowed && faultOfWay(world, from, to, client, server) === undefined;
}

function podOf({ pods }: World, name: string): Pod {
  const pod = pods.find((each) => each.name === name);
  if (pod === undefined) throw new Error(`there is no pod ${name}`);
  return pod;
}

/** Whether both must talk through the tunnel, though they are on one node. */
export function wantsTunnel(world: World, ...pods: readonly Pod[]): boolean {
  return pods.some(
    ({ sameNode, namespace }) => (sameNode === 'unsaid' ? world.sameNode[namespace] : sameNode) === 'mtls',
  );
}

/**
 * What is wrong with the way that an answered connection went; undefined: nothing.
 *
 * @param client how it left the client's app: by an agent (`l`) or directly (`d`)
 * @param server how it reached the server's
 */
export function faultOfWay(world: World, from: Pod, to: Pod, client: string, server: string): string | undefined {
  if (from.name === to.name || !(from.isEnrolled && to.isEnrolled)) return undefined;
  if (client !== server) return 'in the clear, past the agent of one of both';
  if (client === 'l') return undefined;
  if (from.node !== to.node) return 'directly to another node';
  return wantsTunnel(world, from, to) ? 'directly, where mutual TLS is wanted' : undefined;
}

// --- PeerAuthentication (wire contract, section 5.4) --------------------------------------------------------------------

/** Whether who connects to the port must prove who it is. */
function isStrict({ peers }: World, { namespace, labels }: Pod, port: number): boolean {
  const wide = (of: string) => oldest(peers.filter((peer) => peer.namespace === of && peer.selector === undefined));
  const selecting = oldest(
    peers.filter((peer) => peer.namespace === namespace && peer.selector !== undefined && has(labels, peer.selector)),
  );
  const mesh = resolve(wide(ROOT_NAMESPACE)?.mode, 'PERMISSIVE');
  const around = resolve(wide(namespace)?.mode, mesh);
  const own = resolve(selecting?.mode, around);
  return resolve(selecting?.ports[port], own) === 'STRICT';
}

function oldest(peers: readonly PeerAuthentication[]): PeerAuthentication | undefined {
  return peers.toSorted((a, b) => a.age - b.age)[0];
}

function resolve(mode: Mode | undefined, otherwise: Mode): Mode {
  return mode === undefined || mode === 'UNSET' ? otherwise : mode;
}

// --- AuthorizationPolicy (wire contract, section 5.5) -------------------------------------------------------------------

function has(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([key, value]) => labels[key] === value);
}

/** Policies with a selector that is for this pod. */
function namedBy({ policies }: World, { namespace, labels }: Pod): string[] {
  return policies
    .filter((policy) => policy.namespace === namespace || policy.namespace === ROOT_NAMESPACE)
    .filter(({ selector }) => selector !== undefined && has(labels, selector))
    .map((policy) => `${policy.namespace}/${policy.name}`);
}

function enforced({ namespace, name, action, selector, isDryRun, rules }: Policy): AuthorizationPolicy {
  const wide = namespace === ROOT_NAMESPACE ? 'global' : 'namespace';
  const understood = rules.filter((rule) => action === 'DENY' || !(rule.to ?? []).some(({ methods }) => methods));
  return {
    namespace,
    name,
    scope: selector === undefined ? wide : 'workload-selector',
    action: action === 'ALLOW' ? 'allow' : 'deny',
    dryRun: isDryRun,
    rules: understood.map((rule) => ({ clauses: clausesOf(rule, namespace), unlessThroughWaypoint: false })),
  };
}

function clausesOf({ from, to, when = [] }: Rule, namespace: string): { matches: PolicyMatch[] }[] {
  const clauses: { matches: PolicyMatch[] }[] = [];
  if (from !== undefined) clauses.push({ matches: from.map((source) => ofSource(source, namespace)) });
  // Methods alone could be of any connection.
  const isAny = to?.some(({ ports, notPorts }) => ports === undefined && notPorts === undefined) ?? true;
  if (to !== undefined && !isAny) clauses.push({ matches: to.map(ofOperation) });
  for (const condition of when) clauses.push({ matches: [ofCondition(condition)] });
  return clauses;
}

const EMPTY: PolicyMatch = {
  namespaces: [],
  notNamespaces: [],
  principals: [],
  notPrincipals: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
};

function ofSource(source: Source, namespace: string): PolicyMatch {
  const account = (text: string) => {
    const [first = '', second] = text.split('/');
    return second === undefined ? { namespace, serviceAccount: first } : { namespace: first, serviceAccount: second };
  };
  return {
    ...EMPTY,
    principals: (source.principals ?? []).map(ofText),
    notPrincipals: (source.notPrincipals ?? []).map(ofText),
    namespaces: (source.namespaces ?? []).map(ofText),
    notNamespaces: (source.notNamespaces ?? []).map(ofText),
    serviceAccounts: (source.serviceAccounts ?? []).map(account),
    notServiceAccounts: (source.notServiceAccounts ?? []).map(account),
    sourceIps: blocks(source.ipBlocks),
    notSourceIps: blocks(source.notIpBlocks),
  };
}

function ofOperation({ ports = [], notPorts = [] }: Operation): PolicyMatch {
  return { ...EMPTY, destinationPorts: ports.map(Number), notDestinationPorts: notPorts.map(Number) };
}

function ofCondition({ key, values = [], notValues = [] }: Condition): PolicyMatch {
  switch (key) {
    case 'source.ip':
      return { ...EMPTY, sourceIps: blocks(values), notSourceIps: blocks(notValues) };
    case 'source.namespace':
      return { ...EMPTY, namespaces: values.map(ofText), notNamespaces: notValues.map(ofText) };
    case 'source.principal':
      return { ...EMPTY, principals: values.map(ofText), notPrincipals: notValues.map(ofText) };
    case 'destination.ip':
      return { ...EMPTY, destinationIps: blocks(values), notDestinationIps: blocks(notValues) };
    case 'destination.port':
      return { ...EMPTY, destinationPorts: values.map(Number), notDestinationPorts: notValues.map(Number) };
  }
}

function blocks(texts: readonly string[] = []): PolicyMatch['sourceIps'] {
  return texts as PolicyMatch['sourceIps'];
}

function ofText(text: string): StringMatch {
  if (text === '*') return { kind: 'presence' };
  if (text.startsWith('*')) return { kind: 'suffix', value: text.slice(1) };
  if (text.endsWith('*')) return { kind: 'prefix', value: text.slice(0, -1) };
  return { kind: 'exact', value: text };
}
