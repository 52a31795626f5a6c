import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Registry } from 'prom-client';

export type ExpositionFormat = 'plain' | 'openmetrics';

/** A family that writes its own lines, since it may have very many of them. */
export interface TextFamily {
  /** As it is exposed: that of a counter ends in `_total`. */
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram' | 'summary';
  readonly help: string;
  /** Whole lines, some hundred at a time: others have their turn between two slices. */
  slices(): Iterable<string>;
}

/** A slice may hold the thread for so long before others have their turn. */
const TURN_MS = 2;
const TOTAL = /_total$/;

/** Everything that is exposed, as text: prom-client's families, then those that write themselves. */
export class Exposition {
  readonly #registry: Registry;
  readonly #families: TextFamily[] = [];
  readonly #running = new Map<ExpositionFormat, Promise<readonly Buffer[]>>();
  #last: Promise<unknown> = Promise.resolve();
  #leftOut = 0;

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  add(families: readonly TextFamily[]): void {
    this.#families.push(...families);
  }

  /** Families that a fault kept out of a text, since the start. */
  get leftOut(): number {
    return this.#leftOut;
  }

  /** Of every family, whether or not there is a sample of it. */
  families(): readonly FamilyHead[] {
    return [
      ...this.#registry.getMetricsAsArray().map(({ name, type, help }) => ({ name, type: `${type}`, help })),
      ...this.#families,
    ];
  }

  /**
   * The text, in pieces. One is made at a time: who asks while the same one is being made, waits for it; and for the other
   * format, until the thread is free for it.
   */
  render(format: ExpositionFormat): Promise<readonly Buffer[]> {
    const running = this.#running.get(format);
    if (running !== undefined) return running;
    const made = this.#last
      .then(() => this.#render(format))
      .finally(() => {
        this.#running.delete(format);
      });
    this.#running.set(format, made);
    this.#last = made.catch(() => undefined);
    return made;
  }

  async #render(format: ExpositionFormat): Promise<readonly Buffer[]> {
    const pieces: Buffer[] = [];
    let since = performance.now();
    const breathe = async (): Promise<void> => {
      if (performance.now() - since < TURN_MS) return;
      await nextTurn();
      since = performance.now();
    };
    for (const { name, help, type } of this.#registry.getMetricsAsArray()) {
      await this.#part(pieces, async (part) => {
        const lines = samplesOf(await this.#registry.getSingleMetricAsString(name));
        if (lines !== '') part.push(Buffer.from(`${header({ name, help, type: `${type}` }, format)}${lines}\n`));
      });
      await breathe();
    }
    for (const family of this.#families) {
      await this.#part(pieces, async (part) => {
        for (const slice of family.slices()) {
          if (slice !== '') part.push(Buffer.from(part.length === 0 ? header(family, format) + slice : slice));
          await breathe();
        }
      });
    }
    if (format === 'openmetrics') pieces.push(Buffer.from('# EOF\n'));
    return pieces;
  }

  /** One family: whole, or not at all. A fault of one, a source that throws say, must not hide all others. */
  async #part(pieces: Buffer[], write: (part: Buffer[]) => Promise<void>): Promise<void> {
    const part: Buffer[] = [];
    try {
      await write(part);
      for (const piece of part) pieces.push(piece);
    } catch {
      this.#leftOut += 1;
    }
  }
}

/** What stands above a family's samples. */
export interface FamilyHead {
  readonly name: string;
  readonly help: string;
  readonly type: string;
}

/** OpenMetrics names a counter without its `_total`. */
function header({ name, help, type }: FamilyHead, format: ExpositionFormat): string {
  const named = format === 'openmetrics' && type === 'counter' ? name.replace(TOTAL, '') : name;
  return `# HELP ${named} ${help}\n# TYPE ${named} ${type}\n`;
}

/** Without the two lines of the header. */
function samplesOf(text: string): string {
  const afterHelp = text.indexOf('\n');
  const afterType = text.indexOf('\n', afterHelp + 1);
  return afterType < 0 ? '' : text.slice(afterType + 1);
}

/** A label's value between its quotes. */
export function escapeLabel(value: string): string {
  return /[\\\n"]/.test(value) ? value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"') : value;
}

/** `{name="value",...}`; nothing where there are none. */
export function labelText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return parts.length === 0 ? '' : `{${parts.join(',')}}`;
}
