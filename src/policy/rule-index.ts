import { type Block, BlockTable } from './blocks.ts';
import type { CompiledPolicy, CompiledRule } from './compiled.ts';
import type { Subject } from './subject.ts';

/** A rule and its place among those of the index. */
class Entry {
  readonly policy: CompiledPolicy;
  readonly rule: CompiledRule;
  readonly order: number;

  constructor(policy: CompiledPolicy, rule: CompiledRule, order: number) {
    this.policy = policy;
    this.rule = rule;
    this.order = order;
  }
}

type Bucket = Entry[];

/**
 * Rules of some policies, by what a connection must bring for one to match: of many only those are looked at that could.
 * Each bucket is in the order of the policies.
 */
export class RuleIndex {
  readonly #byPrincipal = new Map<string, Bucket>();
  readonly #byAccount = new Map<string, Bucket>();
  readonly #byNamespace = new Map<string, Bucket>();
  readonly #byPort = new Map<number, Bucket>();
  readonly #byBlock = new BlockTable<Bucket>();
  /** All of `#byBlock`. */
  readonly #blocks: Bucket = [];
  readonly #nobody: Bucket = [];
  readonly #somebody: Bucket = [];
  readonly #anything: Bucket = [];

  constructor(policies: readonly CompiledPolicy[]) {
    let order = 0;
    for (const policy of policies)
      for (const rule of policy.rules) {
        this.#put(new Entry(policy, rule, order));
        order += 1;
      }
  }

  /** The first rule, in the order of the policies, that matches. */
  first(subject: Subject): CompiledRule | undefined {
    const { source, port } = subject;
    let best = firstOf(this.#anything, subject, undefined);
    if (this.#byPort.size > 0) best = firstOf(this.#byPort.get(port), subject, best);
    if (this.#byNamespace.size > 0) best = firstOf(this.#byNamespace.get(source.namespace), subject, best);
    if (!this.#byBlock.isEmpty) best = this.#firstByBlock(subject, best);
    if (source.principal === undefined || source.account === undefined)
      return firstOf(this.#nobody, subject, best)?.rule;
    best = firstOf(this.#somebody, subject, best);
    if (this.#byAccount.size > 0) best = firstOf(this.#byAccount.get(source.account), subject, best);
    if (this.#byPrincipal.size > 0) best = firstOf(this.#byPrincipal.get(source.principal), subject, best);
    return best?.rule;
  }

  /** All policies of which a rule matches, in their order. */
  policies(subject: Subject): CompiledPolicy[] {
    const { source } = subject;
    const found = [
      this.#anything,
      this.#byPort.get(subject.port),
      this.#byNamespace.get(source.namespace),
      ...(this.#byBlock.isEmpty ? [] : this.#bucketsByBlock(subject)),
      source.principal === undefined ? this.#nobody : this.#somebody,
      source.account === undefined ? undefined : this.#byAccount.get(source.account),
      source.principal === undefined ? undefined : this.#byPrincipal.get(source.principal),
    ].flatMap((bucket) => (bucket ?? []).filter(({ rule }) => rule.holds(subject)));
    return [...new Set(found.sort((a, b) => a.order - b.order).map(({ policy }) => policy))];
  }

  /** Those that could match somebody without identity who comes to the port, whatever the addresses. */
  forNobody(port: number): CompiledRule[] {
    return [this.#anything, this.#byPort.get(port), this.#byNamespace.get(''), this.#blocks, this.#nobody].flatMap(
      (bucket) => (bucket ?? []).map(({ rule }) => rule),
    );
  }

  #firstByBlock(subject: Subject, best: Entry | undefined): Entry | undefined {
    const words = subject.sourceWords;
    let first = best;
    for (const level of this.#byBlock.levels(words)) first = firstOf(level.get(words), subject, first);
    return first;
  }

  #bucketsByBlock({ sourceWords }: Subject): Array<Bucket | undefined> {
    return this.#byBlock.levels(sourceWords).map((level) => level.get(sourceWords));
  }

  #putInBlock(block: Block, entry: Entry): void {
    this.#byBlock.change(block, (bucket) => appended(bucket, entry));
    add(this.#blocks, entry);
  }

  #put(entry: Entry): void {
    for (const anchor of entry.rule.anchors) {
      if (anchor.kind === 'principal') putIn(this.#byPrincipal, anchor.key, entry);
      else if (anchor.kind === 'account') putIn(this.#byAccount, anchor.key, entry);
      else if (anchor.kind === 'namespace') putIn(this.#byNamespace, anchor.key, entry);
      else if (anchor.kind === 'port') putIn(this.#byPort, anchor.key, entry);
      else if (anchor.kind === 'block') this.#putInBlock(anchor.key, entry);
      else if (anchor.kind === 'nobody') add(this.#nobody, entry);
      else if (anchor.kind === 'somebody') add(this.#somebody, entry);
      else add(this.#anything, entry);
    }
  }
}

function appended(bucket: Bucket | undefined, entry: Entry): Bucket {
  if (bucket === undefined) return [entry];
  add(bucket, entry);
  return bucket;
}

function putIn<Key>(buckets: Map<Key, Bucket>, key: Key, entry: Entry): void {
  buckets.set(key, appended(buckets.get(key), entry));
}

/** A rule whose alternatives ask for the same thing is there once. */
function add(bucket: Bucket, entry: Entry): void {
  if (bucket.at(-1) !== entry) bucket.push(entry);
}

/** The first that matches, if it comes before the best one so far. */
function firstOf(bucket: Bucket | undefined, subject: Subject, best: Entry | undefined): Entry | undefined {
  if (bucket === undefined) return best;
  for (const entry of bucket) {
    if (best !== undefined && entry.order > best.order) return best;
    if (entry.rule.holds(subject)) return entry;
  }
  return best;
}
