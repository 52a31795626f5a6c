/**
 * Many life cycles of everything that the addon owns, in the main thread and in workers, with success and with failure. Run
 * by leak.sh, which watches the memory; the descriptors are counted here.
 * Arguments: folder of the addon, object file, object file that the verifier refuses, namespace, cgroup, bpffs, cycles.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, unlinkSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import type * as Addon from '../index.js';

interface Work {
  addonDir: string;
  objectPath: string;
  refusedPath: string;
  netnsPath: string;
  cgroupPath: string;
  bpffs: string;
  cycles: number;
}

const connect4 = 10;
const work: Work = isMainThread ? readArguments() : workerData;
// Not the addon of the build, but the one that leak.sh built with a sanitizer.
const addon: typeof Addon = await import(pathToFileURL(`${work.addonDir}/index.js`).href);

function readArguments(): Work {
  const [addonDir, objectPath, refusedPath, netnsPath, cgroupPath, bpffs, cycles] = process.argv.slice(2);
  assert(addonDir && objectPath && refusedPath && netnsPath && cgroupPath && bpffs && cycles);
  return { addonDir, objectPath, refusedPath, netnsPath, cgroupPath, bpffs, cycles: Number(cycles) };
}

function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

/** One enrolment's worth: open, load, share, fill, pin, attach, replace, listen, dial, fail, close. */
function cycle(cgroupFd: number, netnsFd: number, pinned: string): void {
  const object = addon.objectOpen(work.objectPath);
  addon.objectSetGlobal(object, 'wanted_port', u32(9));
  addon.objectLoad(object);
  addon.objectPrograms(object);
  const entries = addon.objectMap(object, 'entries');
  const tags = addon.objectMap(object, 'tags');
  for (let key = 0; key < 64; key++) addon.mapUpdate(entries, u32(key), new Uint8Array(8));
  addon.mapKeys(entries);
  addon.mapLookup(entries, u32(1));
  addon.mapDelete(entries, u32(1));
  addon.pin(entries, pinned);
  const again = addon.pinOpen(pinned, 'map');
  assert.throws(() => addon.pinOpen(pinned, 'link'));
  unlinkSync(pinned);

  const second = addon.objectOpen(work.objectPath);
  assert.throws(() => addon.objectReuseMap(second, 'tags', entries));
  addon.objectReuseMap(second, 'entries', again);
  addon.objectLoad(second);
  const link = addon.linkAttach(object, 'on_connect4', cgroupFd, connect4);
  addon.linkUpdate(link, second, 'on_connect4');
  addon.info(link);
  addon.attachedPrograms(cgroupFd, connect4);
  const ring = addon.ringOpen(addon.objectMap(object, 'notes'));
  addon.ringRead(ring);

  for (let dial = 0; dial < 20; dial++) sockets(netnsFd, tags);
  namespaceAndFailures();
  // Half is closed here; the rest is left to the garbage collector and to the thread's end.
  addon.close(link);
  addon.close(object);
  addon.close(tags);
  addon.close(ring);
}

function sockets(netnsFd: number, tags: Addon.BpfMap): void {
  const storage = [{ map: tags, value: u32(7) }];
  const loopback = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1);
  const listener = addon.socketOpen({
    family: 6,
    netnsFd,
    storage,
    bind: { address: loopback, port: 15001 },
    reusePort: true,
    backlog: 16,
  });
  const copy = addon.duplicate(listener);
  const dialler = addon.socketOpen({ family: 4, netnsFd, storage, bind: { address: loopback, port: 0 } });
  addon.socketOption(dialler, 1, 57, 8);
  addon.setSocketOption(dialler, 1, 2, u32(1));
  assert.throws(() => addon.socketOpen({ family: 6, netnsFd, bind: { address: loopback, port: 15001 } }));
  for (const fd of [listener, copy, dialler]) closeSync(fd);
}

function namespaceAndFailures(): void {
  closeSync(addon.netnsCreate());
  assert.throws(() => addon.objectOpen('/nowhere'));
  assert.throws(() => addon.pinOpen('/nowhere', 'map'));
  assert.throws(() => addon.socketOpen({ family: 4, netnsFd: 0x7ffffff }));
  const refused = addon.objectOpen(work.refusedPath);
  assert.throws(() => addon.objectLoad(refused));
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

function cycles(name: string): void {
  const cgroupFd = openSync(work.cgroupPath, 'r');
  const netnsFd = openSync(work.netnsPath, 'r');
  for (let count = 0; count < work.cycles; count++) cycle(cgroupFd, netnsFd, `${work.bpffs}/${name}`);
  closeSync(cgroupFd);
  closeSync(netnsFd);
}

async function worker(): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  new Worker(new URL(import.meta.url), { workerData: work }).once('error', reject).once('exit', resolve);
  assert.equal(await promise, 0);
}

async function main(): Promise<void> {
  assert(globalThis.gc);
  // Once for what Node and the thread keep: the loader, the first worker, the thread's own namespace.
  cycles('main');
  await worker();
  await collected();
  const before = descriptors();
  cycles('main');
  await worker();
  await collected();
  assert.equal(descriptors(), before, 'descriptors after and before');
}

/** What the garbage collector frees, it frees in turns of the loop of its own. */
async function collected(): Promise<void> {
  for (let round = 0; round < 10; round++) {
    globalThis.gc?.();
    await setImmediate();
  }
}

if (isMainThread) await main();
else cycles('worker');
