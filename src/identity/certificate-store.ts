/**
 * The certificates of this node's identities: asked for, renewed, forgotten (wire contract, section 3.5).
 *
 * Invariants:
 * - An identity's state changes by `#setState` only, which cancels the timers of the state before and sets those of the
 *   new one. What a timer is set to stands in the state.
 * - A certificate that is still valid is served, whatever becomes of its renewal.
 * - A private key is in a `Certificate` and nowhere else. No key is used twice.
 * - Trust bundle: once told by `trust`, only `trust` changes it. Until then it is what came with the last certificate.
 */
import { type Certificate, type CertificateChange, messageOf, type SpiffeId } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { makeSigningRequest } from './csr.ts';
import { IdentityError } from './errors.ts';
import type { CertificateAuthority, Clock, SignedCertificate, SigningRequest } from './ports.ts';
import { acceptCertificate, leadsToRoot, readBundle } from './response.ts';
import { backOffMs, refreshAt, runAt } from './schedule.ts';
import { type Priority, SigningQueue } from './signing-queue.ts';

/** Renewals that fail are nobody's worry before less than this share of a certificate's life is left. */
const ALARM_SHARE = 0.25;

export interface CertificateStoreDeps {
  readonly authority: CertificateAuthority;
  readonly clock: Clock;
  readonly log: Log;
  /** In [0, 1). Default: Math.random. */
  random?(): number;
}

export interface CertificateStoreOptions {
  /** What is asked for. Default: 86,400 s (wire contract, section 3.3). */
  readonly validitySeconds?: number;
  /** CSRs in flight. Default: 8 (wire contract, section 3.5). */
  readonly maxInFlight?: number;
  /** Longest wait for the CA's answer. Default: 10,000 ms. */
  readonly signTimeoutMs?: number;
}

/** What is known of one identity's certificate, for people. */
export interface CertificateStatus {
  readonly identity: SpiffeId;
  readonly state: State['kind'];
  /** Of the certificate in use, milliseconds since the epoch. */
  readonly notBefore: number | undefined;
  readonly notAfter: number | undefined;
  /** PEM, leaf first, without the root; undefined: there is none. */
  readonly chain: string | undefined;
  /** PEM, those that go with it. */
  readonly roots: readonly string[];
  /** Why the last attempt failed; undefined if it did not. */
  readonly lastError: string | undefined;
}

/** An attempt waits or is under way where `retryAt` is undefined. */
type State =
  | { readonly kind: 'initializing' }
  | { readonly kind: 'available'; readonly certificate: Certificate; readonly refreshAt: number }
  | {
      readonly kind: 'renewing';
      readonly certificate: Certificate;
      readonly error: IdentityError | undefined;
      readonly retryAt: number | undefined;
      /** It has been said that the renewals fail while the end is near. */
      readonly alarmed: boolean;
    }
  | { readonly kind: 'unavailable'; readonly error: IdentityError; readonly retryAt: number | undefined };

type WithCertificate = Extract<State, { certificate: Certificate }>;

interface Entry {
  readonly identity: SpiffeId;
  state: State;
  /** Of attempts, in a row. */
  failures: number;
  timers: { cancel(): void }[];
}

export class CertificateStore {
  readonly #authority: CertificateAuthority;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: () => number;
  readonly #validitySeconds: number;
  readonly #signTimeoutMs: number;
  readonly #queue: SigningQueue<Entry>;
  readonly #entries = new Map<SpiffeId, Entry>();
  readonly #listeners = new Set<(change: CertificateChange) => void>();
  #bundle: { readonly told: boolean; readonly roots: readonly string[] } | undefined;

  constructor(deps: CertificateStoreDeps, options: CertificateStoreOptions = {}) {
    this.#authority = deps.authority;
    this.#clock = deps.clock;
    this.#log = deps.log;
    this.#random = deps.random ?? Math.random;
    this.#validitySeconds = options.validitySeconds ?? 86_400;
    this.#signTimeoutMs = options.signTimeoutMs ?? 10_000;
    this.#queue = new SigningQueue((entry) => this.#attempt(entry), options.maxInFlight ?? 8);
  }

