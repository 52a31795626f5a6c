import type { Overview, OverviewSample } from '../../telemetry/index.ts';
import { ask } from './api.ts';
import { Chart } from './chart.ts';
import { el, keepChildren, setAttribute, setText, show } from './dom.ts';
import { byteRate, bytes, count, duration, milliseconds, rate } from './format.ts';
import type { Page } from './page.ts';
import { PATH_NAMES, PATHS } from './paths.ts';

const WINDOWS = { '15 min': 180, '1 h': 720 } as const;
/** An hour, every 5 s. */
const MOST_SAMPLES = 720;
const SECONDS_OF_A_SAMPLE = 5;

interface Tile {
  readonly title: string;
  readonly value: (sample: OverviewSample, overview: Overview) => string;
  readonly note: (sample: OverviewSample, overview: Overview) => string;
  readonly tone?: (sample: OverviewSample, overview: Overview) => string | undefined;
}

const TILES: readonly Tile[] = [
  {
    title: 'New connections',
    value: (sample) => rate(openedOf(sample)),
    note: (sample) => `per second, ${rate(sample.opened.kernel)} on the kernel path`,
  },
  { title: 'Open connections', value: (sample) => count(sample.open), note: () => 'at this moment' },
  {
    title: 'Traffic',
    value: (sample) => byteRate(sample.bytesSent + sample.bytesReceived),
    note: (sample) => `sent ${byteRate(sample.bytesSent)}, received ${byteRate(sample.bytesReceived)}`,
  },
  {
    title: 'Time to connect',
    value: (sample) => milliseconds(sample.connectP50Ms),
    note: (sample) => `median; 99 % within ${milliseconds(sample.connectP99Ms)}`,
  },
  {
    title: 'Failed',
    value: (sample) => rate(sample.failed),
    note: () => 'per second, those denied among them',
    tone: (sample) => (sample.failed > 0 ? 'bad' : undefined),
  },
  {
    title: 'Denied by policy',
    value: (sample) => rate(sample.denied),
    note: () => 'per second',
    tone: (sample) => (sample.denied > 0 ? 'warn' : undefined),
  },
  {
    title: 'Pods in the mesh',
    value: (_sample, { pods }) => count(pods.enrolled),
    note: (_sample, { pods }) => (pods.notServed === 0 ? 'all served' : `${pods.notServed} not served`),
    tone: (_sample, { pods }) => (pods.notServed > 0 ? 'bad' : undefined),
  },
  {
    title: 'Agent',
    value: (_sample, { state }) => state,
    note: (sample, { version, startedAt }) => `${version}, up ${duration(Math.max(0, sample.at - startedAt))}`,
  },
];

const NO_SAMPLE: OverviewSample = {
  at: 0,
  opened: { kernel: 0, tunnel: 0, plain: 0, passthrough: 0 },
  open: 0,
  failed: 0,
  denied: 0,
  bytesSent: 0,
  bytesReceived: 0,
  connectP50Ms: undefined,
  connectP99Ms: undefined,
};

export class OverviewPage implements Page {
  readonly title = 'Overview';
  readonly element = el('div', { class: 'page overview' });
  readonly #alerts = el('ul', { class: 'alerts', 'aria-label': 'What needs attention' });
  readonly #calm = el('p', { class: 'calm', text: 'Nothing needs attention.' });
  readonly #tiles = el('dl', { class: 'tiles' });
  readonly #charts = chartsOf();
  #samples: OverviewSample[] = [];
  #newest: Overview | undefined;
  #shown: number = WINDOWS['15 min'];
  #hasHistory = false;

