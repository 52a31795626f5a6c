/**
 * The CA of who has none: a root in a file, an intermediate in memory, leaves for the pods of the node that asks.
 *
 * A root is rotated without a dropped connection in three steps:
 * 1. Trust first. `culvert ca rotate` puts a second root into the directory. It joins the trust bundle at once and
 *    reaches every agent; nothing is signed under it yet.
 * 2. Sign later. When it has been there for the overlap (an hour, unless told otherwise), leaves are signed under it.
 *    By then every agent trusts it. Each leaf moves over when it is renewed, within half of its life.
 * 3. Forget last. When the last leaf under the old root has been renewed (after a day, with leaves of 24 h), delete the
 *    old root's file. It leaves the bundle at once. Deleted too early, leaves under it are renewed in haste, and
 *    handshakes may fail until they are.
 */
import { messageOf } from '../../mesh/index.ts';
import type { Log } from '../../telemetry/index.ts';
import { IdentityError } from '../errors.ts';
import type {
  CertificateAuthority,
  Clock,
  DirectoryWatch,
  NodeIdentities,
  SignedCertificate,
  SigningRequest,
} from '../ports.ts';
import type { Issuer } from './issue.ts';
import { addRoot, prepareDirectory, type Root, readRoots } from './root-files.ts';

/** Loaded when there is a CA, so that an agent, which has none, does without (docs/decisions/0009). */
const loadIssuing = () => import('./issue.ts');
const loadReading = () => import('./request.ts');

const DEFAULT_VALIDITY_SECONDS = 86_400;
/** Of one change in the directory there are several hints, the first of them while it is still going on. */
const SETTLE_MS = 100;
const ROOT_ALARM_MS = 90 * 86_400_000;

export interface BuiltInCaDeps {
  readonly identities: NodeIdentities;
  readonly clock: Clock;
  readonly directories: DirectoryWatch;
  readonly log: Log;
}

export interface BuiltInCaOptions {
  /** How long a new root is trusted before it signs. 0: it signs at once. Default: 3,600,000 ms. */
  readonly overlapMs?: number;
  /** The longest life that a leaf gets, whatever is asked for. Default: 7,776,000 s, 90 days (wire contract, section 3.4). */
  readonly maxValiditySeconds?: number;
  /** How often the directory is looked at where nothing tells of a change. Default: 10,000 ms. */
  readonly checkIntervalMs?: number;
}

/** What is known of one root, for people. */
export interface RootStatus {
  readonly file: string;
  readonly fingerprint: string;
  /** Milliseconds since the epoch. */
  readonly notAfter: number;
  /** Leaves are signed under it now. */
  readonly signs: boolean;
}

export class BuiltInCa {
  readonly #directory: string;
  readonly #deps: BuiltInCaDeps;
  readonly #overlapMs: number;
  readonly #maxValiditySeconds: number;
  readonly #checkIntervalMs: number;
  readonly #listeners = new Set<(roots: readonly string[]) => void>();
  #roots: readonly Root[] = [];
  #intermediate: { readonly root: string; readonly made: Promise<Issuer & { readonly renewAt: number }> } | undefined;
  #watch: { close(): void } | undefined;
  #settling: { cancel(): void } | undefined;
  #next: { cancel(): void } | undefined;
  #reading: Promise<void> | undefined;
  /** What was last found wrong with the directory, so that it is said once. */
  #fault: string | undefined;
  /** Fingerprints of roots whose near end has been told of. */
  readonly #alarmed = new Set<string>();
  #closed = false;

  private constructor(directory: string, deps: BuiltInCaDeps, options: BuiltInCaOptions) {
    this.#directory = directory;
    this.#deps = deps;
    this.#overlapMs = options.overlapMs ?? 3_600_000;
    this.#maxValiditySeconds = options.maxValiditySeconds ?? 7_776_000;
    this.#checkIntervalMs = options.checkIntervalMs ?? 10_000;
  }

