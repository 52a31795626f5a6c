import { statSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { main } from '../../src/cli/main.ts';
import { apps } from '../lab/index.ts';
import { direct, pathBed, trio } from '../node/kernel-path-bed.ts';
import { forServer, Policies, pods, policyBed } from '../node/policy-bed.ts';
import { Caller } from '../node/policy-callers.ts';
import { APP_PORT, SERVICE_PORT, VIP } from '../node/tunnel-bed.ts';
import { openBrowser, openPage, photograph } from './browser.ts';

const ADMIN = 'http://127.0.0.1:15000';
const REMOTE_PORT = 15_080;
const PATIENCE = { timeout: 60_000 };

test('the agent serves its dashboard: who talks, how it is secured, who was denied, and why', async (t) => {
  t.timeout(600_000);
  await using bed = await policyBed(t.title, { args: ['--dashboard', `0.0.0.0:${REMOTE_PORT}`] });
  const { client, teller, server } = bed.pods;
  const [near] = bed.nodes;
  await new Policies(bed).are(forServer('ALLOW', pods(client)));
  const [friend, stranger] = [await Caller.start(client), await Caller.start(teller)];
  for (let calls = 0; calls < 3; calls += 1) t.is((await friend.call(VIP.ipv4, SERVICE_PORT)).error, undefined);
  t.truthy((await stranger.call(server.addresses[0] ?? '', APP_PORT)).error);
  // It stays open until the end.
  await friend.open(VIP.ipv4, SERVICE_PORT);

  const browser = await openBrowser(near.netns);
  t.teardown(() => browser.close());
  await using watched = await openPage(browser, ADMIN);
  const { page, faults } = watched;
  await page.goto(`${ADMIN}/#/overview`);
  await page.getByText('serving').first().waitFor(PATIENCE);
  t.is(await page.locator('#node-name').textContent(), 'near');
  await page.locator('#live[data-state=live]').waitFor(PATIENCE);
  await page.locator('.tile', { hasText: 'Open connections' }).getByText('1', { exact: true }).waitFor(PATIENCE);
  await photograph(page, 'agent-overview');

  await page.goto(`${ADMIN}/#/map?view=table`);
  const edge = page.locator('tbody tr', { hasText: 'shop/client' });
  await edge.waitFor(PATIENCE);
  t.regex((await edge.textContent()) ?? '', /shop\/server.*good.*mutual TLS/);
  await edge.locator('button').first().click();
  const panel = page.locator('.panel');
  await panel.getByText('shop/client → shop/server', { exact: true }).first().waitFor(PATIENCE);
  t.regex((await panel.textContent()) ?? '', /Open1.*clean3.*tunnel3/);
  await page.goto(`${ADMIN}/#/map?view=graph`);
  await page.locator('.graph-canvas canvas').first().waitFor(PATIENCE);
  await photograph(page, 'agent-map');

  await panel.getByRole('button', { name: 'Explain this edge' }).click();
  await page.getByRole('dialog').locator('.badge', { hasText: 'connects' }).waitFor(PATIENCE);
  await page.keyboard.press('Escape');

  await page.goto(`${ADMIN}/#/pods`);
  await page.getByRole('button', { name: 'client', exact: true }).waitFor(PATIENCE);
  t.is(await page.locator('tbody tr').count(), 2);

  await page.goto(`${ADMIN}/#/flows?verdict=denied`);
  const denied = page.locator('tbody tr');
  await denied.first().waitFor(PATIENCE);
  t.is(await denied.count(), 1);
  t.regex((await denied.textContent()) ?? '', /bank\/teller/);
  await denied.locator('button').first().click();
  await page.getByRole('dialog').locator('.conclusion').waitFor(PATIENCE);
  t.regex((await page.getByRole('dialog').textContent()) ?? '', /policy/);
  await photograph(page, 'agent-explain');
  await page.keyboard.press('Escape');

  await page.goto(`${ADMIN}/#/policies`);
  await page.getByRole('button', { name: 'rule', exact: true }).waitFor(PATIENCE);
  await page.goto(`${ADMIN}/#/node`);
  await page.getByText('shop/client').first().waitFor(PATIENCE);
  await photograph(page, 'agent-node');
  t.deepEqual(faults, []);

  const remote = `http://127.0.0.1:${REMOTE_PORT}`;
  await using outside = await openPage(browser, remote);
  for (const path of ['/', '/assets/main.js', '/api/overview', '/api/live'])
    t.is((await outside.page.goto(`${remote}${path}`))?.status(), 401, path);
  const tokenFile = join(near.runDirectory, 'dashboard-token');
  t.is(statSync(tokenFile).mode & 0o777, 0o600);
  const said: string[] = [];
  const output = { out: (text: string) => void said.push(text), error: (text: string) => void said.push(text) };
  t.is(await main(['dashboard', '--run', near.runDirectory], output), 0);
  const [local, link = ''] = said.join('').trim().split('\n');
  t.is(local, `${ADMIN}/`);
  t.regex(link, /^http:\/\/[\d.]+:15080\/\?token=[\w-]{43}$/);
  await outside.page.goto(`${remote}/${new URL(link).search}#/pods`);
  await outside.page.getByRole('button', { name: 'client', exact: true }).waitFor(PATIENCE);
  t.false(outside.page.url().includes('token'));
});

test('connections of two pods of the node are on the map as the kernel path, once, also while they last', async (t) => {
  t.timeout(600_000);
  await using bed = await pathBed(t.title, trio);
  const { client, server } = bed.pods;
  await direct(bed, client, apps.pythonConnect({ to: server.addresses[0] ?? '', port: APP_PORT }));
  const friend = await Caller.start(client);
  // It stays open until the end.
  await friend.open(VIP.ipv4, SERVICE_PORT);

  const browser = await openBrowser(bed.node.netns);
  t.teardown(() => browser.close());
  await using watched = await openPage(browser, ADMIN);
  const { page, faults } = watched;
  await page.goto(`${ADMIN}/#/map?view=table`);
  const edge = page.locator('tbody tr', { hasText: 'shop/client' });
  await edge.waitFor(PATIENCE);
  t.is(await page.locator('tbody tr').count(), 1);
  await edge.locator('button').first().click();
  await page.locator('.panel .facts div', { hasText: 'Open' }).getByText('1', { exact: true }).waitFor(PATIENCE);
  t.regex((await page.locator('.panel').textContent()) ?? '', /shop\/client → shop\/server.*kernel path/);
  await page.goto(`${ADMIN}/#/overview`);
  await page.locator('.legend li', { hasText: 'kernel path' }).waitFor(PATIENCE);
  await page.goto(`${ADMIN}/#/flows`);
  await page.locator('tbody tr', { hasText: 'kernel path' }).first().waitFor(PATIENCE);
  t.deepEqual(faults, []);
});
