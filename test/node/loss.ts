import type { LabPod } from '../lab/index.ts';
import { settled } from './inspect.ts';

/** Drops what matches, as it comes into a pod, until it is to pass. */
export class Loss {
  readonly #pod: LabPod;
  readonly #table: string;

  private constructor(pod: LabPod, table: string) {
    this.#pod = pod;
    this.#table = table;
  }

  static async begin(pod: LabPod, name: string, match: string): Promise<Loss> {
    const loss = new Loss(pod, `inet ${name}`);
    const hook = 'type filter hook prerouting priority 0;';
    await loss.#nft(
      `add table inet ${name}; add chain inet ${name} in { ${hook} }; add rule inet ${name} in ${match} counter drop`,
    );
    return loss;
  }

  /** Waits until something is lost. */
  async happens(): Promise<void> {
    const isTold = (listed: string): boolean => /counter packets [1-9]/.test(listed);
    const last = await settled(() => this.#nft(`list table ${this.#table}`), isTold);
    if (!isTold(last)) throw new Error(`nothing is lost: ${last}`);
  }

  async end(): Promise<void> {
    await this.#nft(`delete table ${this.#table}`);
  }

  async #nft(commands: string): Promise<string> {
    const { code, stdout, stderr } = await this.#pod.exec(['nft', commands], { restricted: false });
    if (code !== 0) throw new Error(`nft: ${stderr}`);
    return stdout;
  }
}
