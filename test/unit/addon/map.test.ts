import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import type { BpfMap, BpfObject } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { Fixture, fails, readU32s, readU64, u32, u64 } from './fixture.ts';

let fixture: Fixture;
let object: BpfObject;

test.before(() => {
  fixture = Fixture.open();
  object = addon.objectOpen(fixture.objectPath);
  addon.objectLoad(object);
});
test.after.always(() => {
  addon.close(object);
  fixture.close();
});

/** The fixture's map, emptied. */
function emptied(name: string): BpfMap {
  const map = addon.objectMap(object, name);
  const { keyBytes } = addon.info(map);
  const keys = addon.mapEntries(map).keys;
  for (let at = 0; at < keys.length; at += keyBytes) addon.mapDelete(map, keys.subarray(at, at + keyBytes));
  return map;
}

test.serial('gives back what was put in, and undefined for what was not', (t) => {
  const entries = emptied('entries');
  addon.mapUpdate(entries, u32(1), u64(11n));
  t.is(readU64(addon.mapLookup(entries, u32(1))), 11n);
  t.is(addon.mapLookup(entries, u32(2)), undefined);
});

test.serial('tells whether a deletion found its entry', (t) => {
  const entries = emptied('entries');
  addon.mapUpdate(entries, u32(1), u64(1n));
  t.true(addon.mapDelete(entries, u32(1)));
  t.false(addon.mapDelete(entries, u32(1)));
  t.is(addon.mapLookup(entries, u32(1)), undefined);
});

test.serial('keeps the update flags: new only, existing only', (t) => {
  const entries = emptied('entries');
  t.throws(() => addon.mapUpdate(entries, u32(1), u64(1n), 2), { code: 'ENOENT' });
  addon.mapUpdate(entries, u32(1), u64(1n), 1);
  t.throws(() => addon.mapUpdate(entries, u32(1), u64(2n), 1), { code: 'EEXIST' });
  addon.mapUpdate(entries, u32(1), u64(3n), 2);
  t.is(readU64(addon.mapLookup(entries, u32(1))), 3n);
});

test.serial('lists every key once', (t) => {
  const entries = emptied('entries');
  t.is(addon.mapEntries(entries).keys.length, 0);
  for (let key = 0; key < 64; key++) addon.mapUpdate(entries, u32(key), u64(0n));
  const keys = readU32s(addon.mapEntries(entries).keys).sort((a, b) => a - b);
  t.deepEqual(
    keys,
    Array.from({ length: 64 }, (_, key) => key),
  );
});

const largeMaps = `
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(map_flags, BPF_F_NO_PREALLOC); __uint(max_entries, 20000);
	__type(key, __u32); __type(value, __u64); } large SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_HASH); __uint(max_entries, 5000);
	__type(key, __u32); __type(value, __u32); } large_counts SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(map_flags, BPF_F_NO_PREALLOC); __uint(max_entries, 64);
	__uint(key_size, 8); __type(value, __u64); } trie SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3); __type(key, __u32); __type(value, __u64); } row SEC(".maps");
char LICENSE[] SEC("license") = "GPL";
`;

test.serial('lists every key once with its value, in maps of every kind and size', (t) => {
  const large = addon.objectOpen(fixture.compileText('large', largeMaps));
  t.teardown(() => addon.close(large));
  addon.objectLoad(large);
  const valueFor = (key: number): bigint => BigInt(key) * 7n;
  const list = (name: string, stride: number): Map<number, bigint | undefined> => {
    const { keys, values } = addon.mapEntries(addon.objectMap(large, name));
    const { keyBytes } = addon.info(addon.objectMap(large, name));
    const count = keys.length / keyBytes;
    t.is(values.length, count * stride, name);
    const entries = Array.from({ length: count }, (_, index): [number, bigint | undefined] => [
      readU32s(keys.slice((index + 1) * keyBytes - 4, (index + 1) * keyBytes))[0] ?? -1,
      readU64(values.slice(index * stride, (index + 1) * stride)),
    ]);
    t.is(new Map(entries).size, count, name);
    return new Map(entries);
  };
  const map = addon.objectMap(large, 'large');
  for (let key = 0; key < 20_000; key += 1) addon.mapUpdate(map, u32(key), u64(valueFor(key)));
  const listed = list('large', 8);
  t.is(listed.size, 20_000);
  t.true([...listed].every(([key, value]) => value === valueFor(key)));
  for (let key = 0; key < 5000; key += 1)
    addon.mapUpdate(addon.objectMap(large, 'large_counts'), u32(key), new Uint8Array(perCpuBytes()).fill(key & 0xff));
  t.is(list('large_counts', perCpuBytes()).size, 5000);
  for (let key = 0; key < 64; key += 1)
    addon.mapUpdate(addon.objectMap(large, 'trie'), Uint8Array.of(32, 0, 0, 0, ...u32(key)), u64(valueFor(key)));
  const tried = list('trie', 8);
  t.is(tried.size, 64);
  t.true([...tried].every(([key, value]) => value === valueFor(key)));
  t.deepEqual([...list('row', 8).keys()], [0, 1, 2]);
});

