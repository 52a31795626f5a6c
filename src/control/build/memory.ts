/**
 * What makes a build cost only what has changed: results are made again only if something that goes into them is another
 * value than last time, and a result that comes out equal stays the same object, so that what is made of it stays too.
 */
import { isDeepStrictEqual } from 'node:util';

/** Results by the object that they are made of. They are forgotten with it. */
export class Memo<Result> {
  readonly #made = new WeakMap<object, { readonly inputs: readonly unknown[]; readonly result: Result }>();

  /** @param inputs all that goes into the result besides `source`; compared by identity */
  of(source: object, inputs: readonly unknown[], make: () => Result): Result {
    const last = this.#made.get(source);
    if (last !== undefined && areSame(last.inputs, inputs)) return last.result;
    const result = sameIfEqual(last?.result, make());
    this.#made.set(source, { inputs, result });
    return result;
  }
}

/** Results by name, for what is made of objects that are replaced now and then. Names that a build does not use are forgotten. */
export class Steady<Result> {
  #last: Map<string, Result> = new Map();
  #next: Map<string, Result> = new Map();

  /** `result`, or the equal one of the build before. */
  keep(name: string, result: Result): Result {
    const kept = sameIfEqual(this.#last.get(name), result);
    this.#next.set(name, kept);
    return kept;
  }

  /** A build is over. */
  turn(): void {
    this.#last = this.#next;
    this.#next = new Map();
  }
}

/** `last` if it is equal to `next`, else `next`. */
export function sameIfEqual<Result>(last: Result | undefined, next: Result): Result {
  return last !== undefined && (last === next || isDeepStrictEqual(last, next)) ? last : next;
}

/** Whether two lists have the very same items. */
export function areSame(one: readonly unknown[], other: readonly unknown[]): boolean {
  return one.length === other.length && one.every((each, index) => each === other[index]);
}
