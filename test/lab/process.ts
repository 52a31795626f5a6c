/** A process in a namespace and a cgroup of the lab. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './compile.ts';
import { LabError } from './names.ts';

export interface RunOptions {
  /** User and group to run as. Default: root. */
  uid?: number;
  /**
   * Keep only what a container runtime gives by default, less CAP_NET_RAW: so neither CAP_NET_ADMIN nor CAP_NET_RAW.
   * Default: true in pods, false on nodes.
   */
  restricted?: boolean;
  /** Further capabilities to take away, in setpriv's form: `sys_ptrace`. */
  dropCapabilities?: readonly string[];
  /** Added to a small environment (PATH, HOME, LANG, NODE_COMPILE_CACHE). */
  env?: Readonly<Record<string, string>>;
  /** Written to standard input, which is then closed. Undefined: `run` leaves it open, `exec` closes it. */
  stdin?: string | Uint8Array;
  /** Default: the project's root. */
  cwd?: string;
  /** RLIMIT_NOFILE, soft and hard. Default: the hard limit of this process. */
  maxFiles?: number;
  /** Is given every line of standard output. */
  onLine?: (line: string) => void;
}

/** Where a process is to live. */
export interface Place {
  /** Path of the network namespace. */
  readonly netns: string;
  /** Path of the cgroup. */
  readonly cgroup: string;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Outcome extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

/** What docker and containerd leave to a container's root, less net_raw. */
const containerCapabilities =
  'chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,sys_chroot,mknod,audit_write,setfcap';
const defaultDeadlineMs = 20_000;

function launch(place: Place, argv: readonly string[], options: RunOptions): string[] {
  const privileges = ['--pdeathsig', 'KILL'];
  if (options.uid !== undefined) privileges.push(`--reuid=${options.uid}`, `--regid=${options.uid}`, '--clear-groups');
  const kept = options.restricted ? `-all,${containerCapabilities.replaceAll(/\w+/g, '+$&')}` : '+all';
  const capabilities = [kept, ...(options.dropCapabilities ?? []).map((name) => `-${name}`)].join(',');
  if (capabilities !== '+all') privileges.push(`--bounding-set=${capabilities}`, '--inh-caps=-all');
  const files = options.maxFiles ?? '$(ulimit -H -n)';
  const enter = `echo 0 > "$1/cgroup.procs" && ulimit -n ${files} && shift && exec "$@"`;
  return [
    ...['sh', '-c', enter, 'sh', place.cgroup],
    ...['nsenter', `--net=${place.netns}`, '--'],
    ...['setpriv', ...privileges, '--', ...argv],
  ];
}

function environment(added: RunOptions['env']): NodeJS.ProcessEnv {
  const path = [dirname(process.execPath), '/usr/sbin', '/usr/bin', '/sbin', '/bin', process.env.PATH ?? ''].join(':');
  // As deploy/daemonset.yaml gives it: an agent that has to compile what it runs is another one.
  const cache = process.env.NODE_COMPILE_CACHE ?? join(projectRoot, 'build', 'compile-cache');
  return { PATH: path, HOME: process.env.HOME ?? '/root', LANG: 'C.UTF-8', NODE_COMPILE_CACHE: cache, ...added };
}

/** What `told` looks at, and how long it waits. */
export interface ToldOptions {
  /** Lines before this one do not count: what `lines.length` was at some time. Default: 0, all since the start. */
  since?: number;
  /** Default: 20 s. */
  deadlineMs?: number;
}

interface Waiter {
  look: () => boolean;
  fail: (error: Error) => void;
}

/** A running process. It dies with the lab, and with the process that started it. */
export class LabProcess {
  /** Its own pid (nothing stands between). */
  readonly pid: number;
  readonly argv: readonly string[];
  /** Resolves when it has ended and its output is read. Never rejects. */
  readonly exit: Promise<Exit>;
  /** Lines of standard output so far. */
  readonly lines: string[] = [];
  #stdout = '';
  #stderr = '';
  #next = 0;
  #exited: Exit | undefined;
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #waiters = new Set<Waiter>();

