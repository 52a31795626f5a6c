import type uPlot from 'uplot';
import { el, keepChildren, setText } from './dom.ts';
import { clockTime } from './format.ts';
import { colour, onTheme } from './theme.ts';
import { loadUplot } from './vendor.ts';

export interface ChartSeries {
  readonly title: string;
  /** Name of a colour of the style sheet. */
  readonly colour: string;
  /** So that lines differ in more than their colour. */
  readonly dash?: readonly number[];
}

export interface ChartOptions {
  readonly title: string;
  /** What is drawn upwards, in words. */
  readonly unit: string;
  readonly series: readonly ChartSeries[];
  /** Areas on top of each other: parts of a whole. */
  readonly isStacked?: boolean;
  readonly format: (value: number) => string;
  /** The axis goes in steps of 1,024. */
  readonly isBinary?: boolean;
}

const HEIGHT = 150;
const BINARY_STEPS = Array.from({ length: 50 }, (_, power) => 2 ** power);
/** A step of the axis is not less wide than this many pixels. */
const STEP_PX = 90;

/** A chart with its legend, which shows the values under the pointer, or the last ones. */
export class Chart {
  readonly element: HTMLElement;
  readonly #options: ChartOptions;
  readonly #canvas = el('div', { class: 'chart-canvas', role: 'img' });
  readonly #legend = el('ul', { class: 'legend' });
  readonly #when = el('span', { class: 'chart-when' });
  #plot: uPlot | undefined;
  #times: readonly number[] = [];
  #values: ReadonlyArray<ReadonlyArray<number | null>> = [];
  #pointed: number | undefined;
  #span = 0;

  constructor(options: ChartOptions) {
    this.#options = options;
    const heading = el('h2', { text: options.title });
    const unit = el('span', { class: 'chart-unit', text: options.unit });
    this.element = el(
      'section',
      { class: 'card chart' },
      el('header', {}, heading, unit, this.#when),
      this.#canvas,
      this.#legend,
    );
    new ResizeObserver(() => this.#resize()).observe(this.#canvas);
    onTheme(() => this.#redraw());
    this.#say();
  }

  /**
   * @param times seconds
   * @param values one row for each series, as long as `times`
   * @param span seconds that the chart is wide, whether or not there is something of all of them
   */
  set(times: readonly number[], values: ReadonlyArray<ReadonlyArray<number | null>>, span: number): void {
    this.#span = span;
    this.#times = times;
    this.#values = values;
    if (this.#plot === undefined) void this.#make();
    else this.#plot.setData(this.#data());
    this.#say();
  }

  async #make(): Promise<void> {
    const Plot = await loadUplot();
    if (this.#plot !== undefined || this.#canvas.clientWidth === 0) return;
    this.#plot = new Plot(this.#plotOptions(), this.#data(), this.#canvas);
    this.#say();
  }

  #redraw(): void {
    if (this.#plot === undefined) return;
    this.#plot.destroy();
    this.#plot = undefined;
    void this.#make();
  }

  #resize(): void {
    const width = this.#canvas.clientWidth;
    if (width === 0) return;
    if (this.#plot === undefined) void this.#make();
    else if (this.#plot.width !== width) this.#plot.setSize({ width, height: HEIGHT });
  }

  /** Stacked: each series has those below it in it; the topmost is drawn first. */
  #data(): uPlot.AlignedData {
    const rows = this.#values.map((row) => [...row]);
    if (this.#options.isStacked === true) {
      for (let at = 1; at < rows.length; at += 1) {
        const below = rows[at - 1] ?? [];
        rows[at] = (rows[at] ?? []).map((value, index) => (value ?? 0) + (below[index] ?? 0));
      }
    }
    return [[...this.#times], ...this.#drawn(rows)];
  }

  #drawn<T>(rows: readonly T[]): T[] {
    return this.#options.isStacked === true ? [...rows].reverse() : [...rows];
  }

  #plotOptions(): uPlot.Options {
    const { series, isStacked, format, isBinary } = this.#options;
    const axis = { stroke: colour('muted'), font: '11px system-ui, sans-serif', ticks: { show: false } };
    return {
      width: this.#canvas.clientWidth,
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: 'culvert' }, drag: { x: false, y: false }, points: { size: 5 }, y: false },
      scales: {
        x: { time: true, range: (_plot, _least, most) => [most - this.#span, most] },
        y: { range: (_plot, _least, most) => [0, Math.max(most * 1.12, 0.001)] },
      },
      axes: [
        { ...axis, size: 26, space: STEP_PX, grid: { show: false }, values: (_plot, at) => at.map(hourAndMinute) },
        {
          ...axis,
          size: 62,
          space: 34,
          ...(isBinary === true ? { incrs: BINARY_STEPS } : {}),
          grid: { stroke: colour('line'), width: 1 },
          values: (_plot, at) => at.map((value) => (value === 0 ? '0' : format(value))),
        },
      ],
      series: [
        {},
        ...this.#drawn(series).map((each) => ({
          stroke: colour(each.colour),
          width: isStacked === true ? 1 : 1.6,
          // One sample makes no line.
          points: { show: (plot: uPlot) => plot.data[0].length < 2, size: 5 },
          ...(each.dash === undefined ? {} : { dash: [...each.dash] }),
          ...(isStacked === true ? { fill: colour(each.colour) } : {}),
        })),
      ],
      hooks: { setCursor: [(plot) => this.#point(plot.cursor.idx ?? undefined)] },
    };
  }

  #point(at: number | undefined): void {
    if (this.#pointed === at) return;
    this.#pointed = at;
    this.#say();
  }

  #say(): void {
    const at = this.#pointed ?? this.#times.length - 1;
    const { series, format, title } = this.#options;
    const said = series.map((each, index) => {
      const value = this.#values[index]?.[at];
      return { ...each, value: value === null || value === undefined ? '–' : format(value) };
    });
    keepChildren(
      this.#legend,
      said,
      (each) => each.title,
      (each) => {
        const mark = el('span', { class: 'mark', 'data-colour': each.colour, 'data-dashed': each.dash && 'yes' });
        return el('li', {}, mark, el('span', { text: each.title }), el('b'));
      },
      (element, each) => {
        if (element.lastElementChild !== null) setText(element.lastElementChild, each.value);
      },
    );
    const seconds = this.#times[at];
    setText(this.#when, this.#pointed === undefined || seconds === undefined ? '' : clockTime(seconds * 1_000));
    this.#canvas.setAttribute(
      'aria-label',
      `${title}, at present: ${said.map((each) => `${each.title} ${each.value}`).join(', ')}`,
    );
  }
}

function hourAndMinute(seconds: number): string {
  return clockTime(seconds * 1_000).slice(0, 5);
}
