/** Connections that are held open, and a steady stream of new ones. */
import { apps, type LabPod, type LabProcess } from '../lab/index.ts';

/** Longest wait for what should happen at once: a guard against hanging. */
const hangMs = 120_000;

/** What became of held connections. */
export interface HeldState {
  readonly open: number;
  /** Closed without having been asked to. */
  readonly lost: number;
  /** How many ended with which error. */
  readonly errors: Readonly<Record<string, number>>;
}

/** Connections of one app, open and waiting. Their server echoes. */
export class Held {
  readonly #app: LabProcess;

  private constructor(app: LabProcess) {
    this.#app = app;
  }

  /** Opens them, `rate` in a second, and waits until a word has gone through each, there and back. */
  static async open(from: LabPod, to: readonly string[], count: number, rate = 500): Promise<Held> {
    const app = from.run(apps.hold({ count, to, rate }));
    const { open, errors } = await app.json({ event: 'held' }, hangMs);
    if (open !== count) throw new Error(`${open} of ${count} are open: ${JSON.stringify(errors)}`);
    const held = new Held(app);
    const answering = await held.alive();
    if (answering !== count) throw new Error(`${answering} of ${count} answer: ${JSON.stringify(await held.state())}`);
    return held;
  }

  /** How many carry a word there and back; the rest has closed meanwhile. */
  async alive(): Promise<number> {
    this.#app.write('ping\n');
    return Number((await this.#app.json({ event: 'ping' }, hangMs)).alive);
  }

  async state(): Promise<HeldState> {
    this.#app.write('state\n');
    const { open, lost, errors } = await this.#app.json({ event: 'state' }, hangMs);
    return { open, lost, errors } as HeldState;
  }

  /** Closes them, and returns what became of them until then. */
  async close(): Promise<HeldState> {
    this.#app.write('close\n');
    const { open, lost, errors } = await this.#app.json({ event: 'end' }, hangMs);
    await this.#app.exit;
    return { open, lost, errors } as HeldState;
  }
}

/** What became of a stream of short connections. */
export interface LoadEnd {
  readonly started: number;
  readonly answered: number;
  readonly errors: Readonly<Record<string, number>>;
}

/** Short connections, one after the other, at a rate, until they are to end. Their server echoes. */
export class Load {
  readonly #app: LabProcess;

  private constructor(app: LabProcess) {
    this.#app = app;
  }

  static async start(from: LabPod, to: readonly string[], rate: number): Promise<Load> {
    const app = from.run(await apps.load({ rate, seconds: 86_400, to, atOnce: 1000 }));
    await app.json({ event: 'started' }, hangMs);
    return new Load(app);
  }

  async end(): Promise<LoadEnd> {
    this.#app.signal('SIGTERM');
    const { started, answered, errors } = await this.#app.json({ event: 'end' }, hangMs);
    await this.#app.exit;
    return { started, answered, errors } as LoadEnd;
  }
}
