import { devNull } from 'node:os';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { Fixture, u32, u64 } from './fixture.ts';

let fixture: Fixture;
test.before(() => {
  fixture = Fixture.open();
});
test.after.always(() => fixture?.close());

/** A value of a wrong type, past the compiler: what a caller without types might hand over. */
function wrong<T>(value: unknown): T {
  return value as T;
}

test('the addon has at most 25 functions', (t) => {
  t.true(Object.values(addon).every((value) => typeof value === 'function'));
  t.true(Object.keys(addon).length <= 25);
});

test('a handle of another kind is a TypeError', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  addon.objectLoad(object);
  const map = addon.objectMap(object, 'entries');
  const refused = { instanceOf: TypeError };
  t.throws(() => addon.linkUpdate(wrong(map), object, 'on_connect4'), refused);
  t.throws(() => addon.mapLookup(wrong(object), u32(1)), refused);
  t.throws(() => addon.objectLoad(wrong(map)), refused);
  t.throws(() => addon.ringRead(wrong(map)), refused);
  t.throws(() => addon.pin(wrong(object), '/nowhere'), refused);
  t.throws(() => addon.info(wrong(object)), refused);
  t.throws(() => addon.close(wrong({})), refused);
  t.throws(() => addon.close(wrong(undefined)), refused);
  t.throws(() => addon.mapEntries(wrong(7)), refused);
});

test('arguments of a wrong type or size are TypeErrors that name the argument', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  addon.objectLoad(object);
  const map = addon.objectMap(object, 'entries');
  const named = (argument: string) => ({ instanceOf: TypeError, message: new RegExp(`^${argument}:`) });
  t.throws(() => addon.objectOpen(wrong(7)), named('path'));
  t.throws(() => addon.objectOpen('a\0b'), named('path'));
  t.throws(() => addon.mapLookup(map, u64(1n)), named('key'));
  t.throws(() => addon.mapLookup(map, wrong('text')), named('key'));
  t.throws(() => addon.mapLookup(map, wrong(new Uint32Array(1))), named('key'));
  t.throws(() => addon.mapUpdate(map, u32(1), u32(1)), named('value'));
  t.throws(() => addon.mapUpdate(map, u32(1), u64(1n), 3), named('flags'));
  t.throws(() => addon.linkAttach(object, 'on_connect4', -1, 10), named('targetFd'));
  t.throws(() => addon.pinOpen('/nowhere', wrong('program')), named('kind'));
  t.throws(() => addon.duplicate(1.5), named('fd'));
  t.throws(() => addon.duplicate(Number.NaN), named('fd'));
  t.throws(() => addon.socketOption(1, 1, 1, 1e9), named('maxBytes'));
  t.throws(() => addon.socketOpen({ family: wrong(5) }), named('family'));
  t.throws(() => addon.socketOpen({ family: 6, bind: { address: u32(1), port: 0 } }), named('bind.address'));
  t.throws(
    () => addon.socketOpen({ family: 4, bind: { address: new Uint8Array(16), port: 0 } }),
    named('bind.address'),
  );
  t.throws(
    () => addon.socketOpen({ family: 6, bind: { address: new Uint8Array(16), port: 65536 } }),
    named('bind.port'),
  );
  t.throws(() => addon.socketOpen({ family: 6, storage: [{ map, value: u64(1n) }] }), named('storage.map'));
  const optionOf = (option: unknown) => () => addon.socketOpen({ family: 6, options: wrong([option]) });
  t.throws(() => addon.socketOpen({ family: 6, options: wrong({}) }), named('options'));
  t.throws(optionOf(undefined), named('options.level'));
  t.throws(optionOf({ level: -1, option: 1, value: u32(1) }), named('options.level'));
  t.throws(optionOf({ level: 1, option: 1.5, value: u32(1) }), named('options.option'));
  t.throws(optionOf({ level: 1, option: 1, value: 1 }), named('options.value'));
  t.throws(() => addon.programRun(object, 'on_run', wrong([1])), named('data'));
  t.throws(() => addon.programRun(object, 'on_run', u64(1n), -1), named('socketFd'));
});

test('a failed call tells errno, code, call, argument and who made it', (t) => {
  const error = t.throws(() => addon.pinOpen(devNull, 'map'));
  t.like(error, { errno: 13, code: 'EACCES', syscall: 'bpf_obj_get', argument: devNull });
  t.true(error instanceof Error);
  t.regex(error.message, /^EACCES: .*bpf_obj_get/);
  t.regex(error.stack ?? '', /argument\.test\.ts/);
});

test('a refused argument is blamed on the line that gave it', (t) => {
  const error = t.throws(() => addon.duplicate(-1));
  t.regex(error.stack?.split('\n')[1] ?? '', /argument\.test\.ts/);
});
