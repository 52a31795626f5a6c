import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { Fixture, fails, u32, u64 } from './fixture.ts';

let fixture: Fixture;

test.before(() => {
  fixture = Fixture.open();
});
test.after.always(() => fixture?.close());

test('tells each program of a loaded object', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  addon.objectLoad(object);
  const programs = addon.objectPrograms(object);
  t.deepEqual(programs.map((program) => program.name).sort(), [
    'on_bind4',
    'on_bind6',
    'on_connect4',
    'on_connect4_refuse',
    'on_lookup',
    'on_run',
  ]);
  for (const program of programs) {
    t.true(program.id > 0);
    t.true(program.instructions > 1);
    t.regex(program.tag, /^[0-9a-f]{16}$/);
  }
  t.is(programs.find((program) => program.name === 'on_lookup')?.section, 'sk_lookup');
});

test('a failed load ends with what the verifier said last', (t) => {
  const path = fixture.compileText(
    'refused',
    `#include <linux/bpf.h>
     #include <bpf/bpf_helpers.h>
     SEC("cgroup/connect4") int on_connect4(struct bpf_sock_addr *ctx) { return 17 + ctx->user_port; }
     char LICENSE[] SEC("license") = "GPL";`,
  );
  const object = addon.objectOpen(path);
  t.teardown(() => addon.close(object));
  const error = t.throws(() => addon.objectLoad(object));
  t.like(error, { code: 'EINVAL', errno: 22, syscall: 'bpf_object__load', argument: path });
  t.regex(error.message, /R0 .*has/);
  t.regex(error.message, /processed \d+ insns/);
  t.regex(error.stack ?? '', /object\.test\.ts/);
  t.throws(() => addon.objectLoad(object), { code: 'EBUSY' });
});

test('a file that is not an object is refused when it is opened', (t) => {
  fails(t, () => addon.objectOpen('/proc/self/status'), { code: 'LIBBPF_FORMAT', syscall: 'bpf_object__open_file' });
  const missing = `${fixture.dir}/missing.o`;
  const error = t.throws(() => addon.objectOpen(missing));
  t.like(error, { code: 'ENOENT', errno: 2, syscall: 'bpf_object__open_file', argument: missing });
});

test('a global is set by its name, at its size, and only before loading', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  fails(t, () => addon.objectSetGlobal(object, 'no_such', u32(1)), { code: 'ENOENT', argument: 'no_such' });
  t.throws(() => addon.objectSetGlobal(object, 'stamp', u32(1)), { instanceOf: TypeError, message: /8 bytes/ });
  addon.objectSetGlobal(object, 'stamp', u64(5n));
  addon.objectLoad(object);
  t.throws(() => addon.objectSetGlobal(object, 'stamp', u64(6n)), { code: 'EBUSY' });
});

test('gives no map and no program before loading', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  t.throws(() => addon.objectMap(object, 'entries'), { code: 'EINVAL' });
  t.throws(() => addon.objectPrograms(object), { code: 'EINVAL' });
});