  constructor() {
    const heading = el('div', { class: 'page-head' }, el('h1', { text: this.title }), this.#windowSwitch());
    const charts = el('div', { class: 'charts' }, ...this.#charts.map(({ chart }) => chart.element));
    this.element.append(heading, this.#calm, this.#alerts, this.#tiles, charts);
  }

  enter(): void {
    this.#hasHistory = false;
    this.#draw();
  }

  async refresh(): Promise<void> {
    if (this.#hasHistory) return;
    const overview = await ask('overview');
    this.#hasHistory = true;
    this.#samples = [];
    this.overview(overview);
  }

  /** The stream was away: what it would have brought must be asked for. */
  reconnected(): void {
    this.#hasHistory = false;
  }

  overview(overview: Overview): void {
    this.#newest = overview;
    const last = this.#samples.at(-1)?.at ?? 0;
    this.#samples.push(...overview.samples.filter(({ at }) => at > last));
    this.#samples.splice(0, this.#samples.length - MOST_SAMPLES);
    if (this.element.isConnected) this.#draw();
  }

  #draw(): void {
    const overview = this.#newest;
    if (overview === undefined) return;
    this.#drawAlerts(overview);
    const newest = this.#samples.at(-1) ?? { ...NO_SAMPLE, at: overview.startedAt };
    keepChildren(
      this.#tiles,
      TILES,
      ({ title }) => title,
      ({ title }) => el('div', { class: 'tile' }, el('dt', { text: title }), el('dd', { class: 'value' }), el('dd')),
      (element, tile) => {
        const [, value, note] = element.children;
        if (value !== undefined) setText(value, tile.value(newest, overview));
        if (note !== undefined) setText(note, tile.note(newest, overview));
        setAttribute(element, 'data-tone', tile.tone?.(newest, overview));
      },
    );
    const samples = this.#samples.slice(-this.#shown);
    const times = samples.map(({ at }) => at / 1_000);
    for (const { chart, values } of this.#charts)
      chart.set(
        times,
        values.map((read) => samples.map(read)),
        this.#shown * SECONDS_OF_A_SAMPLE,
      );
  }

  #drawAlerts({ alerts }: Overview): void {
    show(this.#calm, alerts.length === 0);
    show(this.#alerts, alerts.length > 0);
    keepChildren(
      this.#alerts,
      alerts,
      ({ text }) => text,
      ({ severity, text }) =>
        el(
          'li',
          { 'data-severity': severity },
          el('span', { class: 'severity', text: severity }),
          el('span', { text }),
        ),
      (element, { severity }) => setAttribute(element, 'data-severity', severity),
    );
  }

  #windowSwitch(): HTMLElement {
    const group = el('div', { class: 'switch', role: 'group', 'aria-label': 'Time shown' });
    for (const [title, samples] of Object.entries(WINDOWS)) {
      const button = el('button', { type: 'button', text: title, 'aria-pressed': `${samples === this.#shown}` });
      button.addEventListener('click', () => {
        this.#shown = samples;
        for (const each of group.children) setAttribute(each, 'aria-pressed', `${each === button}`);
        this.#draw();
      });
      group.append(button);
    }
    return group;
  }
}

type Read = (sample: OverviewSample) => number | null;

function chartsOf(): ReadonlyArray<{ readonly chart: Chart; readonly values: readonly Read[] }> {
  return [
    {
      chart: new Chart({
        title: 'New connections by path',
        unit: 'per second',
        series: PATHS.map((path) => ({ title: PATH_NAMES[path] ?? path, colour: `path-${path}` })),
        isStacked: true,
        format: rate,
      }),
      values: PATHS.map(
        (path): Read =>
          (sample) =>
            sample.opened[path],
      ),
    },
    {
      chart: new Chart({
        title: 'Traffic',
        unit: 'per second',
        series: [
          { title: 'sent', colour: 'series-1' },
          { title: 'received', colour: 'series-2', dash: [5, 3] },
        ],
        format: bytes,
        isBinary: true,
      }),
      values: [(sample) => sample.bytesSent, (sample) => sample.bytesReceived],
    },
    {
      chart: new Chart({
        title: 'Time to connect',
        unit: 'milliseconds',
        series: [
          { title: 'median', colour: 'series-1' },
          { title: '99 %', colour: 'series-2', dash: [5, 3] },
        ],
        format: (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}`,
      }),
      values: [(sample) => sample.connectP50Ms ?? null, (sample) => sample.connectP99Ms ?? null],
    },
    {
      chart: new Chart({
        title: 'Failed and denied',
        unit: 'per second',
        series: [
          { title: 'failed', colour: 'bad' },
          { title: 'denied', colour: 'warn', dash: [5, 3] },
        ],
        format: rate,
      }),
      values: [(sample) => sample.failed, (sample) => sample.denied],
    },
  ];
}

function openedOf({ opened }: OverviewSample): number {
  return opened.kernel + opened.tunnel + opened.plain + opened.passthrough;
}
