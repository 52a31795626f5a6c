import test from 'ava';
import type { BpfRing } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { attach, Fixture, fails, runInCgroup, u32, u64 } from './fixture.ts';

const stamp = 0x1122334455667788n;
/** Network order, as the program sees it; nobody listens there. */
const port = 9;
const wantedPort = ((port & 0xff) << 8) | (port >> 8);

let fixture: Fixture;
let ring: BpfRing;
let cgroup: { path: string; fd: number };

test.before(() => {
  fixture = Fixture.open();
  cgroup = fixture.cgroup();
  const object = addon.objectOpen(fixture.objectPath);
  addon.objectSetGlobal(object, 'wanted_port', u32(wantedPort));
  addon.objectSetGlobal(object, 'stamp', u64(stamp));
  addon.objectLoad(object);
  const link = addon.linkAttach(object, 'on_connect4', cgroup.fd, attach.connect4);
  ring = addon.ringOpen(addon.objectMap(object, 'notes'));
  fixture.onClose(() => {
    addon.close(ring);
    addon.close(link);
    addon.close(object);
  });
});
test.after.always(() => fixture?.close());

/** The program writes eight notes for each connect(). */
function connect(): void {
  runInCgroup(cgroup.path, `exec 3<>/dev/tcp/127.0.0.1/${port}`);
}

const recordBytes = 16;

interface Note {
  readonly stamp: bigint;
  readonly index: number;
}

function notes(bytes: Uint8Array): Note[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / recordBytes }, (_, at) => ({
    stamp: view.getBigUint64(at * recordBytes, true),
    index: view.getUint32(at * recordBytes + 12, true),
  }));
}

function indexes(bytes: Uint8Array): number[] {
  return notes(bytes).map(({ index }) => index);
}

test.serial('an empty ring is read at once, and gives nothing', (t) => {
  t.is(addon.ringRead(ring).length, 0);
});

test.serial('gives every record in order, with the globals that were set before loading', (t) => {
  connect();
  const records = notes(addon.ringRead(ring));
  t.deepEqual(
    records.map(({ index }) => index),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  t.true(records.every((record) => record.stamp === stamp));
});

test.serial('takes no more records than asked for, and loses and repeats none', (t) => {
  connect();
  t.deepEqual(indexes(addon.ringRead(ring, 3)), [0, 1, 2]);
  t.deepEqual(indexes(addon.ringRead(ring, 1)), [3]);
  t.deepEqual(indexes(addon.ringRead(ring, 4)), [4, 5, 6, 7]);
  t.deepEqual(indexes(addon.ringRead(ring, 1)), []);
});

test.serial('a map that is no ring buffer cannot be read as one', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  addon.objectLoad(object);
  fails(t, () => addon.ringOpen(addon.objectMap(object, 'entries')), { code: 'EINVAL', syscall: 'ring_buffer__new' });
});

test.serial('a closed ring is refused', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  addon.objectLoad(object);
  const closed = addon.ringOpen(addon.objectMap(object, 'notes'));
  addon.close(closed);
  addon.close(closed);
  t.throws(() => addon.ringRead(closed), { code: 'EBADF' });
});