  /**
   * Reads the directory's roots; makes the directory and a first root if there is none.
   *
   * @throws IdentityError CA_UNUSABLE: the directory, or a file in it, cannot be used as it is
   */
  static async open(directory: string, deps: BuiltInCaDeps, options: BuiltInCaOptions = {}): Promise<BuiltInCa> {
    const ca = new BuiltInCa(directory, deps, options);
    await prepareDirectory(directory);
    let roots = await readRoots(directory);
    if (roots.length === 0) {
      const file = await addRoot(directory, deps.clock.now());
      deps.log.info({ file }, 'no root was there; a new one was made');
      // Another process may have made one at the same time: then both are trusted.
      roots = await readRoots(directory);
    }
    ca.#take(roots);
    ca.#signingRoot();
    // Or the first to ask would wait for it.
    await Promise.all([loadIssuing(), loadReading()]);
    ca.#watch = deps.directories.watch(directory, () => ca.#settle());
    ca.#lookLater();
    return ca;
  }

  /**
   * @param node who asks, as the transport has proven
   * @throws IdentityError REFUSED: the node has no pod of that identity; BAD_CSR; CA_UNUSABLE
   */
  async sign(node: string, { identity, csr, validitySeconds }: SigningRequest): Promise<SignedCertificate> {
    const { identities, clock, log } = this.#deps;
    if (!identities.isOnNode(node, identity)) {
      log.warn({ node, identity }, 'a certificate was refused: the node has no pod of that identity');
      throw new IdentityError('REFUSED', 'request impersonation authentication failure');
    }
    const [{ makeLeaf }, { readSigningRequest }] = await Promise.all([loadIssuing(), loadReading()]);
    const key = await readSigningRequest(csr, identity);
    const issuer = await this.#issuer();
    const leaf = await makeLeaf(issuer, identity, key, this.#lifetimeMs(validitySeconds), clock.now());
    log.debug({ node, identity }, 'certificate signed');
    return { chain: [leaf, issuer.certificate], roots: this.roots() };
  }

  /** The CA as one node sees it. */
  forNode(node: string): CertificateAuthority {
    return { sign: (request) => this.sign(node, request) };
  }

  /** PEM, every root that is to be trusted, the oldest first. */
  roots(): readonly string[] {
    return this.#roots.map(({ certificate }) => certificate);
  }

  /** Calls the listener whenever the trust bundle changes. @returns a function that ends it */
  onRoots(listener: (roots: readonly string[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads the directory now; whoever asks during a reading gets another after it. Resolves when it is read. */
  check(): Promise<void> {
    const before = this.#reading ?? Promise.resolve();
    this.#reading = before.then(() => this.#read());
    return this.#reading;
  }

  status(): RootStatus[] {
    const signing = chooseSigningRoot(this.#roots, this.#deps.clock.now(), this.#overlapMs);
    return this.#roots.map((root) => ({
      file: root.file,
      fingerprint: root.fingerprint,
      notAfter: root.notAfter,
      signs: root === signing,
    }));
  }

  /** Watches the directory no longer and forgets the intermediate. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#watch?.close();
    this.#settling?.cancel();
    this.#next?.cancel();
    this.#listeners.clear();
    this.#intermediate = undefined;
  }

  // --- signing ----------------------------------------------------------------------------------------------------------

  #lifetimeMs(asked: number): number {
    const seconds = Number.isFinite(asked) && asked > 0 ? asked : DEFAULT_VALIDITY_SECONDS;
    return Math.min(seconds, this.#maxValiditySeconds) * 1000;
  }

  #signingRoot(): Root & { readonly key: NonNullable<Root['key']> } {
    const root = chooseSigningRoot(this.#roots, this.#deps.clock.now(), this.#overlapMs);
    if (root?.key !== undefined) return { ...root, key: root.key };
    throw new IdentityError(
      'CA_UNUSABLE',
      `${this.#directory} has no root that is valid now and has its key; add one with: culvert ca rotate`,
    );
  }

  /** The intermediate of the root that signs, made anew when that is another or half of its own life is over. */
  async #issuer(): Promise<Issuer> {
    const { clock, log } = this.#deps;
    const root = this.#signingRoot();
    const current = this.#intermediate;
    if (current?.root === root.fingerprint) {
      const made = await current.made;
      if (clock.now() < made.renewAt) return made;
      // Somebody else who waited may have begun with the next.
      if (this.#intermediate !== current) return await this.#issuer();
    }
    const made = loadIssuing().then(({ makeIntermediate }) => makeIntermediate(root, clock.now()));
    this.#intermediate = { root: root.fingerprint, made };
    log.info(
      { file: root.file, until: new Date(root.notAfter).toISOString() },
      'certificates are signed under this root',
    );
    try {
      return await made;
    } catch (error) {
      this.#intermediate = undefined;
      throw error;
    }
  }

  // --- the directory ----------------------------------------------------------------------------------------------------

  #settle(): void {
    if (this.#closed) return;
    this.#settling?.cancel();
    this.#settling = this.#deps.clock.after(SETTLE_MS, () => void this.check());
  }

  #lookLater(): void {
    if (this.#closed) return;
    this.#next = this.#deps.clock.after(this.#checkIntervalMs, () => void this.check().then(() => this.#lookLater()));
  }

  async #read(): Promise<void> {
    if (this.#closed) return;
    try {
      const roots = await readRoots(this.#directory);
      if (roots.length === 0) {
        throw new IdentityError(
          'CA_UNUSABLE',
          `${this.#directory} holds no root any more; add one with: culvert ca rotate`,
        );
      }
      this.#take(roots);
      this.#fault = undefined;
    } catch (error) {
      const fault = messageOf(error);
      if (fault !== this.#fault) this.#deps.log.error({ error }, 'the roots cannot be read; those before stay in use');
      this.#fault = fault;
    }
  }

  #take(found: readonly Root[]): void {
    if (this.#closed) return;
    const { clock, log } = this.#deps;
    const now = clock.now();
    const known = new Map(this.#roots.map((root) => [root.fingerprint, root]));
    const unique = new Map(found.map((root) => [root.fingerprint, root])).values();
    // What appears while we look is new now. Of what was there before, the file system tells, whose clock may be ahead.
    const opening = known.size === 0;
    this.#roots = [...unique].map((root) => ({
      ...root,
      since: known.get(root.fingerprint)?.since ?? (opening ? Math.min(root.since, now) : now),
    }));
    const added = this.#roots.filter(({ fingerprint }) => !known.delete(fingerprint));
    for (const { file } of known.values()) log.info({ file }, 'a root is trusted no longer');
    for (const { file } of added) log.info({ file }, 'a root is trusted');
    this.#warnOfEnds(now);
    if (added.length === 0 && known.size === 0) return;
    for (const listener of this.#listeners) listener(this.roots());
  }

  #warnOfEnds(now: number): void {
    for (const { file, fingerprint, notAfter } of this.#roots) {
      if (notAfter - now >= ROOT_ALARM_MS || this.#alarmed.has(fingerprint)) continue;
      this.#alarmed.add(fingerprint);
      const until = new Date(notAfter).toISOString();
      this.#deps.log.warn({ file, until }, 'a root expires soon; add another with: culvert ca rotate');
    }
  }
}

/** The newest root that has been trusted for the overlap; if none has, the one that has been longest. */
export function chooseSigningRoot(roots: readonly Root[], now: number, overlapMs: number): Root | undefined {
  const able = roots.filter((root) => root.key !== undefined && root.notBefore <= now && root.notAfter > now);
  const settled = able.filter(({ since }) => now - since >= overlapMs);
  if (settled.length > 0) return settled.reduce((best, root) => (root.notBefore >= best.notBefore ? root : best));
  return able.toSorted((one, other) => one.since - other.since)[0];
}
