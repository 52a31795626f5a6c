import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** What a peer has printed. */
export type Said = Readonly<Record<string, unknown>>;

const DEADLINE_MS = 60_000;

/** A process of `apps.h2Client` or `apps.h2Server` beside us: what it says, and a way to wait for it. */
export class H2Peer implements Disposable {
  /** Everything so far. */
  readonly said: Said[] = [];
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #exit: Promise<number | null>;
  readonly #waiting = new Set<() => void>();
  #next = 0;
  #hasEnded = false;

  constructor([file = '', ...argv]: readonly string[]) {
    this.#child = spawn(file, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin.on('error', () => undefined); // It ended without reading: its exit tells.
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      this.said.push(JSON.parse(line) as Said);
      this.#look();
    });
    this.#exit = once(this.#child, 'close').then(([code]) => {
      this.#hasEnded = true;
      this.#look();
      return code as number | null;
    });
  }

  /** Waits for the next of these; looks behind the one that was found last. */
  async next(fields: Said): Promise<Said> {
    const { promise, resolve, reject } = Promise.withResolvers<Said>();
    const look = (): void => {
      const at = this.said.findIndex((said, index) => index >= this.#next && has(said, fields));
      if (at >= 0) {
        this.#next = at + 1;
        resolve(this.said[at] ?? {});
      } else if (this.#hasEnded) reject(this.#missing(fields, 'and it has ended'));
    };
    const deadline = setTimeout(() => reject(this.#missing(fields, `within ${DEADLINE_MS} ms`)), DEADLINE_MS);
    this.#waiting.add(look);
    look();
    return await promise.finally(() => {
      clearTimeout(deadline);
      this.#waiting.delete(look);
    });
  }

  /** Those of this event so far. */
  all(event: string): Said[] {
    return this.said.filter((said) => said.event === event);
  }

  /** Waits for its end. @returns its exit code */
  exit(): Promise<number | null> {
    return this.#exit;
  }

  /** Writes a line to its standard input. */
  tell(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Closes its standard input. */
  end(): void {
    this.#child.stdin.end();
  }

  [Symbol.dispose](): void {
    this.#child.kill('SIGKILL');
  }

  #look(): void {
    for (const look of this.#waiting) look();
  }

  #missing(fields: Said, when: string): Error {
    return new Error(`nothing like ${JSON.stringify(fields)} ${when}: ${JSON.stringify(this.said.slice(-10))}`);
  }
}

function has(said: Said, fields: Said): boolean {
  return Object.entries(fields).every(([name, value]) => said[name] === value);
}
