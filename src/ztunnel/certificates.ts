import { type Certificates, HboneError } from '../hbone/index.ts';
import type { Certificate, CertificateChange, SpiffeId } from '../mesh/index.ts';

interface WorkerCertificatesDeps {
  /** Asks the main thread for one; what becomes of it arrives as a change. */
  want(identity: SpiffeId): void;
}

interface WorkerCertificatesOptions {
  /** How long a connection waits for a certificate. Default 5000 ms. */
  readonly waitMs?: number;
  /** How long it is remembered that one is unavailable, before the main thread is asked again. Default 1000 ms. */
  readonly unavailableMs?: number;
}

interface Waiting {
  readonly answer: Promise<Certificate>;
  readonly resolve: (certificate: Certificate) => void;
  readonly reject: (error: HboneError) => void;
  readonly timer: NodeJS.Timeout;
}

const WAIT_MS = 5000;
const UNAVAILABLE_MS = 1000;

/** A worker's copy of the node's certificates: what the main thread has sent, and who waits for more. */
export class WorkerCertificates implements Certificates {
  readonly #deps: WorkerCertificatesDeps;
  readonly #waitMs: number;
  readonly #current = new Map<SpiffeId, Certificate>();
  /** At most one for each identity, however many wait. */
  readonly #waiting = new Map<SpiffeId, Waiting>();
  readonly #unavailableMs: number;
  /** Those that could not be had a moment ago. A peer's every attempt would be a question to the main thread otherwise. */
  readonly #unavailable = new Map<SpiffeId, { readonly reason: string; readonly since: number }>();

  constructor(deps: WorkerCertificatesDeps, options: WorkerCertificatesOptions = {}) {
    this.#deps = deps;
    this.#waitMs = options.waitMs ?? WAIT_MS;
    this.#unavailableMs = options.unavailableMs ?? UNAVAILABLE_MS;
  }

  apply(change: CertificateChange): void {
    switch (change.kind) {
      case 'issued':
        this.#unavailable.delete(change.certificate.identity);
        this.#current.set(change.certificate.identity, change.certificate);
        this.#take(change.certificate.identity)?.resolve(change.certificate);
        break;
      case 'unavailable':
        this.#current.delete(change.identity);
        this.#unavailable.set(change.identity, { reason: change.reason, since: performance.now() });
        this.#take(change.identity)?.reject(unavailable(change.identity, change.reason));
        break;
      case 'forgotten':
        this.#current.delete(change.identity);
        this.#unavailable.delete(change.identity);
        this.#take(change.identity)?.reject(unavailable(change.identity, 'the identity is no longer needed'));
        break;
    }
  }

  async certificate(identity: SpiffeId): Promise<Certificate> {
    const current = this.#current.get(identity);
    if (current !== undefined) return current;
    const refusal = this.#unavailable.get(identity);
    if (refusal !== undefined && performance.now() - refusal.since < this.#unavailableMs)
      throw unavailable(identity, refusal.reason);
    return await (this.#waiting.get(identity) ?? this.#wait(identity)).answer;
  }

  #wait(identity: SpiffeId): Waiting {
    const { promise: answer, resolve, reject } = Promise.withResolvers<Certificate>();
    const giveUp = (): void =>
      this.#take(identity)?.reject(unavailable(identity, `none within ${this.#waitMs} ms; see the agent's log`));
    const waiting = { answer, resolve, reject, timer: setTimeout(giveUp, this.#waitMs).unref() };
    this.#waiting.set(identity, waiting);
    this.#deps.want(identity);
    return waiting;
  }

  #take(identity: SpiffeId): Waiting | undefined {
    const waiting = this.#waiting.get(identity);
    clearTimeout(waiting?.timer);
    this.#waiting.delete(identity);
    return waiting;
  }
}

function unavailable(identity: SpiffeId, reason: string): HboneError {
  return new HboneError('IDENTITY_UNAVAILABLE', `identity error: no certificate for ${identity}: ${reason}`);
}
