import { readFile, stat } from 'node:fs/promises';
import { codeOf, messageOf } from '../../mesh/index.ts';
import { EMPTY_MANIFEST, type FileIssue, type ParsedManifest, parseManifest } from './parse.ts';
import { QUIET, QUIET_IF_GONE, quietFor } from './settle.ts';

/** One manifest file as it is in force. */
export interface ManifestFile {
  readonly path: string;
  /** The last good state. */
  readonly manifest: ParsedManifest;
  /** What is wrong with the state after that one; empty if the last good state is the last. */
  readonly issues: readonly FileIssue[];
  /** It cannot be read now, and why. */
  readonly fault: string | undefined;
}

/** What is known of a file besides. */
interface KnownFile extends ManifestFile {
  /** Changes when the file does. */
  readonly version: string;
  /** Of the last good state, if there was one. */
  readonly text?: string;
}

/** A file that may have changed. */
interface TouchedFile {
  /** When it was last seen to change. */
  readonly sinceMs: number;
  readonly dueMs: number;
}

export interface ManifestFilesOptions {
  /** How long a file must have been left alone before it is read. */
  readonly debounceMs: number;
}

/** Files that are read at a time. */
const PARALLEL = 16;

/** Reads manifest files once they have come to rest, and keeps the last good state of each. */
export class ManifestFiles {
  readonly #debounceMs: number;
  readonly #known = new Map<string, KnownFile>();
  readonly #touched = new Map<string, TouchedFile>();
  /** Paths of the known files; undefined after one has come or gone. */
  #order: readonly string[] | undefined;

  constructor(options: ManifestFilesOptions) {
    this.#debounceMs = options.debounceMs;
  }

  /** In the order of their paths. */
  files(): readonly ManifestFile[] {
    this.#order ??= [...this.#known.keys()].toSorted();
    return this.#order.map((path) => this.#known.get(path)).filter((file) => file !== undefined);
  }

  /** When the next touched file is to be read; undefined: none is touched. */
  get dueMs(): number | undefined {
    let due: number | undefined;
    for (const { dueMs } of this.#touched.values()) due = due === undefined ? dueMs : Math.min(due, dueMs);
    return due;
  }

  /** The file has just come, changed or gone. Returns when it is to be read. */
  touch(path: string, nowMs: number): number {
    const dueMs = nowMs + QUIET * this.#debounceMs;
    this.#touched.set(path, { sinceMs: nowMs, dueMs });
    return dueMs;
  }

  /** Like `touch`, but nothing tells that it has changed: a file that is waited for is not waited for any longer. */
  see(path: string, nowMs: number): number {
    return this.#touched.get(path)?.dueMs ?? this.touch(path, nowMs);
  }

  /**
   * Reads the touched files that are due.
   *
   * @returns whether anything is in force now, or wrong, that was not before
   */
  async read(clock: () => number): Promise<boolean> {
    const due = [...this.#touched].filter(([, { dueMs }]) => dueMs <= clock());
    let hasChanged = false;
    while (due.length > 0) {
      const some = due.splice(0, PARALLEL);
      const outcomes = await Promise.all(some.map(([path, touched]) => this.#readOne(path, touched, clock)));
      hasChanged ||= outcomes.includes(true);
    }
    return hasChanged;
  }

  async #readOne(path: string, touched: TouchedFile, clock: () => number): Promise<boolean> {
    const outcome = await this.#look(path);
    // Touched again meanwhile: what was read may be half of it.
    if (this.#touched.get(path) !== touched) return false;
    if (outcome.kind === 'busy') {
      this.touch(path, clock());
      return false;
    }
    const restMs = touched.sinceMs + outcome.quiet * this.#debounceMs;
    if (restMs > clock()) {
      this.#touched.set(path, { ...touched, dueMs: restMs });
      return false;
    }
    this.#touched.delete(path);
    return this.#accept(path, outcome);
  }

  async #look(path: string): Promise<Outcome> {
    const last = this.#known.get(path);
    try {
      const before = await versionOf(path);
      if (before === undefined || before === last?.version)
        return { kind: 'known', quiet: QUIET, isFile: before !== undefined };
      const text = await readFile(path, 'utf8');
      if ((await versionOf(path)) !== before) return { kind: 'busy' };
      if (text === last?.text) return { kind: 'text', quiet: QUIET, version: before, text, manifest: last.manifest };
      const manifest = parseManifest(text, last?.manifest);
      return { kind: 'text', quiet: quietFor(last?.text, text, manifest), version: before, text, manifest };
    } catch (error) {
      const isGone = codeOf(error) === 'ENOENT' || codeOf(error) === 'ENOTDIR';
      return isGone
        ? { kind: 'gone', quiet: QUIET_IF_GONE }
        : { kind: 'fault', quiet: QUIET_IF_GONE, text: messageOf(error) };
    }
  }

  #accept(path: string, outcome: Settled): boolean {
    const last = this.#known.get(path) ?? { path, manifest: EMPTY_MANIFEST, issues: [], fault: undefined, version: '' };
    switch (outcome.kind) {
      case 'known':
        if (!outcome.isFile) return this.#forget(path);
        return last.fault !== undefined && this.#keep({ ...last, fault: undefined });
      case 'gone':
        return this.#forget(path);
      case 'fault':
        return last.fault !== outcome.text && this.#keep({ ...last, fault: outcome.text });
      case 'text': {
        const { version, manifest, text } = outcome;
        if (manifest.issues.length > 0)
          return this.#keep({ ...last, issues: manifest.issues, version, fault: undefined });
        this.#keep({ path, manifest, issues: [], version, text, fault: undefined });
        return manifest !== last.manifest || last.issues.length > 0 || last.fault !== undefined;
      }
    }
  }

  #keep(file: KnownFile): true {
    if (!this.#known.has(file.path)) this.#order = undefined;
    this.#known.set(file.path, file);
    return true;
  }

  #forget(path: string): boolean {
    this.#order = undefined;
    return this.#known.delete(path);
  }
}

/** What a look at a file has shown; `quiet` is how long it must have been left alone for that to count. */
type Settled =
  /** The version that is known, or no file at all, but a folder or a device. */
  | { readonly kind: 'known'; readonly quiet: number; readonly isFile: boolean }
  | {
      readonly kind: 'text';
      readonly quiet: number;
      readonly version: string;
      readonly text: string;
      readonly manifest: ParsedManifest;
    }
  | { readonly kind: 'gone'; readonly quiet: number }
  | { readonly kind: 'fault'; readonly quiet: number; readonly text: string };

/** Or it is being written right now. */
type Outcome = Settled | { readonly kind: 'busy' };

/** Undefined: not a file. */
async function versionOf(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true });
  if (!found.isFile()) return undefined;
  return `${found.dev}:${found.ino}:${found.size}:${found.mtimeNs}:${found.ctimeNs}`;
}
