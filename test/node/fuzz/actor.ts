/** The apps of a pod: one that answers for it, and one that connects as it is told. See attempt.c. */
import { apps, type LabPod, type LabProcess } from '../../lab/index.ts';
import { APP_PORTS } from './model.ts';

/** What became of one connection. */
export type Outcome =
  | {
      readonly kind: 'answered';
      /** Whose app it was. */
      readonly tag: string;
      /** How it reached that app, and how it left this one: by an agent (`l`) or directly (`d`). */
      readonly server: string;
      readonly client: string;
    }
  | { readonly kind: 'failed'; readonly error: string };

/** A guard against hanging. */
const hangMs = 120_000;

export class Actor {
  readonly #app: LabProcess;
  readonly #waiting: Map<number, (words: string[]) => void>;
  #count = 0;

  private constructor(app: LabProcess, waiting: Map<number, (words: string[]) => void>) {
    this.#app = app;
    this.#waiting = waiting;
  }

  static async start(pod: LabPod, tag: string): Promise<Actor> {
    const [first] = APP_PORTS;
    const server = pod.run(await apps.answer({ port: first, ports: APP_PORTS.length, tag }));
    const waiting = new Map<number, (words: string[]) => void>();
    const onLine = (line: string): void => {
      const [id = '', ...words] = line.split(' ');
      waiting.get(Number(id))?.(words);
    };
    const client = pod.run(await apps.attempt(), { onLine });
    await Promise.all([server.json({ event: 'listening' }), client.json({ event: 'ready' })]);
    return new Actor(client, waiting);
  }

  /** So many connections, one after the other. */
  async attempt(address: string, port: number, times: number): Promise<Outcome[]> {
    return (await this.#ask('try', `${address} ${port} ${times}`)).map(parse);
  }

  /** One connection, which stays open if it is answered. */
  async hold(address: string, port: number): Promise<{ id: number; outcome: Outcome }> {
    const id = this.#count + 1;
    const [word = ''] = await this.#ask('hold', `${address} ${port}`);
    return { id, outcome: parse(word) };
  }

  /** Whether a held connection still answers. It is forgotten if not. */
  async answers(id: number): Promise<boolean> {
    const [word = ''] = await this.#ask('ping', '', id);
    return word.startsWith('+');
  }

  /** Waits until a held connection has been ended by others. False: it has not been, for a long time. */
  async isEnded(id: number): Promise<boolean> {
    return (await this.#ask('gone', '', id)).includes('gone');
  }

  /** Closes a held connection. */
  async drop(id: number): Promise<void> {
    await this.#ask('drop', '', id);
  }

  async #ask(verb: string, rest: string, about?: number): Promise<string[]> {
    if (about === undefined) this.#count += 1;
    const id = about ?? this.#count;
    const { promise, resolve, reject } = Promise.withResolvers<string[]>();
    this.#waiting.set(id, resolve);
    void this.#app.exit.then(() => reject(new Error(`the app has ended: ${this.#app.stderr}`)));
    const deadline = setTimeout(() => reject(new Error(`no answer to ${verb} ${id} ${rest}`)), hangMs);
    this.#app.write(`${verb} ${id} ${rest}\n`);
    try {
      return await promise;
    } finally {
      clearTimeout(deadline);
      this.#waiting.delete(id);
    }
  }
}

function parse(word: string): Outcome {
  const [sign = '', tag = '', server = '', client = ''] = word;
  return sign === '+' ? { kind: 'answered', tag, server, client } : { kind: 'failed', error: word.slice(1) };
}