test.serial('refuses one entry more than the map holds', (t) => {
  const entries = emptied('entries');
  for (let key = 0; key < 64; key++) addon.mapUpdate(entries, u32(key), u64(0n));
  fails(t, () => addon.mapUpdate(entries, u32(64), u64(0n)), { code: 'E2BIG', syscall: 'bpf_map_update_elem' });
});

test.serial('moves the values of all CPUs of a per-CPU map, each padded to 8 bytes', (t) => {
  const counts = emptied('counts');
  addon.mapUpdate(counts, u32(5), new Uint8Array(addon.mapLookup(counts, u32(5))?.length ?? perCpuBytes()).fill(1));
  const value = addon.mapLookup(counts, u32(5));
  t.is(value?.length, perCpuBytes());
  t.is(addon.info(counts).valueBytes, 4);
  t.deepEqual(readU32s(value ?? new Uint8Array())[0], 0x01010101);
});

test.serial('describes a map by the shape the object declares', (t) => {
  const told = addon.info(emptied('entries'));
  t.like(told, { type: 1, name: 'entries', keyBytes: 4, valueBytes: 8, maxEntries: 64, flags: 0 });
  t.true(told.id > 0);
});

test.serial('a pinned map is the same map when opened again', (t) => {
  const entries = emptied('entries');
  const path = join(fixture.bpffs, 'entries');
  addon.pin(entries, path);
  t.teardown(() => unlinkSync(path));
  const again = addon.pinOpen(path, 'map');
  addon.mapUpdate(entries, u32(9), u64(99n));
  t.is(readU64(addon.mapLookup(again, u32(9))), 99n);
  t.is(addon.info(again).id, addon.info(entries).id);
  fails(t, () => addon.pin(entries, path), { code: 'EEXIST', syscall: 'bpf_obj_pin' });
  fails(t, () => addon.pinOpen(path, 'link'), { code: 'EINVAL', syscall: 'bpf_obj_get' });
  t.throws(() => addon.pinOpen(join(fixture.bpffs, 'nothing'), 'map'), { code: 'ENOENT' });
});

test.serial('an object that reuses a map shares its entries', (t) => {
  const entries = emptied('entries');
  addon.mapUpdate(entries, u32(3), u64(33n));
  const second = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(second));
  addon.objectReuseMap(second, 'entries', entries);
  addon.objectLoad(second);
  t.is(readU64(addon.mapLookup(addon.objectMap(second, 'entries'), u32(3))), 33n);
});

test.serial('a map of another shape is not reused', (t) => {
  const second = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(second));
  const error = t.throws(() => addon.objectReuseMap(second, 'entries', addon.objectMap(object, 'counts')));
  t.like(error, { code: 'EINVAL', syscall: 'bpf_map__reuse_fd', argument: 'entries' });
  t.throws(() => addon.objectReuseMap(second, 'no such map', addon.objectMap(object, 'counts')), { code: 'ENOENT' });
});

test.serial('a map outlives the object it came from, and a closed map is refused', (t) => {
  const own = addon.objectOpen(fixture.objectPath);
  addon.objectLoad(own);
  const entries = addon.objectMap(own, 'entries');
  addon.close(own);
  addon.mapUpdate(entries, u32(1), u64(1n));
  t.is(readU64(addon.mapLookup(entries, u32(1))), 1n);
  addon.close(entries);
  addon.close(entries);
  t.throws(() => addon.mapLookup(entries, u32(1)), { code: 'EBADF' });
  t.throws(() => addon.objectMap(own, 'entries'), { code: 'EBADF' });
});

function perCpuBytes(): number {
  const cpus = readdirSync('/sys/devices/system/cpu').filter((name) => /^cpu\d+$/.test(name)).length;
  return 8 * cpus;
}
