/** One value for each key for as long as anybody holds it: not held here, so what nobody uses any more goes. */
export class Interned<Value extends object> {
  readonly #values = new Map<string, WeakRef<Value>>();
  readonly #gone = new FinalizationRegistry<string>((key) => this.#forget(key));

  get(key: string, make: () => Value): Value {
    const known = this.#values.get(key)?.deref();
    if (known !== undefined) return known;
    const value = make();
    this.#values.set(key, new WeakRef(value));
    this.#gone.register(value, key);
    return value;
  }

  get size(): number {
    return this.#values.size;
  }

  /** Another value may have come in the place of the one that is gone. */
  #forget(key: string): void {
    if (this.#values.get(key)?.deref() === undefined) this.#values.delete(key);
  }
}
