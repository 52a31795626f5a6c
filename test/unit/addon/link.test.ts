import { statSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import type { BpfObject } from '../../../native/addon/index.js';
import * as addon from '../../../native/addon/index.js';
import { attach, Fixture, fails, runInCgroup } from './fixture.ts';

let fixture: Fixture;
let object: BpfObject;

test.before(() => {
  fixture = Fixture.open();
  object = addon.objectOpen(fixture.objectPath);
  addon.objectLoad(object);
  fixture.onClose(() => addon.close(object));
});
test.after.always(() => fixture?.close());

function programId(name: string): number | undefined {
  return addon.objectPrograms(object).find((program) => program.name === name)?.id;
}

test.serial('a link attaches to its cgroup, says so, and is gone when closed', (t) => {
  const cgroup = fixture.cgroup();
  const before = addon.attachedPrograms(cgroup.fd, attach.connect4);
  const link = addon.linkAttach(object, 'on_connect4', cgroup.fd, attach.connect4);
  t.like(addon.info(link), {
    attachType: attach.connect4,
    programId: programId('on_connect4'),
    target: statSync(cgroup.path, { bigint: true }).ino,
  });
  const attached = addon.attachedPrograms(cgroup.fd, attach.connect4);
  t.deepEqual(attached.slice(0, -1), before);
  const own = addon.objectPrograms(object).find(({ name }) => name === 'on_connect4');
  t.like(attached.at(-1), { id: own?.id, name: 'on_connect4', type: 18, tag: own?.tag });
  t.true(attached.at(-1)?.mapIds.every((id) => id > 0));
  addon.close(link);
  addon.close(link);
  t.deepEqual(addon.attachedPrograms(cgroup.fd, attach.connect4), before);
  t.throws(() => addon.info(link), { code: 'EBADF' });
});

test.serial('an update changes the program behind the link, and nothing else', (t) => {
  const cgroup = fixture.cgroup();
  const link = addon.linkAttach(object, 'on_connect4', cgroup.fd, attach.connect4);
  t.teardown(() => addon.close(link));
  const { id } = addon.info(link);
  // Refused by connect() itself with EPERM in the one case, and by the closed port in the other: bash tells them apart.
  const line = `(exec 3<>/dev/tcp/127.0.0.1/9) 2>&1 | grep -q 'not permitted'`;
  t.is(runInCgroup(cgroup.path, line), 1);
  addon.linkUpdate(link, object, 'on_connect4_refuse');
  t.is(runInCgroup(cgroup.path, line), 0);
  t.like(addon.info(link), { id, programId: programId('on_connect4_refuse') });
});

test.serial('a link attaches to a network namespace, and tells of its inode', (t) => {
  const netns = fixture.netns();
  const link = addon.linkAttach(object, 'on_lookup', netns.fd, attach.lookup);
  t.like(addon.info(link), {
    attachType: attach.lookup,
    target: statSync(`/run/netns/${netns.name}`, { bigint: true }).ino,
  });
  t.deepEqual(
    addon.attachedPrograms(netns.fd, attach.lookup).map((program) => program.name),
    ['on_lookup'],
  );
  addon.close(link);
  t.deepEqual(addon.attachedPrograms(netns.fd, attach.lookup), []);
});

test.serial('a pinned link lives on when its handle is closed', (t) => {
  const cgroup = fixture.cgroup();
  const path = join(fixture.bpffs, 'on_connect4');
  const before = addon.attachedPrograms(cgroup.fd, attach.connect4).length;
  const link = addon.linkAttach(object, 'on_connect4', cgroup.fd, attach.connect4);
  const { id } = addon.info(link);
  addon.pin(link, path);
  addon.close(link);
  t.is(addon.attachedPrograms(cgroup.fd, attach.connect4).length, before + 1);
  const again = addon.pinOpen(path, 'link');
  t.is(addon.info(again).id, id);
  fails(t, () => addon.pinOpen(path, 'map'), { code: 'EINVAL', syscall: 'bpf_obj_get', argument: path });
  unlinkSync(path);
  addon.close(again);
  t.is(addon.attachedPrograms(cgroup.fd, attach.connect4).length, before);
});

test.serial('a link whose network namespace is gone has no target', async (t) => {
  const other = Fixture.open();
  const netns = other.netns();
  const link = addon.linkAttach(object, 'on_lookup', netns.fd, attach.lookup);
  t.teardown(() => addon.close(link));
  other.close();
  // The kernel takes a namespace down some time after its last descriptor, and detaches the link then; no event tells.
  while (addon.info(link).target !== 0n) await setTimeout(5);
  t.pass();
});

test.serial('failures to attach name the call and the program', (t) => {
  const cgroup = fixture.cgroup();
  fails(t, () => addon.linkAttach(object, 'nobody', cgroup.fd, attach.connect4), {
    code: 'ENOENT',
    argument: 'nobody',
  });
  fails(t, () => addon.linkAttach(object, 'on_connect4', cgroup.fd, attach.bind4), {
    code: 'EINVAL',
    syscall: 'bpf_link_create',
    argument: 'on_connect4',
  });
  fails(t, () => addon.attachedPrograms(999_999, attach.connect4), { code: 'EBADF', syscall: 'bpf_prog_query' });
});
