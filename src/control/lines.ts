const NEWLINE = 0x0a;

/** Cuts a stream of bytes into lines, none longer than a bound. */
export class LineReader {
  readonly #maxBytes: number;
  readonly #onLine: (line: Buffer) => void;
  #chunks: Buffer[] = [];
  #held = 0;

  /**
   * @param maxBytes longest line, without its newline
   * @param onLine called for each line, without its newline
   */
  constructor(maxBytes: number, onLine: (line: Buffer) => void) {
    this.#maxBytes = maxBytes;
    this.#onLine = onLine;
  }

  /** @throws RangeError a line is longer than the bound; and whatever `onLine` throws */
  take(chunk: Buffer): void {
    let from = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, from)) {
      const line = this.#complete(chunk.subarray(from, end));
      from = end + 1;
      this.#onLine(line);
    }
    if (from < chunk.length) this.#hold(chunk.subarray(from));
  }

  #complete(tail: Buffer): Buffer {
    if (this.#chunks.length === 0) {
      this.#check(tail.length);
      return tail;
    }
    this.#hold(tail);
    const line = Buffer.concat(this.#chunks, this.#held);
    this.#chunks = [];
    this.#held = 0;
    return line;
  }

  #hold(part: Buffer): void {
    this.#check(this.#held + part.length);
    this.#chunks.push(part);
    this.#held += part.length;
  }

  #check(bytes: number): void {
    if (bytes > this.#maxBytes) throw new RangeError(`a line is longer than ${this.#maxBytes} bytes`);
  }
}
