/** Random policies and attempts of few words, so that they often meet. The same seed gives the same ones. */
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  type PolicyClause,
  type PolicyMatch,
  type PolicyRule,
  policyName,
  type SpiffeId,
  type StringMatch,
  type Workload,
} from '../../../src/mesh/index.ts';
import type { Attempt } from '../../../src/policy/index.ts';
import { workload } from '../../contract/fakes/mesh.ts';

const TRUST_DOMAINS = ['cluster.local', 'other'];
const NAMESPACES = ['shop', 'pay', 's'];
const ACCOUNTS = ['web', 'api', 'default'];
const ADDRESSES = ['10.1.2.3', '10.1.2.2', '10.200.0.1', '192.168.1.1', 'fd00::1', 'fd00::1:0:0:1', '2001:db8::1'];
const BLOCKS = [
  ...['10.0.0.0/8', '10.1.0.0/16', '10.1.2.3/32', '10.1.2.2/31', '0.0.0.0/0', '128.0.0.0/1', '192.168.0.0/17'],
  ...['::/0', 'fd00::/8', 'fd00::1/128', 'fd00::/64', 'fd00::1:0:0:0/80', '2001:db8::/33', '::/80'],
];
const PORTS = [80, 443, 8080, 9090];

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** From 0 up to, not including, `end`. */
  below(end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * end);
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<Value>(values: readonly Value[]): Value {
    const value = values[this.below(values.length)];
    if (value === undefined) throw new Error('nothing to pick from');
    return value;
  }

  some<Value>(most: number, make: () => Value): Value[] {
    return Array.from({ length: this.below(most + 1) }, make);
  }

  /** From 1 to 3. */
  few<Value>(make: () => Value): Value[] {
    return [make(), ...this.some(2, make)];
  }
}

function principal(random: Random): string {
  return `${random.pick(TRUST_DOMAINS)}/ns/${random.pick(NAMESPACES)}/sa/${random.pick(ACCOUNTS)}`;
}

function stringMatch(random: Random, value: string): StringMatch {
  const cut = random.below(value.length + 1);
  const choices: StringMatch[] = [
    { kind: 'exact', value },
    { kind: 'exact', value },
    { kind: 'exact', value: random.pick(['', value.slice(cut), `spiffe://${value}`]) },
    { kind: 'prefix', value: value.slice(0, cut) },
    { kind: 'prefix', value: value.slice(0, value.lastIndexOf('/') + 1) },
    { kind: 'suffix', value: value.slice(cut) },
    { kind: 'suffix', value: value.slice(value.indexOf('/')) },
    { kind: 'presence' },
  ];
  return random.pick(choices);
}

function match(random: Random): PolicyMatch {
  const values = <Value>(percent: number, make: () => Value): Value[] =>
    random.chance(percent) ? random.few(make) : [];
  const aPrincipal = () => stringMatch(random, principal(random));
  const aNamespace = () => stringMatch(random, random.pick(NAMESPACES));
  const anAccount = () => ({ namespace: random.pick(NAMESPACES), serviceAccount: random.pick(ACCOUNTS) });
  const aBlock = () => random.pick(BLOCKS) as Cidr;
  const aPort = () => random.pick(PORTS);
  return {
    principals: values(25, aPrincipal),
    notPrincipals: values(15, aPrincipal),
    namespaces: values(15, aNamespace),
    notNamespaces: values(10, aNamespace),
    serviceAccounts: values(15, anAccount),
    notServiceAccounts: values(10, anAccount),
    sourceIps: values(12, aBlock),
    notSourceIps: values(5, aBlock),
    destinationIps: values(8, aBlock),
    notDestinationIps: values(5, aBlock),
    destinationPorts: values(20, aPort),
    notDestinationPorts: values(10, aPort),
  };
}

function rule(random: Random): PolicyRule {
  const clause = (): PolicyClause => ({ matches: random.some(3, () => match(random)) });
  return { clauses: random.some(2, clause), unlessThroughWaypoint: random.chance(15) };
}

function policy(random: Random, name: string): AuthorizationPolicy {
  return {
    namespace: random.pick(NAMESPACES),
    name,
    scope: random.pick(['global', 'namespace', 'workload-selector']),
    action: random.pick(['allow', 'deny']),
    rules: random.some(3, () => rule(random)),
    dryRun: random.chance(15),
  };
}

export interface RandomCase {
  readonly policies: readonly AuthorizationPolicy[];
  readonly workload: Workload;
}

/** @param most of policies */
export function randomCase(random: Random, most: number): RandomCase {
  const policies = random.some(most, () => policy(random, `p${random.below(1_000_000)}`));
  const named = policies.filter(() => random.chance(40)).map(policyName);
  const authorizationPolicies = random.chance(3) ? [...named, 'shop/gone'] : named;
  return { policies, workload: workload({ namespace: random.pick(NAMESPACES), authorizationPolicies }) };
}

export function randomAttempt(random: Random): Attempt {
  return {
    source: random.chance(75) ? (`spiffe://${principal(random)}` as SpiffeId) : undefined,
    sourceAddress: random.pick(ADDRESSES) as Address,
    destination: { address: random.pick(ADDRESSES) as Address, port: random.pick([...PORTS, 1234]) },
    throughWaypoint: random.chance(20),
  };
}
