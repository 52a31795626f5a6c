import { Counter, Gauge, type Registry } from 'prom-client';
import type { MetricSources } from './metric-sources.ts';

type Labels = Readonly<Record<string, string>>;
export type Sample = readonly [labels: Labels, value: number];
type Read<Value> = (sources: MetricSources) => Value | undefined;

/** Families whose numbers somebody else keeps: read whenever they are exposed. */
export class MirroredFamilies {
  readonly #registers: Registry[];
  readonly #sources: () => MetricSources;

  constructor(registry: Registry, sources: () => MetricSources) {
    this.#registers = [registry];
    this.#sources = sources;
  }

  gauge(name: string, help: string, read: Read<number>): void {
    this.gauges([], name, help, (sources) => one(read(sources)));
  }

  counter(name: string, help: string, read: Read<number>): void {
    this.counters([], name, help, (sources) => one(read(sources)));
  }

  /** A counter by one label. */
  counterBy(label: string, name: string, help: string, read: Read<Readonly<Record<string, number>>>): void {
    this.counters([label], name, help, (sources) => by(label, read(sources)));
  }

  gauges(labelNames: string[], name: string, help: string, read: (sources: MetricSources) => Iterable<Sample>): void {
    const sources = this.#sources;
    new Gauge({
      ...{ name, help, labelNames, registers: this.#registers },
      collect() {
        this.reset();
        if (labelNames.length === 0) this.remove();
        for (const [labels, value] of read(sources())) this.set(labels, value);
      },
    });
  }

  /** Counters that somebody else keeps: set, not added to, whenever they are read. */
  counters(labelNames: string[], name: string, help: string, read: (sources: MetricSources) => Iterable<Sample>): void {
    const sources = this.#sources;
    new Counter({
      ...{ name, help, labelNames, registers: this.#registers },
      collect() {
        this.reset();
        if (labelNames.length === 0) this.remove();
        for (const [labels, value] of read(sources())) this.inc(labels, value);
      },
    });
  }
}

function one(value: number | undefined): Sample[] {
  return value === undefined ? [] : [[{}, value]];
}

/** A sample for each value of one label. */
export function by(label: string, counts: Readonly<Record<string, number | undefined>> | undefined): Sample[] {
  return Object.entries(counts ?? {}).flatMap(([value, count]) =>
    count === undefined ? [] : [[{ [label]: value }, count]],
  );
}
