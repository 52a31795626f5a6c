import type { FlowSink } from '../../mesh/index.ts';
import type { LabelOptions } from '../../telemetry/index.ts';
import { FlowEnds, type FlowEndsDeps, subjectsOf } from './flow-ends.ts';
import { FlowSubjects } from './flow-subjects.ts';
import type { LimitedLog } from './limited-log.ts';
import { PathSeries } from './path-series.ts';
import type { PathPods } from './pods.ts';
import type { FlowTable, PathModel, PathSeriesBook } from './ports.ts';
import { turn } from './rewriting.ts';
import type { SeriesJournal } from './series-journal.ts';

/** Who exposes Istio's counters of the kernel path. */
export interface SeriesDeps {
  readonly book: PathSeriesBook;
  /** Where they are kept for the next agent. Default: nowhere. */
  readonly journal?: SeriesJournal;
}

interface FlowCountingDeps extends Omit<FlowEndsDeps, 'subjects' | 'series' | 'table' | 'flows' | 'limited'> {
  readonly table: Pick<FlowTable, 'flowRecords' | 'sampleFlows'>;
  readonly model: PathModel;
  readonly pods: Pick<PathPods, 'get'>;
  readonly flows: FlowSink | undefined;
  readonly series: SeriesDeps | undefined;
  readonly limited: Pick<LimitedLog, 'info' | 'error'>;
}

export interface FlowCountingOptions {
  /** How the counters call the security of a connection between two pods of this node. Default: `kernel`. */
  readonly kernelPathAs?: LabelOptions['kernelPathAs'];
  /** Seconds after which counters of which nothing is open or counted are given up. Default: 600. */
  readonly seriesIdleSeconds?: number;
}

/** The loop is not held up for longer by connections that are over: what does not fit waits in the kernel's ring, which holds 26,000 of them. */
const ENDS_MS = 20;
/** Between looks for counters that are idle. */
const SWEEP_SECONDS = 10;

/** Tells of flows that are over, and counts them, and what those move that are not. */
export class FlowCounting {
  readonly #table: FlowCountingDeps['table'];
  readonly #ends: FlowEnds;
  readonly #series: PathSeries | undefined;
  readonly #limited: FlowCountingDeps['limited'];
  #sweptAt = 0;

  constructor(deps: FlowCountingDeps, options: FlowCountingOptions) {
    const { model, pods } = deps;
    const subjects = new FlowSubjects({ model, pods });
    this.#table = deps.table;
    this.#limited = deps.limited;
    this.#series = seriesOf(deps.series, options, subjects);
    this.#ends = new FlowEnds({ ...deps, subjects, series: this.#series });
  }

  /** Goes on from where an earlier agent was. */
  begin(): void {
    this.#series?.restore();
  }

  /**
   * Takes what there is. Ends first: what has ended is not measured any more.
   *
   * @param seconds of a clock that never goes back
   */
  run(seconds: number): void {
    this.#ends.read(turn(ENDS_MS));
    if (this.#series === undefined) return;
    try {
      this.#count(this.#series, seconds);
    } catch (error) {
      // Nothing goes another way because it cannot be counted.
      this.#limited.error({ error }, 'open flows could not be counted; trying again');
    }
  }

  #count(series: PathSeries, seconds: number): void {
    series.sampled(this.#table.sampleFlows());
    if (seconds - this.#sweptAt >= SWEEP_SECONDS) {
      this.#sweptAt = seconds;
      series.sweep(seconds);
    }
    series.commit();
  }

  /** What has been counted is kept for the next agent. */
  stop(): void {
    this.#series?.close();
  }

  totals(): ReturnType<FlowEnds['totals']> {
    return this.#ends.totals();
  }
}

function seriesOf(
  series: SeriesDeps | undefined,
  { kernelPathAs = 'kernel', seriesIdleSeconds: idleSeconds }: FlowCountingOptions,
  subjects: FlowSubjects,
): PathSeries | undefined {
  return (
    series &&
    new PathSeries(
      { book: series.book, journal: series.journal, subjectsOf: (sample) => subjectsOf(subjects.of(sample)) },
      { kernelPathAs, ...(idleSeconds === undefined ? {} : { idleSeconds }) },
    )
  );
}
