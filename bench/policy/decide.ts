/**
 * `./dev bench policy/decide`: what a decision of L4 policy costs with 10, 100 and 1,000 policies in the mesh, and how soon
 * after a change of one of them the rules are ready again.
 *
 *   bench policy/decide [--rounds N] [--quick] [--json]
 *
 * `one each`: each policy is that of one workload, and decisions go round all workloads. `all on one`: all apply to one
 * workload: ALLOW and DENY of exact principals, of namespaces' prefixes, of namespaces, accounts, ports and blocks with a
 * principal. `all on one, blocks only`: nothing but source addresses is asked for. A decision is
 * the way of a connection: from the workload to its rules to the answer. Connections come from 200 identities, every
 * twentieth from nobody.
 */
import { table } from '../../src/cli/table.ts';
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  NO_MATCH,
  type PolicyMatch,
  policyName,
  ReadModel,
  type SpiffeId,
  type Workload,
} from '../../src/mesh/index.ts';
import { type Attempt, PolicyBook } from '../../src/policy/index.ts';
import { meshUpdate, workload } from '../../test/contract/fakes/mesh.ts';
import { fixed, formatSpread, interleave, machine, readOptions, type Spread, spread } from '../sample.ts';

const usage = 'usage: bench policy/decide [--rounds N] [--quick] [--json]';
const values = readOptions(usage, {
  options: {
    json: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
  },
});
const rounds = Number(values.rounds ?? (values.quick ? 5 : 15));
const decisions = values.quick ? 50_000 : 200_000;
if (!(rounds >= 1)) {
  console.error(usage);
  process.exit(2);
}

const SIZES = [10, 100, 1000] as const;
const SPREADS = ['one each', 'all on one', 'all on one, blocks only'] as const;
type Arrangement = (typeof SPREADS)[number];
const CASES = SIZES.flatMap((size) => SPREADS.map((how) => `${size}, ${how}` as const));
type Case = (typeof CASES)[number];
const IDENTITIES = 200;

const principalOf = (index: number) => `cluster.local/ns/ns-${index % 50}/sa/account-${index}`;
const blockOf = (index: number) => `10.${index >> 8}.${index & 255}.0/24` as Cidr;

/** What the policy of this number asks for, one kind after the other. */
function matchOf(index: number): PolicyMatch {
  const namespace = `ns-${index}`;
  const kinds: ReadonlyArray<Partial<PolicyMatch>> = [
    { principals: [{ kind: 'exact', value: principalOf(index) }] },
    { principals: [{ kind: 'exact', value: principalOf(index) }], destinationPorts: [8080] },
    { principals: [{ kind: 'prefix', value: `cluster.local/ns/${namespace}/` }] },
    { principals: [{ kind: 'suffix', value: `/ns/${namespace}/sa/web` }] },
    { namespaces: [{ kind: 'exact', value: namespace }] },
    { serviceAccounts: [{ namespace, serviceAccount: 'web' }] },
    { destinationPorts: [10_000 + index] },
    { principals: [{ kind: 'exact', value: principalOf(index) }], sourceIps: [blockOf(index)] },
  ];
  return { ...NO_MATCH, ...kinds[index % kinds.length] };
}

function policy(index: number, how: Arrangement, changes: Partial<AuthorizationPolicy> = {}): AuthorizationPolicy {
  const match = how === 'all on one, blocks only' ? { ...NO_MATCH, sourceIps: [blockOf(index)] } : matchOf(index);
  return {
    namespace: 'shop',
    name: `policy-${index}`,
    scope: how === 'one each' ? 'workload-selector' : 'namespace',
    action: index % 4 === 3 ? 'deny' : 'allow',
    rules: [{ clauses: [{ matches: [match] }], unlessThroughWaypoint: false }],
    dryRun: false,
    ...changes,
  };
}

interface Bench {
  readonly how: Arrangement;
  readonly size: number;
  readonly model: ReadModel;
  readonly book: PolicyBook;
  readonly workloads: readonly Workload[];
}

function benchOf(how: Arrangement, size: number): Bench {
  const model = new ReadModel();
  const policies = Array.from({ length: size }, (_, index) => policy(index, how));
  const workloads = policies.map((each, index) =>
    workload({ name: `web-${index}`, authorizationPolicies: how === 'one each' ? [policyName(each)] : [] }),
  );
  model.apply(meshUpdate({ complete: true, policies, workloads }));
  return { how, size, model, book: new PolicyBook(model), workloads };
}

const attempts = Array.from({ length: IDENTITIES }, (_, index): Attempt => {
  const source = index % 20 === 0 ? undefined : (`spiffe://${principalOf(index * 5)}` as SpiffeId);
  const sourceAddress = `10.${index & 3}.${index}.7` as Address;
  return { source, sourceAddress, destination: { address: '10.0.0.1' as Address, port: 8080 }, throughWaypoint: false };
});

/** Nanoseconds of one decision. */
function timeDecisions({ book, workloads, how, size }: Bench): number {
  const targets = how === 'one each' ? workloads : workloads.slice(0, 1);
  let allowed = 0;
  const start = performance.now();
  for (let index = 0; index < decisions; index += 1) {
    const [target, attempt] = [targets[index % targets.length], attempts[index % IDENTITIES]];
    if (attempt !== undefined && book.rulesFor(target).decide(attempt).allowed) allowed += 1;
  }
  const ns = ((performance.now() - start) * 1e6) / decisions;
  if (allowed === decisions) throw new Error(`everything was allowed with ${size} policies`);
  return ns;
}

/** Milliseconds from an update with one changed policy to the new rules of the workload that it applies to. */
function timeChange({ how, model, book, workloads: [target] }: Bench, round: number): number {
  const before = book.rulesFor(target);
  const changed = policy(0, how, { rules: [...policy(0, how).rules, ...policy(round + 1, how).rules] });
  const start = performance.now();
  model.apply(meshUpdate({ policies: [changed] }));
  const after = book.rulesFor(target);
  const ms = performance.now() - start;
  if (after === before) throw new Error('nothing has changed');
  return ms;
}

interface Row {
  readonly policies: string;
  readonly decisionNs: Spread;
  readonly changeMs: Spread;
}

const benches = new Map<Case, Bench>();
for (const size of SIZES) for (const how of SPREADS) benches.set(`${size}, ${how}`, benchOf(how, size));
const bench = (each: Case): Bench => benches.get(each) ?? benchOf('one each', 1);

for (const each of CASES) timeDecisions(bench(each));
const decided = await interleave(CASES, rounds, async (each) => timeDecisions(bench(each)));
for (const each of CASES) timeChange(bench(each), rounds);
const changed = await interleave(CASES, rounds, async (each, round) => timeChange(bench(each), round));
const rows: Row[] = CASES.map((each) => ({
  policies: each,
  decisionNs: spread(decided[each]),
  changeMs: spread(changed[each]),
}));
if (values.json) console.log(JSON.stringify({ machine: machine(), rounds, rows }, undefined, 2));
else
  console.log(
    table(
      ['policies', 'a decision, ns', 'from a change to new rules, ms'],
      rows.map(({ policies, decisionNs, changeMs }) => [
        policies,
        formatSpread(decisionNs, fixed(0)),
        formatSpread(changeMs, fixed(3)),
      ]),
    ),
  );