  /** Starts `argv` in a place. Nodes and pods have `run`, which knows the place. */
  constructor(place: Place, argv: readonly string[], options: RunOptions = {}) {
    const [file, ...rest] = launch(place, argv, options);
    const child = spawn(file ?? '', rest, {
      cwd: options.cwd ?? projectRoot,
      env: environment(options.env),
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child = child;
    this.argv = argv;
    if (child.pid === undefined) throw new LabError(`cannot start ${argv.join(' ')}`);
    this.pid = child.pid;
    child.stdin.on('error', () => undefined); // It ended without reading: its exit tells.
    if (options.stdin !== undefined) child.stdin.end(options.stdin);
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stderr += chunk;
    });
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      this.#stdout += chunk;
    });
    createInterface({ input: child.stdout }).on('line', (line) => {
      this.lines.push(line);
      options.onLine?.(line);
      this.#look();
    });
    this.exit = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#exited = { code, signal };
        this.#look();
        for (const waiter of this.#waiters) waiter.fail(new LabError(`${this.#described()}: ended`));
        resolve(this.#exited);
      });
    });
  }

  /** Lines of standard output so far that are JSON objects. */
  get records(): Array<Record<string, unknown>> {
    return this.lines.map(objectIn).filter((each) => each !== undefined);
  }

  /** Standard output so far. */
  get stdout(): string {
    return this.#stdout;
  }

  /** Standard error so far. */
  get stderr(): string {
    return this.#stderr;
  }

  /** How it ended; undefined while it runs. */
  get exited(): Exit | undefined {
    return this.#exited;
  }

  /**
   * Waits for the next line of standard output that matches. Looks behind the line that the last call of `line` or `json`
   * has found, so each line is given out once.
   */
  line(pattern: RegExp, deadlineMs = defaultDeadlineMs): Promise<RegExpExecArray> {
    return this.#find((line) => pattern.exec(line) ?? undefined, `${pattern}`, { deadlineMs });
  }

  /**
   * Waits for the next line that is a JSON object and has all of `fields`. Moves on as `line` does, so it is only for what
   * is sure to come after what was waited for before. Where the order is open: `told`.
   */
  json(
    fields: Readonly<Record<string, unknown>> = {},
    deadlineMs = defaultDeadlineMs,
  ): Promise<Record<string, unknown>> {
    return this.#find((line) => matchingObject(line, fields), JSON.stringify(fields), { deadlineMs });
  }

  /**
   * Waits until the process has told of a fact, however long ago: until there is a line that is a JSON object and has all
   * of `fields`. Gives the first one. Does not move on: `line` and `json` go on as if nobody had asked.
   */
  told(fields: Readonly<Record<string, unknown>>, options: ToldOptions = {}): Promise<Record<string, unknown>> {
    const { since = 0, deadlineMs = defaultDeadlineMs } = options;
    return this.#find((line) => matchingObject(line, fields), JSON.stringify(fields), { since, deadlineMs });
  }

  /** Writes to standard input. */
  write(data: string | Uint8Array): void {
    this.#child.stdin.write(data);
  }

  /** Closes standard input. */
  end(): void {
    this.#child.stdin.end();
  }

  /** Sends a signal (default: SIGKILL) and waits until the process has ended. For signals that it may survive: `signal`. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    this.#child.kill(signal);
    return this.exit;
  }

  /** Sends a signal and does not wait. */
  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Without `since`: behind what was found before, and moves on. */
  #find<T>(
    match: (line: string) => T | undefined,
    wanted: string,
    { since, deadlineMs }: { since?: number; deadlineMs: number },
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      let at = since ?? 0;
      const settle = (): void => {
        clearTimeout(deadline);
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter = {
        look: () => {
          if (since === undefined) at = Math.max(at, this.#next);
          for (; at < this.lines.length; at++) {
            const found = match(this.lines[at] ?? '');
            if (found === undefined) continue;
            if (since === undefined) this.#next = at + 1;
            settle();
            resolve(found);
            return true;
          }
          return false;
        },
        fail: (error) => {
          settle();
          reject(error);
        },
      };
      const deadline = setTimeout(
        () => waiter.fail(new LabError(`${this.#described()}: no line ${wanted} within ${deadlineMs} ms`)),
        deadlineMs,
      );
      this.#waiters.add(waiter);
      if (!waiter.look() && this.#exited)
        waiter.fail(new LabError(`${this.#described()}: ended without a line ${wanted}`));
    });
  }

  #look(): void {
    for (const waiter of this.#waiters) waiter.look();
  }

  #described(): string {
    const state = this.#exited ? `code ${this.#exited.code}, signal ${this.#exited.signal}` : 'running';
    const tail = (text: string): string => text.trimEnd().split('\n').slice(-20).join('\n');
    return `${this.argv.join(' ')} (${state})\nstdout: ${tail(this.lines.slice(-20).join('\n'))}\nstderr: ${tail(this.#stderr)}\n`;
  }
}

function objectIn(line: string): Record<string, unknown> | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** A field that is wanted to be undefined is in no line. */
function matchingObject(line: string, fields: Readonly<Record<string, unknown>>): Record<string, unknown> | undefined {
  const found = objectIn(line);
  if (found === undefined) return undefined;
  return Object.entries(fields).every(([name, value]) => name in found && found[name] === value) ? found : undefined;
}

/** Runs a process to its end. */
export async function execute(place: Place, argv: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const running = new LabProcess(place, argv, { stdin: '', ...options });
  const exit = await running.exit;
  return { ...exit, stdout: running.stdout, stderr: running.stderr };
}
