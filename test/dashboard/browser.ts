import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { Dashboard, DashboardListener, Pages } from '../../src/dashboard/index.ts';
import type { Address } from '../../src/mesh/index.ts';
import { type DashboardSource, silentLog } from '../../src/telemetry/index.ts';

const PAGES = fileURLToPath(new URL('../../build/dashboard', import.meta.url));
const ARTEFACTS = fileURLToPath(new URL('../../build/artefacts/dashboard', import.meta.url));

export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/**
 * Debian's chromium, or what CHROMIUM says.
 *
 * @param netns the network namespace that it runs in. Default: that of this process
 */
export async function openBrowser(netns?: string): Promise<Browser> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-browser-'));
  const executablePath = join(folder, 'chromium');
  const command = netns === undefined ? CHROMIUM : `nsenter --net=${netns} ${CHROMIUM}`;
  writeFileSync(executablePath, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  const browser = await chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
  rmSync(folder, { recursive: true });
  return browser;
}

export interface ServedDashboard extends AsyncDisposable {
  readonly url: string;
  readonly dashboard: Dashboard;
}

/** A dashboard of its own listener. Events come every 200 ms, so that no test waits long for one. */
export async function serve(source: DashboardSource, token?: string): Promise<ServedDashboard> {
  const dashboard = new Dashboard({ source, pages: new Pages(PAGES), log: silentLog() }, { live: { intervalMs: 200 } });
  const listener = new DashboardListener(
    { handle: dashboard.handler(token), log: silentLog() },
    { address: { address: '127.0.0.1' as Address, port: 0 } },
  );
  await listener.open();
  return {
    url: `http://127.0.0.1:${listener.port}`,
    dashboard,
    async [Symbol.asyncDispose]() {
      dashboard.close();
      listener.close();
    },
  };
}

export interface WatchedPage extends AsyncDisposable {
  readonly page: Page;
  /** What the page should never do: errors on the console, requests to elsewhere. */
  readonly faults: readonly string[];
}

/** A page of which every error and every foreign request is written down. */
export async function openPage(
  browser: Browser,
  origin: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  const faults: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(origin) && !request.url().startsWith('data:'))
      faults.push(`request: ${request.url()}`);
  });
  return { page, faults, [Symbol.asyncDispose]: () => context.close() };
}

/** Kept for people to look at, not compared. */
export async function photograph(page: Page, name: string): Promise<void> {
  mkdirSync(ARTEFACTS, { recursive: true });
  await page.screenshot({ path: `${ARTEFACTS}/${name}.png` });
}

/** Whether something is wider than the window, so that one would have to scroll sideways. */
export async function assertFits(t: ExecutionContext, page: Page): Promise<void> {
  const [content, window] = (await page.evaluate(
    '[document.documentElement.scrollWidth, document.documentElement.clientWidth]',
  )) as [number, number];
  t.true(content <= window, `the page is ${content} wide in a window of ${window}`);
}
