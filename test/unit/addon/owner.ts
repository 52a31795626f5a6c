/**
 * A process whose workers use everything of the addon at once and then end, each in one of the ways a worker can. Prints as
 * JSON how many descriptors it had after the first round of workers and how many after the last.
 * Arguments: object file, namespace's path, workers, how ("returns", "exits", "terminated", "terminated in a call").
 */
import { openSync, readdirSync } from 'node:fs';
import net from 'node:net';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import * as addon from '../../../native/addon/index.js';
import { attach, u32, u64 } from './fixture.ts';

interface Work {
  objectPath: string;
  netnsFd: number;
  how: string;
}

/** Opens one of everything and closes none of it. */
function use({ objectPath, netnsFd }: Work): unknown[] {
  const object = addon.objectOpen(objectPath);
  addon.objectLoad(object);
  const entries = addon.objectMap(object, 'entries');
  const tags = addon.objectMap(object, 'tags');
  for (let key = 0; key < 32; key++) addon.mapUpdate(entries, u32(key), u64(BigInt(key)));
  if (addon.mapEntries(entries).keys.length !== 32 * 4) throw new Error("another worker's keys are in this one's map");
  const ring = addon.ringOpen(addon.objectMap(object, 'notes'));
  addon.ringRead(ring);
  const unloaded = openObjects(objectPath, 3);
  const sockets = Array.from({ length: 20 }, () => {
    const fd = addon.socketOpen({ family: 6, netnsFd, storage: [{ map: tags, value: u32(7) }] });
    // Not to be read from before it connects.
    return new net.Socket({ fd, readable: false });
  });
  return [object, entries, tags, ring, unloaded, sockets];
}

/** Calls that return, and calls that throw. */
function busy({ objectPath }: Work): void {
  const object = addon.objectOpen(objectPath);
  for (const path of ['/nowhere', '/dev/null']) {
    try {
      addon.pinOpen(path, 'map');
    } catch {}
  }
  addon.close(object);
}

function openObjects(path: string, count: number): addon.BpfObject[] {
  return Array.from({ length: count }, () => addon.objectOpen(path));
}

async function rounds(work: Work, workers: number): Promise<void> {
  const ends = Array.from({ length: workers }, () => {
    const worker = new Worker(new URL(import.meta.url), { workerData: work });
    if (work.how.startsWith('terminated')) worker.once('message', () => void worker.terminate());
    return new Promise((resolve, reject) => worker.once('error', reject).once('exit', resolve));
  });
  await Promise.all(ends);
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

if (isMainThread) {
  const [objectPath = '', netnsPath = '', workers = '1', how = 'returns'] = process.argv.slice(2);
  const netnsFd = openSync(netnsPath, 'r');
  const object = addon.objectOpen(objectPath);
  addon.objectLoad(object);
  // One link for all: a namespace takes only one program of an object.
  addon.linkAttach(object, 'on_lookup', netnsFd, attach.lookup);
  const work: Work = { objectPath, netnsFd, how };
  await rounds(work, Number(workers));
  const before = descriptors();
  await rounds(work, Number(workers));
  await rounds(work, Number(workers));
  process.stdout.write(JSON.stringify({ before, after: descriptors() }));
} else {
  const held = use(workerData);
  parentPort?.postMessage('ready');
  if (workerData.how === 'exits') process.exit(0);
  if (workerData.how === 'terminated') setInterval(() => held.length, 2 ** 30);
  while (workerData.how === 'terminated in a call') busy(workerData);
}
