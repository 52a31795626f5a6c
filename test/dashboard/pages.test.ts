import test from 'ava';
import type { Browser } from 'playwright-core';
import { assertFits, openBrowser, openPage, PHONE, photograph, serve } from './browser.ts';
import { FakeSource } from './fake-source.ts';

const NAMES = ['overview', 'map', 'pods', 'flows', 'policies', 'node'] as const;
const TITLES = { overview: 'Overview', map: 'Map', pods: 'Pods', flows: 'Flows', policies: 'Policies', node: 'Node' };
const PATIENCE = { timeout: 30_000 };

let browser: Browser;

test.before(async () => {
  browser = await openBrowser();
});
test.after.always(() => browser?.close());

for (const scheme of ['light', 'dark'] as const) {
  for (const [size, viewport] of [
    ['desktop', undefined],
    ['phone', PHONE],
  ] as const) {
    test.serial(`shows every page without a fault: ${size}, ${scheme}`, async (t) => {
      await using served = await serve(new FakeSource());
      const options = { colorScheme: scheme, ...(viewport === undefined ? {} : { viewport, hasTouch: true }) };
      await using watched = await openPage(browser, served.url, options);
      const { page, faults } = watched;
      await page.goto(served.url);
      for (const name of NAMES) {
        await page.locator(`nav.rail a[data-page=${name}]`).click();
        await page.getByRole('heading', { level: 1, name: TITLES[name] }).waitFor(PATIENCE);
        await page.locator(CONTENT[name]).first().waitFor(PATIENCE);
        t.is(await page.locator('nav.rail a[aria-current=page]').getAttribute('data-page'), name);
        await assertFits(t, page);
        await photograph(page, `${name}-${size}-${scheme}`);
      }
      t.deepEqual(faults, []);
    });
  }
}

/** By what each page is known to be filled. */
const CONTENT: Readonly<Record<(typeof NAMES)[number], string>> = {
  overview: '.chart canvas',
  map: '.graph-canvas canvas',
  pods: 'tbody tr',
  flows: 'tbody tr',
  policies: 'tbody tr',
  node: 'tbody tr',
};

test.serial('what happens is on the page without a reload', async (t) => {
  const source = new FakeSource();
  await using served = await serve(source);
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/flows`);
  const newest = page.locator('tbody tr').first();
  await newest.waitFor(PATIENCE);
  const before = await newest.getAttribute('data-key');
  source.advance();
  await page.locator(`tbody tr[data-key="${Number(before) + 3}"]`).waitFor(PATIENCE);

  await page.goto(`${served.url}/#/overview`);
  await page.locator('.alerts li').first().waitFor(PATIENCE);
  source.alerts = [{ severity: 'critical', text: 'the control process is gone <b>for</b> good' }];
  await page.getByText('the control process is gone <b>for</b> good').waitFor(PATIENCE);
  t.is(await page.locator('.alerts li').count(), 1);
  t.is(await page.locator('.alerts b').count(), 0, 'a text is never markup');
  source.alerts = [];
  await page.getByText('Nothing needs attention').waitFor(PATIENCE);
  t.is(await page.locator('#live').getAttribute('data-state'), 'live');
  t.deepEqual(faults, []);
});

test.serial('an edge shows how it is, how its connections ended, and who they were', async (t) => {
  const source = new FakeSource();
  await using served = await serve(source);
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/map?view=table`);
  await page.getByRole('button', { name: 'shop/web', exact: true }).first().waitFor(PATIENCE);
  await page.locator('tr[data-key="shop/recommend>payments/ledger"] button').click();
  const panel = page.locator('.panel');
  await panel.getByText('policy denied', { exact: true }).first().waitFor(PATIENCE);
  t.regex((await panel.textContent()) ?? '', /shop\/recommend → payments\/ledger.*failing.*mutual TLS.*412/);

  source.setEdge('shop/recommend>payments/ledger', { health: 'good', security: 'none', deniedPerSecond: 0 });
  await panel.getByText('not secured').waitFor(PATIENCE);
  t.true(page.url().includes('edge='), 'the address leads there again');

  await page.getByRole('button', { name: 'Graph' }).click();
  await page.locator('.graph-canvas canvas').first().waitFor(PATIENCE);
  t.true(await panel.isVisible(), 'the choice outlives the change of view');
  await photograph(page, 'edge-desktop-light');
  await page.keyboard.press('Escape');
  await panel.getByRole('button', { name: 'Close the details' }).click();
  t.false(await panel.isVisible());
  t.deepEqual(faults, []);
});

test.serial('a flow tells why it went as it did', async (t) => {
  const source = new FakeSource();
  await using served = await serve(source);
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/flows?verdict=denied`);
  const row = page.locator('tbody tr').first();
  await row.waitFor(PATIENCE);
  t.regex((await row.textContent()) ?? '', /policy denied/);
  await row.locator('button').first().click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('It is denied: payments/ledger-callers').waitFor(PATIENCE);
  t.is(await dialog.locator('.steps li[data-x], .steps > li').count(), 6);
  t.true(source.asked.some((question) => question.startsWith('explain {"flow":')));
  await photograph(page, 'explain-desktop-light');
  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'detached' });
  t.deepEqual(faults, []);
});

