/** What a path leads to, where a network namespace should be. */
import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { netnsCookie } from '../../../src/kernel/cookie.ts';
import { KernelError } from '../../../src/kernel/index.ts';
import { inodeAt, openNetns } from '../../../src/kernel/netns.ts';
import { withoutDescriptors } from '../../contract/without-descriptors.ts';

let folder: string;
test.before(() => {
  folder = mkdtempSync(join(tmpdir(), 'netns-'));
});
test.after.always(() => rmSync(folder, { recursive: true, force: true }));

/** Path of a network namespace that the test's end gives up. */
function netns(t: { teardown(undo: () => void): void }): string {
  const fd = addon.netnsCreate();
  t.teardown(() => closeSync(fd));
  return `/proc/self/fd/${fd}`;
}

function refusalOf(run: () => unknown): [code: string, errno: unknown] {
  try {
    run();
    return ['none', undefined];
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    return [error.code, Reflect.get(Object(error.cause), 'code')];
  }
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

test.serial('a network namespace is opened with its cookie and inode', (t) => {
  const path = netns(t);
  const { netnsFd, cookie, inode } = openNetns(path);
  t.is(netnsCookie(netnsFd), cookie);
  t.is(inodeAt(path), inode);
  closeSync(netnsFd);
});

test.serial('what is no network namespace is refused at once, never waited for', (t) => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const fifo = join(folder, 'fifo');
  execFileSync('mkfifo', [fifo]);
  const link = join(folder, 'link');
  symlinkSync(fifo, link);
  const before = descriptors();
  for (const path of [
    file,
    fifo,
    link,
    folder,
    '/dev/zero',
    join(folder, 'none'),
    join(file, 'below'),
    '/proc/self/ns/mnt',
  ])
    t.is(refusalOf(() => openNetns(path))[0], 'NOT_A_NETNS', path);
  t.is(descriptors(), before);
});

test.serial('a namespace that cannot be looked at is not taken for one that is gone', (t) => {
  const path = netns(t);
  openNetns(path); // The addon opens its own namespace once, for good.
  for (const left of [0, 1])
    t.deepEqual(
      withoutDescriptors(left, () => refusalOf(() => openNetns(path))),
      ['KERNEL_REFUSED', 'EMFILE'],
      `${left} descriptors left`,
    );
  const loop = join(folder, 'loop');
  symlinkSync(loop, loop);
  t.deepEqual(
    refusalOf(() => inodeAt(loop)),
    ['KERNEL_REFUSED', 'ELOOP'],
  );
  t.is(inodeAt(join(folder, 'none')), undefined);
});