  /** From now on these identities have certificates, and no others: what is new is asked for, what is missing forgotten. */
  want(identities: ReadonlySet<SpiffeId>): void {
    for (const entry of [...this.#entries.values()]) if (!identities.has(entry.identity)) this.#forget(entry);
    for (const identity of identities) if (!this.#entries.has(identity)) this.#begin(identity);
  }

  /**
   * A connection waits for this identity's certificate. Answered by a change, at once or when the attempt under way ends:
   * `forgotten` if the identity is not wanted.
   */
  request(identity: SpiffeId): void {
    const entry = this.#entries.get(identity);
    const change: CertificateChange | undefined =
      entry === undefined ? { kind: 'forgotten', identity } : changeOf(entry);
    if (change?.kind !== 'issued' && entry !== undefined && this.#queue.has(entry)) this.#queue.add(entry, 'real-time');
    if (change !== undefined) this.#announce(change);
  }

  /**
   * The trust bundle has changed. Every certificate is announced again with it, so that its holders trust the new roots
   * before anybody presents a certificate under them; those that no longer lead to a root are renewed.
   *
   * @param roots PEM. A bundle that is empty or not understood changes nothing
   */
  trust(roots: readonly string[]): void {
    try {
      this.#adopt({ told: true, roots: readBundle(roots) });
    } catch (error) {
      this.#log.error({ error }, 'the trust bundle cannot be used; the one before stays');
    }
  }

  /** Calls the listener for every change from now on. @returns a function that ends it */
  onChange(listener: (change: CertificateChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** What somebody who begins to listen now must be told first. */
  current(): CertificateChange[] {
    return [...this.#entries.values()].flatMap((entry) => changeOf(entry) ?? []);
  }

  status(): CertificateStatus[] {
    return [...this.#entries.values()].map(({ identity, state }) => {
      const certificate = 'certificate' in state ? state.certificate : undefined;
      const lastError = 'error' in state ? state.error?.message : undefined;
      const { notBefore, notAfter, chain, roots = [] } = certificate ?? {};
      return { identity, state: state.kind, notBefore, notAfter, chain, roots, lastError };
    });
  }

  /** Asks for nothing any more and forgets every key. Nothing is announced. Idempotent. */
  close(): void {
    this.#listeners.clear();
    for (const entry of [...this.#entries.values()]) this.#forget(entry);
  }

  // --- states -----------------------------------------------------------------------------------------------------------

  #setState(entry: Entry, state: State): void {
    for (const timer of entry.timers) timer.cancel();
    entry.state = state;
    entry.timers = this.#timersOf(entry, state);
  }

  #timersOf(entry: Entry, state: State): { cancel(): void }[] {
    const at = (time: number, run: () => void) => runAt(this.#clock, time, run);
    switch (state.kind) {
      case 'initializing':
        return [];
      case 'available':
        return [at(state.refreshAt, () => this.#renew(entry, state, 'background'))];
      case 'renewing': {
        const end = at(state.certificate.notAfter, () => this.#expire(entry, state));
        if (state.retryAt === undefined) return [end];
        return [end, at(state.retryAt, () => this.#retry(entry, { ...state, retryAt: undefined }))];
      }
      case 'unavailable':
        if (state.retryAt === undefined) return [];
        return [at(state.retryAt, () => this.#retry(entry, { ...state, retryAt: undefined }))];
    }
  }

  #begin(identity: SpiffeId): void {
    const entry: Entry = { identity, state: { kind: 'initializing' }, failures: 0, timers: [] };
    this.#entries.set(identity, entry);
    this.#queue.add(entry, 'warm-up');
  }

  #renew(entry: Entry, { certificate }: WithCertificate, priority: Priority): void {
    this.#setState(entry, { kind: 'renewing', certificate, error: undefined, retryAt: undefined, alarmed: false });
    this.#queue.add(entry, priority);
  }

  #retry(entry: Entry, state: State): void {
    this.#setState(entry, state);
    this.#queue.add(entry, 'background');
  }

  #expire(entry: Entry, { certificate, error, retryAt }: Extract<State, { kind: 'renewing' }>): void {
    const end = new Date(certificate.notAfter).toISOString();
    const expired = new IdentityError(
      'EXPIRED',
      `the certificate expired at ${end} and could not be renewed: ${error?.message ?? 'the CA has not answered yet'}`,
      { cause: error },
    );
    this.#setState(entry, { kind: 'unavailable', error: expired, retryAt });
    this.#log.error({ identity: entry.identity, error: expired }, 'a certificate has expired');
    this.#announce({ kind: 'unavailable', identity: entry.identity, reason: expired.message });
  }

  #forget(entry: Entry): void {
    for (const timer of entry.timers) timer.cancel();
    this.#queue.remove(entry);
    this.#entries.delete(entry.identity);
    this.#announce({ kind: 'forgotten', identity: entry.identity });
  }

  /** While an attempt was under way. It may be wanted anew: then that is another entry. */
  #isForgotten(entry: Entry): boolean {
    return this.#entries.get(entry.identity) !== entry;
  }

  #announce(change: CertificateChange): void {
    for (const listener of this.#listeners) listener(change);
  }

  // --- attempts ---------------------------------------------------------------------------------------------------------

  /** @returns what is to be done with the outcome, once the entry may be queued again */
  async #attempt(entry: Entry): Promise<() => void> {
    const { identity } = entry;
    try {
      const { key, csr } = await makeSigningRequest(identity);
      const signed = await this.#sign({ identity, csr, validitySeconds: this.#validitySeconds });
      return () => this.#conclude(entry, key, signed);
    } catch (error) {
      return () => this.#fail(entry, asIdentityError(error));
    }
  }

  #conclude(entry: Entry, key: string, signed: SignedCertificate): void {
    const { identity } = entry;
    try {
      const roots = this.#bundle?.told === true ? this.#bundle.roots : readBundle(signed.roots);
      this.#succeed(entry, acceptCertificate({ identity, key }, signed.chain, roots, this.#clock.now()));
    } catch (error) {
      this.#fail(entry, asIdentityError(error));
    }
  }

  async #sign(request: SigningRequest): Promise<SignedCertificate> {
    const { promise: silence, reject } = Promise.withResolvers<never>();
    const deadline = this.#clock.after(this.#signTimeoutMs, () =>
      reject(new IdentityError('CA_UNREACHABLE', `the CA did not answer within ${this.#signTimeoutMs} ms`)),
    );
    try {
      return await Promise.race([this.#authority.sign(request), silence]);
    } finally {
      deadline.cancel();
    }
  }

  #succeed(entry: Entry, certificate: Certificate): void {
    if (this.#isForgotten(entry)) return;
    const { identity, state, failures } = entry;
    entry.failures = 0;
    const refresh = refreshAt(certificate, this.#clock.now(), this.#random());
    this.#setState(entry, { kind: 'available', certificate, refreshAt: refresh });
    const until = new Date(certificate.notAfter).toISOString();
    this.#log.info({ identity, until, renewed: state.kind === 'renewing', failures }, 'certificate issued');
    this.#announce({ kind: 'issued', certificate });
    if (this.#bundle?.told !== true) this.#adopt({ told: false, roots: certificate.roots });
  }

  #fail(entry: Entry, error: IdentityError): void {
    if (this.#isForgotten(entry)) return;
    const { identity, state } = entry;
    const now = this.#clock.now();
    entry.failures += 1;
    const retryAt = now + backOffMs(entry.failures, this.#random());
    if (state.kind === 'renewing' && state.certificate.notAfter > now) {
      const { certificate } = state;
      const alarmed = this.#alarm(entry, state, error);
      // Once more at the end, so that a CA that is back by then is not missed by a long wait.
      const next = Math.min(retryAt, certificate.notAfter);
      this.#setState(entry, { kind: 'renewing', certificate, error, retryAt: next, alarmed });
      return;
    }
    if (state.kind === 'renewing') {
      this.#expire(entry, { ...state, error, retryAt });
      return;
    }
    const level = entry.failures === 1 ? 'warn' : 'debug';
    this.#log[level]({ identity, error, failures: entry.failures }, 'no certificate');
    this.#setState(entry, { kind: 'unavailable', error, retryAt });
    this.#announce({ kind: 'unavailable', identity, reason: error.message });
  }

  /** Tells of a renewal that failed. @returns whether the alarm has been given */
  #alarm(entry: Entry, state: Extract<State, { kind: 'renewing' }>, error: IdentityError): boolean {
    const { notBefore, notAfter } = state.certificate;
    const leftMs = notAfter - this.#clock.now();
    const fields = {
      identity: entry.identity,
      error,
      failures: entry.failures,
      left_seconds: Math.floor(leftMs / 1000),
    };
    const near = leftMs < (notAfter - notBefore) * ALARM_SHARE;
    if (near && !state.alarmed) this.#log.warn(fields, 'a certificate is about to expire and cannot be renewed');
    else this.#log[entry.failures === 1 ? 'info' : 'debug'](fields, 'certificate not renewed');
    return near || state.alarmed;
  }

  // --- trust ------------------------------------------------------------------------------------------------------------

  #adopt(bundle: { readonly told: boolean; readonly roots: readonly string[] }): void {
    const { roots } = bundle;
    this.#bundle = bundle;
    for (const entry of this.#entries.values()) {
      const { state } = entry;
      if (!('certificate' in state) || sameRoots(state.certificate.roots, roots)) continue;
      const certificate = { ...state.certificate, roots };
      this.#setState(entry, { ...state, certificate });
      this.#announce({ kind: 'issued', certificate });
      // A listener has told of another bundle, and every certificate has that by now.
      if (this.#bundle !== bundle) return;
      if (leadsToRoot(certificate, roots, this.#clock.now())) continue;
      this.#log.warn({ identity: entry.identity }, 'the root of a certificate is trusted no longer; it is renewed');
      this.#renewInHaste(entry, { ...state, certificate });
    }
  }

  /** Nobody accepts the certificate any more, so a renewal that has failed before must not wait for its turn. */
  #renewInHaste(entry: Entry, state: WithCertificate): void {
    // An attempt under way may still be answered under the old root: then the next one is not far either.
    entry.failures = 0;
    if (!this.#queue.has(entry)) this.#renew(entry, state, 'warm-up');
    else this.#queue.add(entry, 'warm-up');
  }
}

function changeOf({ identity, state }: Entry): CertificateChange | undefined {
  switch (state.kind) {
    case 'initializing':
      return undefined;
    case 'available':
    case 'renewing':
      return { kind: 'issued', certificate: state.certificate };
    case 'unavailable':
      return { kind: 'unavailable', identity, reason: state.error.message };
  }
}

function sameRoots(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((root) => other.includes(root));
}

function asIdentityError(error: unknown): IdentityError {
  if (error instanceof IdentityError) return error;
  return new IdentityError('CA_UNREACHABLE', `the CA could not be asked: ${messageOf(error)}`, { cause: error });
}
