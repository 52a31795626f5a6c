import { type Dirent, type FSWatcher, watch } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { codeOf, messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';

const MANIFEST = /\.(ya?ml|json)$/;
/** A guard beside the one against loops of symbolic links. */
const MAX_DEPTH = 32;

export interface ManifestFolderDeps {
  readonly log: Log;
  /** A manifest has just come, changed or gone. */
  readonly touched: (path: string) => void;
  /** A manifest was come upon: perhaps it is another than before, mostly not. */
  readonly seen: (path: string) => void;
}

/** A folder that is being watched. */
interface Watched {
  /** Device and inode; another one of the same name is another folder. */
  readonly id: string;
  /** Ids of the folders that it is in. */
  readonly above: readonly string[];
  readonly watcher: FSWatcher | undefined;
  readonly files: ReadonlySet<string>;
  readonly folders: ReadonlySet<string>;
}

/**
 * The manifests below a folder: `*.yaml`, `*.yml`, `*.json`. Names that begin with a dot are left out: Kubernetes mounts a
 * ConfigMap as links to `..data/`, and that one as a link which is replaced; editors keep their own files under such names.
 */
export class ManifestFolder {
  readonly #deps: ManifestFolderDeps;
  readonly #root: string;
  readonly #watched = new Map<string, Watched>();
  /** Folders that are to be looked at; one at a time is. */
  readonly #wanted = new Set<string>();
  #looking: Promise<void> | undefined;
  readonly #faults = new Map<string, string>();
  #isClosed = false;

  constructor(deps: ManifestFolderDeps, root: string) {
    this.#deps = deps;
    this.#root = root;
  }

  /** Folders that cannot be read now, and why. What was found in them before is kept then. */
  get faults(): ReadonlyMap<string, string> {
    return this.#faults;
  }

  /** Looks through all of it, whatever has been watched so far. */
  look(): Promise<void> {
    return this.#lookAt(this.#root);
  }

  close(): void {
    this.#isClosed = true;
    for (const { watcher } of this.#watched.values()) watcher?.close();
    this.#watched.clear();
  }

  #lookAt(path: string): Promise<void> {
    this.#wanted.add(path);
    this.#looking ??= this.#lookAtWanted();
    return this.#looking;
  }

  async #lookAtWanted(): Promise<void> {
    for (const path of this.#wanted) {
      this.#wanted.delete(path);
      await this.#walk(path, this.#watched.get(path)?.above ?? []);
    }
    // In the same turn in which nothing more was wanted.
    this.#looking = undefined;
  }

  async #walk(path: string, above: readonly string[]): Promise<void> {
    if (this.#isClosed) return;
    try {
      const { dev, ino } = await stat(path, { bigint: true });
      const id = `${dev}:${ino}`;
      if (above.includes(id) || above.length > MAX_DEPTH) return;
      const last = this.#watched.get(path);
      // Watched before it is read, so that nothing comes in between.
      const watcher = this.#watch(path, id, last);
      const found = await this.#read(path);
      this.#watched.set(path, { id, above, watcher, ...found });
      if (this.#isClosed) watcher?.close();
      for (const file of last?.files ?? []) if (!found.files.has(file)) this.#deps.seen(file);
      for (const folder of last?.folders ?? []) if (!found.folders.has(folder)) this.#forget(folder);
      for (const file of found.files) this.#deps.seen(file);
      for (const folder of found.folders) await this.#walk(folder, [...above, id]);
      this.#faults.delete(path);
    } catch (error) {
      this.#fail(path, error);
    }
  }

  async #read(path: string): Promise<Pick<Watched, 'files' | 'folders'>> {
    const files = new Set<string>();
    const folders = new Set<string>();
    for (const entry of await readdir(path, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const full = join(path, entry.name);
      if (await isFolder(entry, full)) folders.add(full);
      else if (isManifest(entry.name)) files.add(full);
    }
    return { files, folders };
  }

  /** A folder that is gone takes its files away; one that cannot be read keeps them, and so does the root. */
  #fail(path: string, error: unknown): void {
    const isGone = codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
    if (isGone && path !== this.#root) this.#forget(path);
    else this.#faults.set(path, messageOf(error));
  }

  #forget(path: string): void {
    this.#faults.delete(path);
    const gone = this.#watched.get(path);
    if (gone === undefined) return;
    gone.watcher?.close();
    this.#watched.delete(path);
    for (const file of gone.files) this.#deps.seen(file);
    for (const folder of gone.folders) this.#forget(folder);
  }

  #watch(path: string, id: string, last: Watched | undefined): FSWatcher | undefined {
    if (last?.id === id && last.watcher !== undefined) return last.watcher;
    last?.watcher?.close();
    try {
      const watcher = watch(path, { persistent: false }, (event, name) => this.#noticed(path, event, name));
      watcher.on('error', (error) => {
        this.#deps.log.debug({ directory: path, error }, 'watching a folder of manifests ended');
        watcher.close();
        const current = this.#watched.get(path);
        if (current?.watcher === watcher) this.#watched.set(path, { ...current, watcher: undefined });
      });
      return watcher;
    } catch (error) {
      this.#deps.log.warn(
        { directory: path, error },
        'a folder of manifests cannot be watched: changes are seen when it is next looked at, not at once',
      );
      return undefined;
    }
  }

  #noticed(path: string, event: string, name: string | null): void {
    if (this.#isClosed) return;
    const full = name === null ? path : join(path, name);
    if (name !== null && isManifest(name) && !this.#watched.has(full)) this.#deps.touched(full);
    // A new name may be a folder, and a link such as `..data` leads all files of the folder to others.
    else if (name === null || (event === 'rename' && (name.startsWith('..') || !name.startsWith('.'))))
      void this.#lookAt(path);
  }
}

function isManifest(name: string): boolean {
  return MANIFEST.test(name) && !name.startsWith('.');
}

async function isFolder(entry: Dirent, path: string): Promise<boolean> {
  if (!entry.isSymbolicLink()) return entry.isDirectory();
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}
