import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import * as disk from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { type SavedPod, StateFile } from '../../../src/agent/state.ts';
import type { NetnsCookie } from '../../../src/mesh/index.ts';
import { silentLog } from '../../../src/telemetry/index.ts';
import { pod } from '../../contract/fakes/pods.ts';

const log = silentLog();
const saved = (uid: string, cookie: bigint): SavedPod => ({
  pod: pod({ uid }),
  cookie: cookie as NetnsCookie,
  withdrawing: false,
});

function place(t: { teardown(run: () => void): void }): string {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-state-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return join(directory, 'state.json');
}

test('what was saved is read again in the same boot, cookies of 64 bits too', async (t) => {
  const path = place(t);
  const pods = [saved('a', 2n ** 64n - 1n), { ...saved('b', 7n), withdrawing: true }];
  await new StateFile({ log }, { path, bootId: 'boot-1' }).save(() => pods);
  t.deepEqual(await new StateFile({ log }, { path, bootId: 'boot-1' }).read(), pods);
  t.is(statSync(path).mode & 0o777, 0o600);
});

test('what was saved in another boot is ignored', async (t) => {
  const path = place(t);
  await new StateFile({ log }, { path, bootId: 'boot-1' }).save(() => [saved('a', 1n)]);
  t.deepEqual(await new StateFile({ log }, { path, bootId: 'boot-2' }).read(), []);
});

test('without a file there is nothing', async (t) => {
  t.deepEqual(await new StateFile({ log }, { path: place(t), bootId: 'boot-1' }).read(), []);
});

for (const [title, text] of [
  ['cut off', '{"schema":1,"bootId":"boot-1","pods":[{"pod":'],
  ['empty', ''],
  ['of another schema', '{"schema":2,"bootId":"boot-1","pods":[]}'],
] as const) {
  test(`a file ${title} is kept aside, and the agent goes on`, async (t) => {
    const path = place(t);
    writeFileSync(path, text);
    t.deepEqual(await new StateFile({ log }, { path, bootId: 'boot-1' }).read(), []);
    t.is(readFileSync(`${path}.corrupt`, 'utf8'), text);
    t.deepEqual(readdirSync(join(path, '..')), ['state.json.corrupt']);
  });
}

for (const [title, wrong] of [
  ['a pod that is none', { pod: {} }],
  ['a cookie that is none', { netnsCookie: '-1' }],
  ['a field too many', { color: 'red' }],
] as const) {
  test(`an entry with ${title} costs no other pod its place, and the file is kept aside`, async (t) => {
    const path = place(t);
    await new StateFile({ log }, { path, bootId: 'boot-1' }).save(() => [
      saved('a', 1n),
      saved('b', 2n),
      saved('c', 3n),
    ]);
    const file = JSON.parse(readFileSync(path, 'utf8'));
    Object.assign(file.pods[1], wrong);
    writeFileSync(path, JSON.stringify(file));
    const lines: object[] = [];
    const watched = { ...log, error: (fields: object) => void lines.push(fields) };
    const state = new StateFile({ log: watched }, { path, bootId: 'boot-1' });
    t.deepEqual(await state.read(), [saved('a', 1n), saved('c', 3n)]);
    t.deepEqual(JSON.parse(readFileSync(`${path}.corrupt`, 'utf8')), file);
    t.like(lines, [{ pod: title === 'a pod that is none' ? undefined : 'b', entry: 1 }]);
  });
}

test('a file that cannot be read stops the start, since an empty one would be written in its place', async (t) => {
  const path = place(t);
  const readFile = (() =>
    Promise.reject(Object.assign(new Error('i/o error'), { code: 'EIO' }))) as typeof disk.readFile;
  const state = new StateFile({ log, fs: { ...disk, readFile } }, { path, bootId: 'boot-1' });
  await t.throwsAsync(state.read(), { code: 'STATE_UNREADABLE', message: /state\.json/ });
});

test('a crash between write and rename leaves the old state whole', async (t) => {
  const path = place(t);
  await new StateFile({ log }, { path, bootId: 'boot-1' }).save(() => [saved('a', 1n)]);
  const rename = (): Promise<void> => Promise.reject(new Error('killed here'));
  const crashing = new StateFile({ log, fs: { ...disk, rename } }, { path, bootId: 'boot-1' });
  await t.throwsAsync(
    crashing.save(() => []),
    { code: 'STATE_UNWRITABLE' },
  );
  const next = new StateFile({ log }, { path, bootId: 'boot-1' });
  t.deepEqual(await next.read(), [saved('a', 1n)]);
  await next.save(() => [saved('b', 2n)]);
  t.deepEqual(await next.read(), [saved('b', 2n)]);
});

test('saves that come together share one write, and each is written when it resolves', async (t) => {
  const path = place(t);
  let renames = 0;
  const rename: typeof disk.rename = (from, to) => {
    renames += 1;
    return disk.rename(from, to);
  };
  const state = new StateFile({ log, fs: { ...disk, rename } }, { path, bootId: 'boot-1' });
  const pods: SavedPod[] = [];
  await Promise.all(
    Array.from({ length: 50 }, (_, index) => {
      pods.push(saved(`pod-${index}`, BigInt(index + 1)));
      return state.save(() => pods);
    }),
  );
  t.is((await state.read()).length, 50);
  t.true(renames <= 2);
});

test('a failed save does not stop the next', async (t) => {
  const path = place(t);
  let fail = true;
  const rename: typeof disk.rename = (from, to) =>
    fail ? Promise.reject(new Error('disk full')) : disk.rename(from, to);
  const state = new StateFile({ log, fs: { ...disk, rename } }, { path, bootId: 'boot-1' });
  await t.throwsAsync(
    state.save(() => []),
    { code: 'STATE_UNWRITABLE' },
  );
  fail = false;
  await t.notThrowsAsync(state.save(() => [saved('a', 1n)]));
});
