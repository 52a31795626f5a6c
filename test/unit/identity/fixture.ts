import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DirectoryWatch } from '../../../src/identity/index.ts';
import type { CertificateChange, SpiffeId } from '../../../src/mesh/index.ts';
import { type Log, openLog } from '../../../src/telemetry/index.ts';

export const WEB = 'spiffe://cluster.local/ns/shop/sa/web' as SpiffeId;
export const CART = 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId;
export const STRANGER = 'spiffe://cluster.local/ns/other/sa/stranger' as SpiffeId;

/** Log lines as objects. */
export function recordedLog(): { log: Log; lines: ReadonlyArray<Record<string, unknown>> } {
  const lines: Record<string, unknown>[] = [];
  const log = openLog({ level: 'debug' }, { write: (line) => void lines.push(JSON.parse(line)) });
  return { log, lines };
}

/** Changes in their order; a test waits for the next one. */
export class Changes {
  readonly seen: CertificateChange[] = [];
  #waiting: ((change: CertificateChange) => void)[] = [];
  #taken = 0;

  readonly listener = (change: CertificateChange): void => {
    this.seen.push(change);
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#taken += 1;
    next(change);
  };

  async next(): Promise<CertificateChange> {
    const ready = this.seen[this.#taken];
    if (ready !== undefined) {
      this.#taken += 1;
      return ready;
    }
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** How many have not been waited for. */
  get left(): number {
    return this.seen.length - this.#taken;
  }
}

/** A directory that tells of its changes when the test says so. */
export class Hints implements DirectoryWatch {
  #changed: (() => void) | undefined;

  watch(_directory: string, changed: () => void): { close(): void } {
    this.#changed = changed;
    return {
      close: () => {
        this.#changed = undefined;
      },
    };
  }

  get watching(): boolean {
    return this.#changed !== undefined;
  }

  hint(): void {
    this.#changed?.();
  }
}

/** A new directory, deleted at the end of the test. */
export function temporaryDirectory(t: { teardown(run: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-identity-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Runs openssl with `input` at its standard input. @returns what it wrote */
export async function openssl(args: readonly string[], input = ''): Promise<string> {
  return await new Promise((resolve, reject) => {
    const child = execFile('openssl', args, (error, stdout) => (error === null ? resolve(stdout) : reject(error)));
    // It may end without having read.
    child.stdin?.on('error', () => undefined).end(input);
  });
}
