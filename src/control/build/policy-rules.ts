/**
 * Rules of an AuthorizationPolicy to rules at L4 (wire contract, section 5.5). What an agent cannot look at never makes a
 * policy allow more: a rule of ALLOW goes as a whole, a rule of DENY loses the part and so denies more. The contract's
 * reference lets such a DENY match nothing in some cases; here it is left out of the conjunction.
 */
import {
  type AuthorizationPolicy,
  matchOf,
  type PolicyClause,
  type PolicyMatch,
  type PolicyRule,
} from '../../mesh/index.ts';
import { type FieldPath, formatField, type SaidCondition, type SaidFields, type SaidRule } from '../objects/index.ts';
import type { IgnoredPart } from '../ports.ts';
import { type FieldKind, keyKind, operationFields, sourceFields } from './policy-fields.ts';

export interface ConvertedRules {
  readonly rules: readonly PolicyRule[];
  readonly ignored: readonly IgnoredPart[];
}

/** Whose rules they are. */
export interface RuleOwner {
  readonly namespace: string;
  readonly action: AuthorizationPolicy['action'];
}

export function convertRules(rules: readonly SaidRule[], owner: RuleOwner): ConvertedRules {
  const ignored: IgnoredPart[] = [];
  const converted = rules.flatMap((rule, index) => {
    const reading = new RuleReading(owner.namespace);
    const clauses = reading.clauses(rule, ['spec', 'rules', index]);
    ignored.push(...reading.ignored);
    if (owner.action === 'allow' && reading.ignored.length > 0) return [];
    return [{ clauses, unlessThroughWaypoint: reading.isWholeAtWaypoint }];
  });
  return { rules: converted, ignored };
}

/** One rule, as it is read. */
class RuleReading {
  readonly #namespace: string;
  readonly #ignored: IgnoredPart[] = [];
  /** Parts that a waypoint looks at. */
  #forWaypoints = 0;

  constructor(namespace: string) {
    this.#namespace = namespace;
  }

  get ignored(): readonly IgnoredPart[] {
    return this.#ignored;
  }

  /** Something is left out, and all of it is what a waypoint looks at. */
  get isWholeAtWaypoint(): boolean {
    return this.#forWaypoints > 0 && this.#forWaypoints === this.#ignored.length;
  }

  /** One of all operations, one of all sources, one of each condition. */
  clauses({ from, to, when, unknown }: SaidRule, path: FieldPath): readonly PolicyClause[] {
    this.#ignoreUnknown(unknown, path);
    const operations = to.map((each, index) => this.#entry(each, 'operation', operationFields, [...path, 'to', index]));
    const sources = from.map((each, index) => this.#entry(each, 'source', sourceFields, [...path, 'from', index]));
    const conditions = when.map((each, index) => [this.#condition(each, [...path, 'when', index])]);
    return [operations, sources, ...conditions].flatMap(clauseOf);
  }

  #entry<Field extends string>(
    { said, unknown }: { readonly said: SaidFields<Field> | undefined; readonly unknown: readonly string[] },
    name: string,
    kinds: Readonly<Record<Field, FieldKind>>,
    path: FieldPath,
  ): PolicyMatch | undefined {
    this.#ignoreUnknown(unknown, path);
    const inner = [...path, name];
    const match: Partial<PolicyMatch> = {};
    for (const [field, texts] of said?.values ?? [])
      Object.assign(match, this.#read(kinds[field], texts, [...inner, field]));
    this.#ignoreUnknown(said?.unknown ?? [], inner);
    return this.#matchUnlessEmpty(match, inner, [...unknown, ...(said?.unknown ?? [])]);
  }

  #condition({ key, values, notValues, unknown }: SaidCondition, path: FieldPath): PolicyMatch | undefined {
    this.#ignoreUnknown(unknown, path);
    const kind = keyKind(key);
    if (kind === undefined) {
      this.#ignore([...path, 'key'], `${JSON.stringify(key)} is not known`);
      return undefined;
    }
    if (kind === 'l7') {
      this.#ignoreL7([...path, 'key'], `${JSON.stringify(key)} `);
      return undefined;
    }
    const match = {
      ...this.#read(kind.values, values, [...path, 'values']),
      ...this.#read(kind.notValues, notValues, [...path, 'notValues']),
    };
    return this.#matchUnlessEmpty(match, path, unknown);
  }

  #read(kind: FieldKind, texts: readonly string[], path: FieldPath): Partial<PolicyMatch> {
    if (texts.length === 0) return {};
    if (kind === 'l7') {
      this.#ignoreL7(path);
      return {};
    }
    const { match, wrong } = kind(texts, this.#namespace);
    for (const [index, text] of wrong) this.#ignore([...path, index], text);
    return match;
  }

  /** Undefined: nothing of it can be looked at. */
  #matchUnlessEmpty(match: Partial<PolicyMatch>, path: FieldPath, unknown: readonly string[]): PolicyMatch | undefined {
    if (Object.keys(match).length > 0) return matchOf(match);
    const field = formatField(path);
    const isExplained = unknown.length > 0 || this.#ignored.some((each) => each.field.startsWith(field));
    if (!isExplained) this.#ignore(path, 'says nothing');
    return undefined;
  }

  #ignoreUnknown(names: readonly string[], path: FieldPath): void {
    for (const name of names) this.#ignore([...path, name], 'is not a known field');
  }

  #ignoreL7(path: FieldPath, what = ''): void {
    this.#forWaypoints += 1;
    this.#ignore(path, `${what}needs a waypoint`);
  }

  #ignore(path: FieldPath, text: string): void {
    this.#ignored.push({ field: formatField(path), text });
  }
}

/** Alternatives. If one of them cannot be looked at, anything could be that one, so there is nothing to ask. */
function clauseOf(matches: ReadonlyArray<PolicyMatch | undefined>): PolicyClause[] {
  const known = matches.filter((match) => match !== undefined);
  return known.length === 0 || known.length < matches.length ? [] : [{ matches: known }];
}
