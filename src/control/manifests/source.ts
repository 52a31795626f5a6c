import { stat } from 'node:fs/promises';
import { type MeshUpdate, messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { changes, completeUpdate } from '../build/changes.ts';
import { type BuiltMesh, MeshBuilder } from '../build/mesh-builder.ts';
import { ControlError } from '../errors.ts';
import type { MeshSource, Problem } from '../ports.ts';
import { type ManifestFile, ManifestFiles } from './files.ts';
import { ManifestFolder } from './folder.ts';
import { collect, fileProblems, findingProblems, formatProblem } from './problems.ts';

export interface ManifestSourceDeps {
  readonly log: Log;
}

export interface ManifestSourceOptions {
  /** Folder of `*.yaml`, `*.yml` and `*.json`; folders in it too. */
  readonly directory: string;
  /** How long a file must have been left alone before it is read. Default: 20 ms. */
  readonly debounceMs?: number;
  /** How often everything is looked at, for what watching misses. Default: 10,000 ms. */
  readonly lookMs?: number;
  /** Where the ConfigMap `culvert` is. Default: istio-system. */
  readonly rootNamespace?: string;
}

type SourceState =
  | { readonly kind: 'new' }
  | { readonly kind: 'starting' }
  /** Nothing has changed. */
  | { readonly kind: 'idle' }
  /** Files have changed, and the first of them is to be read then. */
  | { readonly kind: 'waiting'; readonly dueMs: number; readonly timer: NodeJS.Timeout }
  | { readonly kind: 'reading' }
  | { readonly kind: 'closed' };

/**
 * A folder of ordinary Kubernetes YAML as source of the mesh. An edit is in force within 100 ms.
 *
 * The first update is of everything or is not made: what is missing from a complete update, agents take for gone, and pass
 * its traffic on in the clear. So nothing is told before every file has been at rest and good once.
 */
export class ManifestSource implements MeshSource {
  readonly #log: Log;
  readonly #options: ManifestSourceOptions;
  readonly #folder: ManifestFolder;
  readonly #files: ManifestFiles;
  readonly #builder: MeshBuilder;
  readonly #listeners: Array<(update: MeshUpdate) => void> = [];
  #state: SourceState = { kind: 'new' };
  #looks: NodeJS.Timeout | undefined;
  #mesh: BuiltMesh | undefined;
  #problems: readonly Problem[] = [];
  #duplicates: readonly Problem[] = [];
  /** Problems that the log has told of. */
  #told: ReadonlyMap<string, Problem> = new Map();
  #toldFaults = '';
  /** It has been said that nothing is told yet, and why. */
  #saidItWaits = false;
  /** Kinds that the log has told of. */
  readonly #foreign = new Set<string>();

  constructor(deps: ManifestSourceDeps, options: ManifestSourceOptions) {
    this.#log = deps.log;
    this.#options = options;
    this.#files = new ManifestFiles({ debounceMs: options.debounceMs ?? 20 });
    this.#folder = new ManifestFolder(
      {
        log: deps.log,
        touched: (path) => this.#schedule(this.#files.touch(path, now())),
        seen: (path) => this.#schedule(this.#files.see(path, now())),
      },
      options.directory,
    );
    this.#builder = new MeshBuilder(
      options.rootNamespace === undefined ? {} : { rootNamespace: options.rootNamespace },
    );
  }

  /**
   * Begins to follow the folder; the first update comes once every file is good.
   *
   * @throws ControlError MANIFESTS_UNREADABLE: there is no such folder
   */
  async start(): Promise<void> {
    if (this.#state.kind !== 'new') return;
    this.#setState({ kind: 'starting' });
    await requireFolder(this.#options.directory);
    await this.#folder.look();
    const fault = this.#folder.faults.get(this.#options.directory);
    if (fault !== undefined) throw new ControlError('MANIFESTS_UNREADABLE', `there are no manifests to read: ${fault}`);
    if (this.#isClosed()) return;
    this.#setState({ kind: 'idle' });
    this.#looks = setInterval(() => void this.#look(), this.#options.lookMs ?? 10_000);
    this.#looks.unref();
    this.#begin();
    this.#schedule(this.#files.dueMs);
  }

  onUpdate(listener: (update: MeshUpdate) => void): void {
    this.#listeners.push(listener);
    if (this.#mesh !== undefined) listener(completeUpdate(this.#mesh));
  }

  problems(): readonly Problem[] {
    return this.#problems;
  }

  close(): void {
    if (this.#isClosed()) return;
    this.#setState({ kind: 'closed' });
    clearInterval(this.#looks);
    this.#folder.close();
  }

  #setState(next: SourceState): void {
    if (this.#state.kind === 'waiting') clearTimeout(this.#state.timer);
    this.#state = next;
  }

  #isClosed(): boolean {
    return this.#state.kind === 'closed';
  }

  async #look(): Promise<void> {
    await this.#folder.look();
    if (this.#isClosed()) return;
    if (this.#mesh === undefined) this.#begin();
    else if (faultsText(this.#folder) !== this.#toldFaults) this.#report();
  }

  /** Waits until a file is due, unless another is due before. */
  #schedule(dueMs: number | undefined): void {
    if (dueMs === undefined) return;
    const { kind } = this.#state;
    if (kind !== 'idle' && (kind !== 'waiting' || this.#state.dueMs <= dueMs)) return;
    const timer = setTimeout(() => void this.#read(), Math.max(0, dueMs - now()));
    timer.unref();
    this.#setState({ kind: 'waiting', dueMs, timer });
  }

  async #read(): Promise<void> {
    if (this.#state.kind !== 'waiting') return;
    this.#setState({ kind: 'reading' });
    const hasChanged = await this.#files.read(now);
    if (this.#isClosed()) return;
    this.#setState({ kind: 'idle' });
    if (this.#mesh === undefined) this.#begin();
    else if (hasChanged) this.#rebuild();
    this.#schedule(this.#files.dueMs);
  }

  /** The first build, if all is well with every file. */
  #begin(): void {
    this.#report();
    if (this.#problems.length === 0) {
      if (this.#files.dueMs === undefined) this.#rebuild();
    } else if (!this.#saidItWaits) {
      this.#saidItWaits = true;
      const { directory } = this.#options;
      this.#log.error(
        { directory, problems: this.#problems.length },
        'no agent is told of the mesh, each keeps what it knows, until what is wrong with the manifests has been mended',
      );
    }
  }

  #rebuild(): void {
    const last = this.#mesh;
    const files = this.#files.files();
    const { objects, duplicates } = collect(files);
    const mesh = this.#builder.build(objects);
    this.#mesh = mesh;
    this.#duplicates = duplicates;
    this.#report();
    this.#tellForeign(files);
    const update = last === undefined ? completeUpdate(mesh) : changes(last, mesh);
    if (update === undefined) return;
    const { workloads, services, policies, removed, removedPolicies } = update;
    this.#log.debug(
      {
        workloads: workloads.length,
        services: services.length,
        policies: policies.length,
        removed: removed.length + removedPolicies.length,
      },
      'the manifests have changed the mesh',
    );
    for (const listener of this.#listeners) listener(update);
  }

  /** Gathers what is wrong now, and logs what was not wrong before. */
  #report(): void {
    const { directory } = this.#options;
    this.#toldFaults = faultsText(this.#folder);
    const files = this.#files.files();
    this.#problems = [
      ...folderProblems(this.#folder),
      ...files.flatMap(fileProblems),
      ...this.#duplicates,
      ...findingProblems(this.#mesh?.findings ?? [], files),
    ];
    const texts = new Map(this.#problems.map((problem) => [formatProblem(problem), problem]));
    for (const [text, problem] of texts) if (!this.#told.has(text)) this.#tell(problem, text);
    for (const object of withoutCondition(this.#told, texts))
      this.#log.info({ object }, `${object}: nothing of it is left out any more.`);
    if (this.#told.size > 0 && texts.size === 0)
      this.#log.info({ directory }, 'nothing is wrong with the manifests any more');
    this.#told = texts;
  }

  #tell({ reason, object, field, place, condition }: Problem, text: string): void {
    const { type, status } = condition ?? {};
    const level = status === 'True' ? 'info' : this.#mesh === undefined ? 'error' : 'warn';
    this.#log[level]({ reason, object, field, ...place, ...(condition && { condition: type, status }) }, text);
  }

  /** Once for each kind: a folder may well hold more than a mesh is made of. */
  #tellForeign(files: readonly ManifestFile[]): void {
    for (const { path, manifest } of files)
      for (const kind of manifest.foreign) {
        if (this.#foreign.has(kind)) continue;
        this.#foreign.add(kind);
        this.#log.debug({ file: path, kind }, 'a kind that the mesh is not built of is left out');
      }
  }
}

/** Objects that had a condition which was a problem, and have none now. */
function withoutCondition(last: ReadonlyMap<string, Problem>, next: ReadonlyMap<string, Problem>): Set<string> {
  const objectsOf = (problems: ReadonlyMap<string, Problem>) =>
    new Set([...problems.values()].flatMap(({ object, condition }) => (condition && object ? [object] : [])));
  return objectsOf(last).difference(objectsOf(next));
}

function folderProblems({ faults }: ManifestFolder): readonly Problem[] {
  return [...faults].map(([path, fault]) => ({
    reason: 'unreadable',
    text: `The manifests in ${path} cannot be read, what was read before stays: ${fault}.`,
    object: undefined,
    field: undefined,
    place: undefined,
  }));
}

function faultsText({ faults }: ManifestFolder): string {
  return [...faults].flat().join('\n');
}

function now(): number {
  return performance.now();
}

/** @throws ControlError MANIFESTS_UNREADABLE: there is no such folder */
export async function requireFolder(directory: string): Promise<void> {
  try {
    if ((await stat(directory)).isDirectory()) return;
  } catch (cause) {
    throw new ControlError('MANIFESTS_UNREADABLE', `there are no manifests to read: ${messageOf(cause)}`, { cause });
  }
  throw new ControlError('MANIFESTS_UNREADABLE', `${directory} is not a directory; give one that has manifests in it`);
}
