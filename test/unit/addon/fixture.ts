/**
 * What the addon's tests stand on: a small BPF object compiled once per test file, a bpffs, a cgroup and a network namespace
 * of their own. `open` gives them, `close` leaves nothing behind.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { NativeError } from '../../../native/addon/index.js';

const source = fileURLToPath(new URL('../../../native/addon/test/fixture.bpf.c', import.meta.url));

/** enum bpf_attach_type, as far as the fixture attaches. */
export const attach = { bind4: 8, bind6: 9, connect4: 10, lookup: 36 } as const;

export class Fixture {
  readonly dir: string;
  readonly bpffs: string;
  readonly objectPath: string;
  readonly #undo: Array<() => void> = [];

  private constructor(dir: string) {
    this.dir = dir;
    this.bpffs = join(dir, 'bpf');
    this.objectPath = join(dir, 'fixture.bpf.o');
  }

  static open(): Fixture {
    const fixture = new Fixture(mkdtempSync(join(tmpdir(), 'culvert-addon-')));
    // Also when a test ends the process.
    process.once('exit', () => fixture.close());
    fixture.#undo.push(() => rmSync(fixture.dir, { recursive: true, force: true }));
    try {
      compile(source, fixture.objectPath);
      mkdirSync(fixture.bpffs);
      execFileSync('mount', ['-t', 'bpf', 'bpf', fixture.bpffs]);
      fixture.#undo.push(() => execFileSync('umount', [fixture.bpffs]));
      return fixture;
    } catch (error) {
      fixture.close();
      throw error;
    }
  }

  /** Undone last first. */
  onClose(undo: () => void): void {
    this.#undo.push(undo);
  }

  close(): void {
    for (const undo of this.#undo.splice(0).reverse()) undo();
  }

  /** Compiles C that the test brings along. */
  compileText(name: string, text: string): string {
    const from = join(this.dir, `${name}.bpf.c`);
    writeFileSync(from, text);
    const to = join(this.dir, `${name}.bpf.o`);
    compile(from, to);
    return to;
  }

  /** A cgroup of its own, as path and open descriptor. Its processes must have ended before `close`. */
  cgroup(): { path: string; fd: number } {
    const path = mkdtempSync(join(cgroupRoot(), 'culvert-addon-'));
    this.onClose(() => rmdirSync(path));
    return { path, fd: this.#descriptor(path) };
  }

  /** A network namespace with its loopback up, as name and open descriptor. */
  netns(): { name: string; fd: number } {
    const name = `culvert-addon-${process.pid}-${netnsCount++}`;
    execFileSync('ip', ['netns', 'add', name]);
    this.onClose(() => execFileSync('ip', ['netns', 'delete', name]));
    execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
    return { name, fd: this.#descriptor(`/run/netns/${name}`) };
  }

  #descriptor(path: string): number {
    const fd = openSync(path, 'r');
    this.onClose(() => closeSync(fd));
    return fd;
  }
}

let netnsCount = 0;

function compile(from: string, to: string): void {
  const args = ['-target', 'bpf', '-g', '-O2', '-Wall', '-Werror'];
  // The kernel's headers ask for asm/types.h, which Debian keeps with the machine's own.
  const machine = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  execFileSync('clang', [...args, '-I', `/usr/include/${machine}`, '-c', from, '-o', to]);
}

function cgroupRoot(): string {
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [mount, kind] = line.split(' - ');
    const path = mount?.split(' ')[4];
    if (kind?.startsWith('cgroup2 ') && path !== undefined) return path;
  }
  throw new Error('no cgroup v2 is mounted');
}

/** Runs a shell line with its process in a cgroup; the exit code. */
export function runInCgroup(path: string, line: string): number {
  try {
    execFileSync('bash', ['-c', `echo $$ > "$0/cgroup.procs" && ${line}`, path], { stdio: 'ignore' });
    return 0;
  } catch (error) {
    if (error instanceof Error && 'status' in error && typeof error.status === 'number') return error.status;
    throw error;
  }
}

/** The call fails natively, and the error says at least this. */
export function fails(t: ExecutionContext, call: () => unknown, expected: Partial<NativeError>): void {
  t.like(t.throws(call, { instanceOf: Error }), expected);
}

export function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

export function u64(value: bigint): Uint8Array {
  return new Uint8Array(new BigUint64Array([value]).buffer);
}

export function readU64(bytes: Uint8Array | undefined): bigint | undefined {
  return bytes && new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
}

export function readU32s(bytes: Uint8Array): number[] {
  return [...new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)];
}

/** 16 bytes in network order. */
export function mapped(a: number, b: number, c: number, d: number): Uint8Array {
  return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d);
}

export const v6Loopback = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
