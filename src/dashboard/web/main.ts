import type { Overview } from '../../telemetry/index.ts';
import { byId, el, setAttribute, setBadge, setText, show } from './dom.ts';
import { FlowsPage } from './flows.ts';
import { Live, type LiveState } from './live.ts';
import { MapPage } from './map.ts';
import { NodePage } from './node.ts';
import { OverviewPage } from './overview.ts';
import type { Page } from './page.ts';
import { PodsPage } from './pods.ts';
import { PoliciesPage } from './policies.ts';
import { startTheme } from './theme.ts';

const MAKERS: Readonly<Record<string, () => Page>> = {
  overview: () => overview,
  map: () => new MapPage(),
  pods: () => new PodsPage(),
  flows: () => new FlowsPage(),
  policies: () => new PoliciesPage(),
  node: () => new NodePage(),
};

const LIVE_WORDS: Readonly<Record<LiveState, string>> = {
  waiting: 'connecting',
  live: 'live',
  lost: 'connection lost',
  paused: 'paused',
};

const overview = new OverviewPage();
const pages = new Map<string, Page>();
const main = byId('page');
const fault = el('p', { class: 'failure', role: 'alert' });
let current: Page = overview;
let isAsking = false;
let liveState: LiveState = 'waiting';

/** The address's part after #: `/map?edge=...`. */
function route(): void {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const name = Object.hasOwn(MAKERS, path) ? path : 'overview';
  const page = pages.get(name) ?? MAKERS[name]?.() ?? overview;
  pages.set(name, page);
  for (const link of document.querySelectorAll('nav.rail a'))
    setAttribute(link, 'aria-current', link.getAttribute('data-page') === name ? 'page' : undefined);
  document.title = `${page.title} · culvert`;
  if (current !== page || !page.element.isConnected) {
    current = page;
    main.replaceChildren(fault, page.element);
    scrollTo({ top: 0 });
  }
  page.enter(new URLSearchParams(query));
  void refresh();
}

async function refresh(): Promise<void> {
  if (isAsking) return;
  isAsking = true;
  const page = current;
  try {
    await page.refresh();
    show(fault, false);
  } catch (error) {
    setText(fault, error instanceof Error ? error.message : `${error}`);
    show(fault, true);
  } finally {
    isAsking = false;
  }
  if (page !== current) void refresh();
}

function heard(news: Overview): void {
  setText(byId('node-name'), news.node);
  const state = byId('node-state');
  setBadge(state, news.state, news.state === 'serving' ? 'good' : 'warn');
  show(state, true);
  const control = byId('control-state');
  show(control, news.control !== null && !news.control.connected);
  setBadge(control, 'control plane lost', 'bad');
  overview.overview(news);
  void refresh();
}

function liveChanged(state: LiveState): void {
  if (state === liveState) return;
  if (state === 'live') overview.reconnected();
  liveState = state;
  const pill = byId('live');
  setAttribute(pill, 'data-state', state);
  if (pill.lastElementChild !== null) setText(pill.lastElementChild, LIVE_WORDS[state]);
}

show(fault, false);
startTheme();
addEventListener('hashchange', route);
route();
new Live(heard, liveChanged).open();
