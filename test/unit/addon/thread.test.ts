import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import test from 'ava';
import * as addon from '../../../native/addon/index.js';
import { Fixture } from './fixture.ts';

let fixture: Fixture;
test.before(() => {
  fixture = Fixture.open();
});
test.after.always(() => fixture?.close());

const run = promisify(execFile);
const owner = new URL('./owner.ts', import.meta.url).pathname;

for (const how of ['returns', 'exits', 'terminated', 'terminated in a call']) {
  test.serial(`workers that use the addon at once leave no descriptor (a worker that ends so: ${how})`, async (t) => {
    const netns = fixture.netns();
    const args = [owner, fixture.objectPath, `/run/netns/${netns.name}`, '6', how];
    const { stdout, stderr } = await run(process.execPath, args);
    const { before, after } = JSON.parse(stdout);
    t.is(after, before);
    t.is(stderr, '');
  });
}

test.serial('a handle stays with the thread that opened it', (t) => {
  const object = addon.objectOpen(fixture.objectPath);
  t.teardown(() => addon.close(object));
  t.throws(() => new Worker('', { eval: true, workerData: object }), { name: 'DataCloneError' });
});

test.serial('what nobody holds any more is freed by the garbage collector', async (t) => {
  const line = `
    import { readdirSync } from 'node:fs';
    import { setImmediate } from 'node:timers/promises';
    import { objectLoad, objectMap, objectOpen, ringOpen } from ${JSON.stringify(addonUrl)};
    const descriptors = () => readdirSync('/proc/self/fd').length;
    const path = ${JSON.stringify(fixture.objectPath)};
    const use = () => { const object = objectOpen(path); objectLoad(object); ringOpen(objectMap(object, 'notes')); };
    const before = descriptors();
    for (let round = 0; round < 10; round++) use();
    const held = descriptors();
    while (descriptors() > before) { gc(); await setImmediate(); }
    console.log(held > before, descriptors() === before);`;
  const { stdout } = await run(process.execPath, ['--expose-gc', '--input-type=module', '-e', line]);
  t.is(stdout, 'true true\n');
});

const addonUrl = new URL('../../../native/addon/index.js', import.meta.url).href;