test.serial('an edge is explained as the two would meet now', async (t) => {
  const source = new FakeSource();
  await using served = await serve(source);
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/map?edge=${encodeURIComponent('shop/web>shop/cart')}`);
  await page.getByRole('button', { name: 'Explain this edge' }).click(PATIENCE);
  await page.getByRole('dialog').getByText('It would connect over the kernel path').waitFor(PATIENCE);
  t.true(source.asked.some((question) => /^explain \{"from":"[\w/-]+","to":"[\w.-]+:80"\}$/.test(question)));
  t.deepEqual(faults, []);
});

test.serial('250 pods and 2,000 edges are usable: drawn, listed, filtered, sorted', async (t) => {
  await using served = await serve(new FakeSource({ pods: 250, edges: 2_000 }));
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/map`);
  await page.getByText('the 150 that matter most of 2,000 edges').waitFor(PATIENCE);
  await page.locator('.graph-canvas canvas').first().waitFor(PATIENCE);
  await photograph(page, 'map-2000-edges');
  await page.getByRole('button', { name: 'Table' }).click();
  t.is(await page.locator('tbody tr:visible').count(), 200);
  await page.getByRole('button', { name: 'Show all 2000' }).click();
  t.is(await page.locator('tbody tr:visible').count(), 2_000);
  await page.getByRole('searchbox', { name: 'Filter the map' }).fill('service-17 ');
  await page.getByRole('searchbox', { name: 'Filter the map' }).fill('team-0/service-17');
  await page.getByText(/^\d+ edges$/).waitFor(PATIENCE);
  const found = await page.locator('tbody tr:visible').count();
  t.true(found > 0 && found < 100, `${found}`);

  await page.goto(`${served.url}/#/pods`);
  await page.locator('tbody tr').first().waitFor(PATIENCE);
  await page.getByRole('button', { name: 'Pod', exact: true }).click();
  t.is(await page.getByRole('columnheader', { name: 'Pod', exact: true }).getAttribute('aria-sort'), 'ascending');
  t.regex((await page.locator('tbody tr').first().textContent()) ?? '', /^cart-/);
  t.deepEqual(faults, []);
});

test.serial('everything can be reached by keyboard, and a live table leaves the focus where it is', async (t) => {
  const source = new FakeSource();
  await using served = await serve(source);
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/pods`);
  await page.locator('tbody tr').first().waitFor(PATIENCE);
  const focused = page.locator(':focus');
  await page.keyboard.press('Tab');
  t.is(await focused.textContent(), 'Skip to the page');
  const seen = new Set<string>();
  for (let presses = 0; presses < 16; presses += 1) {
    await page.keyboard.press('Tab');
    seen.add(`${await focused.getAttribute('aria-label')} ${await focused.textContent()}`.trim());
    t.is(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle'), 'solid', 'the focus is seen');
  }
  for (const wanted of [/Overview/, /Node/, /Theme/, /Filter pods/, /Traffic/])
    t.true(
      [...seen].some((each) => wanted.test(each)),
      `${wanted}`,
    );

  const button = page.locator('tbody tr').nth(3).locator('button');
  await button.focus();
  const name = await button.textContent();
  const asked = source.asked.filter((each) => each === 'overview').length;
  // Several events of the stream later.
  while (source.asked.filter((each) => each === 'overview').length < asked + 4) await page.waitForTimeout(50);
  t.is(await focused.textContent(), name);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { level: 1, name: 'Flows' }).waitFor(PATIENCE);
  t.true(page.url().includes('pod='));
  t.deepEqual(faults, []);
});

test.serial('the theme that was chosen is kept, and is there again after a reload', async (t) => {
  await using served = await serve(new FakeSource());
  await using watched = await openPage(browser, served.url, { colorScheme: 'light' });
  const { page, faults } = watched;
  await page.goto(`${served.url}/#/overview`);
  const background = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
  const light = await background();
  await page.getByRole('button', { name: 'Theme: as the system' }).click();
  await page.getByRole('button', { name: 'Theme: light' }).click();
  await page.getByRole('button', { name: 'Theme: dark' }).waitFor();
  const dark = await background();
  t.not(dark, light);
  await page.reload();
  await page.getByRole('button', { name: 'Theme: dark' }).waitFor(PATIENCE);
  t.is(await background(), dark);
  t.deepEqual(faults, []);
});

test.serial('where there is nothing yet, the page says what to do', async (t) => {
  await using served = await serve(new FakeSource({ isEmpty: true }));
  await using watched = await openPage(browser, served.url);
  const { page, faults } = watched;
  const empty: Readonly<Record<string, RegExp>> = {
    overview: /Nothing needs attention/,
    map: /Nobody has talked yet/,
    pods: /No pod is in the mesh here/,
    flows: /No connection has ended yet/,
    policies: /No policy applies here/,
    node: /No certificate/,
  };
  for (const [name, text] of Object.entries(empty)) {
    await page.goto(`${served.url}/#/${name}`);
    await page.getByText(text).waitFor(PATIENCE);
    await photograph(page, `empty-${name}`);
  }
  t.deepEqual(faults, []);
});
