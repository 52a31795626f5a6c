import type { Address } from '../mesh/index.ts';
import type { CompiledClause, CompiledMatch, CompiledPolicy, CompiledRule, Condition, Field } from './compiled.ts';
import type { RuleIndex } from './rule-index.ts';
import { Subject } from './subject.ts';

/** Whether connections of nobody (no identity, any address) are let in, to whatever address of the workload. */
export type Openness =
  /** An address matters. */
  | { readonly kind: 'depends' }
  /** `ports`: those whose answer is not `others`; each from 1 to 65535. */
  | { readonly kind: 'ports'; readonly others: boolean; readonly ports: ReadonlyMap<number, boolean> };

export const CLOSED: Openness = { kind: 'ports', others: false, ports: new Map() };

/** True and false whatever the addresses, or not. */
type Truth = boolean | 'depends';

const ADDRESS_FIELDS: ReadonlySet<Field> = new Set([
  'sourceIps',
  'notSourceIps',
  'destinationIps',
  'notDestinationIps',
]);
/** One that no policy names: it stands for all of which that is true. */
const OTHER_PORT = -1;
const MAX_PORT = 65535;
/** Never looked at: what asks for an address is not evaluated here. */
const NOWHERE = '0.0.0.0' as Address;

/** The enforced policies of a workload none of whose policies is missing. */
export interface Enforced {
  readonly deny: RuleIndex;
  /** Undefined: no ALLOW policy applies. */
  readonly allow: RuleIndex | undefined;
  readonly policies: readonly CompiledPolicy[];
}

export function opennessOf(enforced: Enforced): Openness {
  const others = opennessAt(enforced, OTHER_PORT);
  if (others === 'depends') return { kind: 'depends' };
  const ports = new Map<number, boolean>();
  for (const port of namedPorts(enforced.policies)) {
    const open = opennessAt(enforced, port);
    if (open === 'depends') return { kind: 'depends' };
    if (open !== others) ports.set(port, open);
  }
  return { kind: 'ports', others, ports };
}

function namedPorts(policies: readonly CompiledPolicy[]): ReadonlySet<number> {
  const ports = policies.flatMap(({ policy }) =>
    policy.rules.flatMap(({ clauses }) =>
      clauses.flatMap(({ matches }) =>
        matches.flatMap(({ destinationPorts, notDestinationPorts }) => [...destinationPorts, ...notDestinationPorts]),
      ),
    ),
  );
  return new Set(ports.filter((port) => port > 0 && port <= MAX_PORT));
}

function opennessAt({ deny, allow }: Enforced, port: number): Truth {
  const subject = new Subject({
    source: undefined,
    sourceAddress: NOWHERE,
    destination: { address: NOWHERE, port },
    throughWaypoint: false,
  });
  const ofRule = (rule: CompiledRule) => truthOfRule(rule, subject);
  const denied = some(deny.forNobody(port), ofRule);
  const allowed = allow === undefined || some(allow.forNobody(port), ofRule);
  if (denied === true || allowed === false) return false;
  return denied === 'depends' ? 'depends' : allowed;
}

function truthOfRule({ clauses }: CompiledRule, subject: Subject): Truth {
  return every(clauses, (clause) => truthOfClause(clause, subject));
}

function truthOfClause({ matches }: CompiledClause, subject: Subject): Truth {
  return matches.length === 0 || some(matches, (match) => truthOfMatch(match, subject));
}

function truthOfMatch({ conditions }: CompiledMatch, subject: Subject): Truth {
  return conditions.length > 0 && every(conditions, (condition) => truthOfCondition(condition, subject));
}

function truthOfCondition(condition: Condition, subject: Subject): Truth {
  return ADDRESS_FIELDS.has(condition.field) ? 'depends' : condition.holds(subject);
}

function some<Part>(parts: readonly Part[], truthOf: (part: Part) => Truth): Truth {
  let result: Truth = false;
  for (const part of parts) {
    const truth = truthOf(part);
    if (truth === true) return true;
    if (truth === 'depends') result = 'depends';
  }
  return result;
}

function every<Part>(parts: readonly Part[], truthOf: (part: Part) => Truth): Truth {
  let result: Truth = true;
  for (const part of parts) {
    const truth = truthOf(part);
    if (truth === false) return false;
    if (truth === 'depends') result = 'depends';
  }
  return result;
}
