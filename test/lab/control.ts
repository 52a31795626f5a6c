/** The control process of a lab, started from the sources, with a folder of manifests and a CA of its own. */
import { mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { projectRoot } from './compile.ts';
import type { Lab } from './lab.ts';
import type { Manifest } from './manifests.ts';
import { LabError } from './names.ts';
import type { LabNode } from './node.ts';
import { type Exit, LabProcess } from './process.ts';

/** What a file holds: YAML, or objects that are written as YAML. */
export type ManifestFile = string | Manifest | readonly Manifest[];

export interface ControlOptions {
  /** Files of the folder, by name. Default: none. */
  manifests?: Readonly<Record<string, ManifestFile>>;
  /** A folder that is there already, to be read only, in place of `manifests`. */
  directory?: string;
  /** The CA's root: certificate and key, PEM. Default: it makes one itself. */
  root?: string;
  /** Further arguments of `culvert control`. */
  args?: readonly string[];
  /** Default: `debug`. */
  logLevel?: string;
  env?: Readonly<Record<string, string>>;
  /** How long it may take to be ready. Default: 20 s. */
  readyMs?: number;
  /** Is given every line of its log. */
  onLine?: (line: string) => void;
}

/** No node can be called so: it is longer than a node's name may be. */
const directoryName = 'control-process';

export class LabControl {
  /** Folder of the manifests. */
  readonly manifests: string;
  /** The CA's directory. */
  readonly ca: string;
  /** Its run directory: the nodes' sockets. */
  readonly runDirectory: string;
  readonly #lab: Lab;
  readonly #options: ControlOptions;
  readonly #directory: string;
  #process: LabProcess | undefined;

  private constructor(lab: Lab, options: ControlOptions) {
    this.#lab = lab;
    this.#options = options;
    this.#directory = join(lab.directory, directoryName);
    this.manifests = options.directory ?? join(this.#directory, 'manifests');
    this.ca = join(this.#directory, 'ca');
    this.runDirectory = join(this.#directory, 'run');
  }

  /** Writes the manifests, starts the process and waits for its log line "ready". Use `Lab.control`. */
  static async start(lab: Lab, options: ControlOptions): Promise<LabControl> {
    const control = new LabControl(lab, options);
    if (options.directory === undefined) mkdirSync(control.manifests, { recursive: true });
    if (options.root !== undefined) control.#writeRoot(options.root);
    for (const [name, content] of Object.entries(options.manifests ?? {})) control.write(name, content);
    await control.start();
    return control;
  }

  /** The process that runs, or has run last. */
  get process(): LabProcess {
    if (this.#process === undefined) throw new LabError('the control process has not been started');
    return this.#process;
  }

  /** Starts it (again) and waits until it says so: until it is ready, unless another line is given. */
  async start(said: Readonly<Record<string, unknown>> = { message: 'ready' }): Promise<void> {
    if (this.#process !== undefined && this.#process.exited === undefined)
      throw new LabError('the control process runs already');
    const { args = [], logLevel = 'debug', env, onLine, readyMs = 20_000 } = this.#options;
    const argv = [
      ...[process.execPath, join(projectRoot, 'src/cli/main.ts'), 'control', '--manifests', this.manifests],
      ...['--ca', this.ca, '--run', this.runDirectory, '--log-level', logLevel, ...args],
    ];
    // It needs no network: agents come to it by its sockets.
    const place = { netns: '/proc/self/ns/net', cgroup: this.#lab.toolsCgroup };
    this.#process = new LabProcess(place, argv, {
      ...(env === undefined ? {} : { env }),
      ...(onLine === undefined ? {} : { onLine }),
    });
    await this.#process.json(said, readyMs);
  }

  /** Asks it to end in good order, and waits for it. */
  stop(): Promise<Exit> {
    return this.process.kill('SIGTERM');
  }

  /** Sends a signal (default: SIGKILL) and waits for its end. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    return this.process.kill(signal);
  }

  /** Ends it in good order and starts it again. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** Path of the socket of a node, which its agent gets as `--control`. */
  socket(node: LabNode): string {
    return join(this.runDirectory, `${node.name}.sock`);
  }

  /** Writes or replaces a file of the manifests, as a whole. */
  write(name: string, content: ManifestFile): void {
    this.#mustBeOurs();
    const unfinished = join(this.#directory, 'unfinished');
    writeFileSync(unfinished, yamlOf(content));
    renameSync(unfinished, join(this.manifests, name));
  }

  #writeRoot(root: string): void {
    mkdirSync(this.ca, { mode: 0o700 });
    writeFileSync(join(this.ca, 'root.pem'), root, { mode: 0o600 });
  }

  /** Removes a file of the manifests. */
  remove(name: string): void {
    this.#mustBeOurs();
    rmSync(join(this.manifests, name));
  }

  #mustBeOurs(): void {
    if (this.#options.directory !== undefined) throw new LabError(`${this.manifests} is only to be read`);
  }

  /** Waits for the next log line with these fields: one that is sure to come after the last that was waited for. */
  log(fields: Readonly<Record<string, unknown>>, deadlineMs?: number): Promise<Record<string, unknown>> {
    return this.process.json(fields, deadlineMs);
  }
}

function yamlOf(content: ManifestFile): string {
  if (typeof content === 'string') return content;
  const objects: readonly unknown[] = Array.isArray(content) ? content : [content];
  return objects.map((each) => stringify(each, { aliasDuplicateObjects: false })).join('---\n');
}
