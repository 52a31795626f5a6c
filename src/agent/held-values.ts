/** Values that are in use, each once, under a number of its own. Number 0 is no value. Objects count as different ones. */
export class HeldValues<T> {
  readonly #numbers = new Map<T, number>();
  readonly #values: Array<T | undefined> = [undefined];
  readonly #uses: number[] = [0];
  readonly #free: number[] = [];

  /** Different values that are held. */
  get count(): number {
    return this.#numbers.size;
  }

  /** Above every number. */
  get end(): number {
    return this.#values.length;
  }

  hold(value: T | undefined): number {
    if (value === undefined) return 0;
    const known = this.#numbers.get(value);
    if (known !== undefined) {
      this.#uses[known] = (this.#uses[known] ?? 0) + 1;
      return known;
    }
    const number = this.#free.pop() ?? this.#values.length;
    this.#numbers.set(value, number);
    this.#values[number] = value;
    this.#uses[number] = 1;
    return number;
  }

  release(number: number): void {
    const value = this.#values[number];
    if (value === undefined) return;
    const left = (this.#uses[number] ?? 0) - 1;
    this.#uses[number] = left;
    if (left > 0) return;
    this.#numbers.delete(value);
    this.#values[number] = undefined;
    this.#free.push(number);
  }

  read(number: number): T | undefined {
    return this.#values[number];
  }

  /** Under which number it is held; 0: it is not. */
  numberOf(value: T): number {
    return this.#numbers.get(value) ?? 0;
  }
}
