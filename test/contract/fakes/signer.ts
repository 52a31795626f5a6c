import type { NodeSigner } from '../../../src/control/index.ts';
import type { SignedCertificate, SigningRequest } from '../../../src/identity/index.ts';

/** A CA that signs whatever it is asked to, with words for certificates. */
export class FakeSigner implements NodeSigner {
  readonly asked: Array<{ node: string; request: SigningRequest }> = [];
  /** What the next requests fail with. */
  failure: Error | undefined;
  #roots: readonly string[] = ['root 1'];
  #gate: Promise<void> = Promise.resolve();
  #listener: ((roots: readonly string[]) => void) | undefined;

  async sign(node: string, request: SigningRequest): Promise<SignedCertificate> {
    this.asked.push({ node, request });
    await this.#gate;
    if (this.failure !== undefined) throw this.failure;
    return { chain: ['leaf'], roots: this.#roots };
  }

  roots(): readonly string[] {
    return this.#roots;
  }

  onRoots(listener: (roots: readonly string[]) => void): void {
    this.#listener = listener;
  }

  rotate(roots: readonly string[]): void {
    this.#roots = roots;
    this.#listener?.(roots);
  }

  /** Requests wait until the returned function is called. */
  hold(): () => void {
    const gate = Promise.withResolvers<void>();
    this.#gate = gate.promise;
    return gate.resolve;
  }
}
