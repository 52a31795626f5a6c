/**
 * The state file: which pods are enrolled, so that an agent started again in the same boot serves them again.
 * It is a memory, not the truth: what is captured stands in the kernel's pins, and without the file those stay closed.
 */
import * as disk from 'node:fs/promises';
import { z } from 'zod';
import { codeOf, messageOf, type NetnsCookie, type Pod } from '../mesh/index.ts';
import type { Log } from '../telemetry/index.ts';
import { AgentError } from './errors.ts';
import { encodePod, parsePod } from './protocol.ts';

const STATE_SCHEMA = 1;

export interface SavedPod {
  readonly pod: Pod;
  readonly cookie: NetnsCookie;
  /** Its withdrawal has begun and must be finished. */
  readonly withdrawing: boolean;
}

const fileForm = z.strictObject({
  schema: z.literal(STATE_SCHEMA),
  bootId: z.string().min(1),
  pods: z.array(z.unknown()),
});
const entryForm = z.strictObject({
  pod: z.unknown(),
  netnsCookie: z.string().regex(/^[1-9][0-9]{0,19}$/),
  withdrawing: z.boolean(),
});
/** As much of an entry that is refused as tells which it is. */
const entryName = z.object({ pod: z.object({ uid: z.string() }) });

type StateDisk = Pick<typeof disk, 'open' | 'rename' | 'readFile' | 'copyFile'>;

interface StateFileDeps {
  readonly log: Log;
  readonly fs?: StateDisk;
}

interface StateFileOptions {
  readonly path: string;
  /** Of this boot: netns cookies of another boot mean nothing. */
  readonly bootId: string;
}

/** One save on disk, for everybody who asked before its content was read. */
interface Save {
  readonly done: Promise<void>;
  started: boolean;
}

export class StateFile {
  readonly #log: Log;
  readonly #fs: StateDisk;
  readonly #options: StateFileOptions;
  #last: Save | undefined;

  constructor(deps: StateFileDeps, options: StateFileOptions) {
    this.#log = deps.log;
    this.#fs = deps.fs ?? disk;
    this.#options = options;
  }

  /**
   * The pods saved in this boot. What is not understood, the file or single pods of it, is kept aside for people to look at.
   *
   * @throws AgentError STATE_UNREADABLE: whoever went on would write an empty file in its place
   */
  async read(): Promise<SavedPod[]> {
    const { path, bootId } = this.#options;
    let text: string;
    try {
      text = await this.#fs.readFile(path, 'utf8');
    } catch (cause) {
      if (codeOf(cause) === 'ENOENT') return [];
      const message = `cannot read ${path}: ${messageOf(cause)}; it names the pods to serve again: mend the cause, or remove the file`;
      throw new AgentError('STATE_UNREADABLE', message, { cause });
    }
    let file: z.infer<typeof fileForm>;
    try {
      file = fileForm.parse(JSON.parse(text));
    } catch (error) {
      await this.#keepAside(error);
      return [];
    }
    if (file.bootId !== bootId) {
      this.#log.info({ path }, 'the state file is of an earlier boot; ignored');
      return [];
    }
    const pods = file.pods.flatMap((entry, at) => this.#readEntry(entry, at));
    if (pods.length < file.pods.length) await this.#keepCopy();
    return pods;
  }

  /** One entry; that it is not understood must not cost the other pods their place. */
  #readEntry(entry: unknown, at: number): SavedPod[] {
    try {
      const { pod, netnsCookie, withdrawing } = entryForm.parse(entry);
      return [{ pod: parsePod(pod), cookie: BigInt(netnsCookie) as NetnsCookie, withdrawing }];
    } catch (error) {
      const pod = entryName.safeParse(entry).data?.pod.uid;
      this.#log.error(
        { error, entry: at, pod },
        'a pod of the state file is not understood; it stays closed until it is enrolled again',
      );
      return [];
    }
  }

  /**
   * Writes what `snapshot` returns; resolves when it is safe on disk. Calls that arrive during a write share the next one.
   *
   * @throws AgentError STATE_UNWRITABLE; the file is then as it was
   */
  save(snapshot: () => readonly SavedPod[]): Promise<void> {
    const last = this.#last;
    if (last !== undefined && !last.started) return last.done;
    const before = last?.done.catch(() => undefined) ?? Promise.resolve();
    const save: Save = {
      started: false,
      done: before.then(() => {
        save.started = true;
        return this.#write(snapshot());
      }),
    };
    this.#last = save;
    return save.done;
  }

  async #write(pods: readonly SavedPod[]): Promise<void> {
    const { path, bootId } = this.#options;
    const next = `${path}.new`;
    const content = {
      schema: STATE_SCHEMA,
      bootId,
      pods: pods.map(({ pod, cookie, withdrawing }) => ({
        pod: encodePod(pod),
        netnsCookie: String(cookie),
        withdrawing,
      })),
    };
    try {
      await using file = await this.#fs.open(next, 'w', 0o600);
      await file.chmod(0o600);
      await file.writeFile(`${JSON.stringify(content)}\n`);
      // Not synced to the disk: what was saved means nothing in another boot, and a killed agent loses nothing of it.
      await this.#fs.rename(next, path);
    } catch (cause) {
      throw new AgentError('STATE_UNWRITABLE', `cannot write ${path}; is its file system full or read-only?`, {
        cause,
      });
    }
  }

  async #keepCopy(): Promise<void> {
    const { path } = this.#options;
    const aside = `${path}.corrupt`;
    try {
      await this.#fs.copyFile(path, aside);
      this.#log.info({ path, kept: aside }, 'a copy of the state file was kept aside');
    } catch (error) {
      this.#log.error({ error, path }, 'a copy of the state file cannot be kept aside');
    }
  }

  async #keepAside(error: unknown): Promise<void> {
    const { path } = this.#options;
    const aside = `${path}.corrupt`;
    try {
      await this.#fs.rename(path, aside);
      this.#log.error(
        { error, path, kept: aside },
        'the state file is not understood and was kept aside; pods captured earlier stay closed until they are enrolled again',
      );
    } catch (renameError) {
      this.#log.error({ error: renameError, path }, 'the state file is not understood and cannot be kept aside');
    }
  }
}
