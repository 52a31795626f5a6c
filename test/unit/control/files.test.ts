import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { ManifestFiles } from '../../../src/control/manifests/files.ts';
import { ManifestDirectory } from './folder.ts';

const DEBOUNCE = 20;
const named = (...names: string[]) =>
  names.map((name) => `apiVersion: v1\nkind: Namespace\nmetadata: {name: ${name}}\n`).join('---\n');

/** Files that are read when a test says what time it is. */
class Reader {
  readonly #files = new ManifestFiles({ debounceMs: DEBOUNCE });
  readonly #directory: ManifestDirectory;
  readonly #path: string;

  constructor(t: { teardown(run: () => void): void }) {
    this.#directory = new ManifestDirectory(t);
    this.#path = this.#directory.file('a.yaml');
  }

  get path(): string {
    return this.#path;
  }

  /** Writes the file at that time, and is told of it. */
  write(atMs: number, text: string): void {
    this.#directory.write('a.yaml', text);
    this.touch(atMs);
  }

  append(atMs: number, text: string): void {
    appendFileSync(this.#path, text);
    this.touch(atMs);
  }

  delete(atMs: number): void {
    this.#directory.delete('a.yaml');
    this.touch(atMs);
  }

  touch(atMs: number): void {
    this.#files.touch(this.#path, atMs);
  }

  /** Names in force at that time, `!` before them if the file is broken. */
  async at(ms: number): Promise<string> {
    await this.#files.read(() => ms);
    const [file] = this.#files.files();
    if (file === undefined) return 'gone';
    const names = file.manifest.objects.map(({ object }) => object.metadata.name).join(' ');
    return `${file.issues.length > 0 ? '!' : ''}${names}`;
  }

  async changes(ms: number): Promise<boolean> {
    return this.#files.read(() => ms);
  }

  get dueMs(): number | undefined {
    return this.#files.dueMs;
  }
}

test('a file is read when it has been left alone for the debounce', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a'));
  t.is(reader.dueMs, 20);
  t.is(await reader.at(19), 'gone');
  t.is(await reader.at(20), 'a');
  t.is(reader.dueMs, undefined);
  reader.write(100, named('b'));
  reader.touch(110);
  t.is(await reader.at(129), 'a');
  t.is(await reader.at(130), 'b');
});

test('a file that is written piece by piece is never seen without what it had', async (t) => {
  const reader = new Reader(t);
  const text = named('a', 'b', 'c');
  reader.write(0, text);
  t.is(await reader.at(20), 'a b c');
  reader.write(100, '');
  t.is(await reader.at(150), 'a b c');
  reader.append(200, text.slice(0, 60));
  t.is(await reader.at(250), 'a b c');
  reader.append(250, text.slice(60, 110));
  t.is(await reader.at(300), 'a b c');
  reader.append(300, `${text.slice(110)}---\n${named('d')}`);
  t.is(await reader.at(320), 'a b c d');
});

test('a file cut at a document’s end is believed after three times the debounce', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a', 'b'));
  t.is(await reader.at(20), 'a b');
  reader.write(100, named('a'));
  t.is(await reader.at(159), 'a b');
  t.is(await reader.at(160), 'a');
});

test('a file that is gone is believed so after three times the debounce, one that comes back is not gone', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a'));
  t.is(await reader.at(20), 'a');
  reader.delete(100);
  t.is(await reader.at(159), 'a');
  reader.write(159, named('b'));
  t.is(await reader.at(178), 'a');
  t.is(await reader.at(179), 'b');
  reader.delete(300);
  t.is(await reader.at(360), 'gone');
});

test('a broken file keeps its last good state, and says so after ten times the debounce', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a'));
  t.is(await reader.at(20), 'a');
  reader.write(100, `${named('b')}---\nkind: [\n`);
  t.is(await reader.at(299), 'a');
  t.is(await reader.at(300), '!a');
  reader.write(400, named('b'));
  t.is(await reader.at(420), 'b');
});

test('a broken file that is put back as it was is whole again', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a'));
  t.true(await reader.changes(20));
  reader.write(100, 'kind: [\n');
  t.true(await reader.changes(300));
  reader.write(400, named('a'));
  t.true(await reader.changes(420));
  t.is(await reader.at(420), 'a');
});

test('a file that is broken from the start has nothing in force', async (t) => {
  const reader = new Reader(t);
  reader.write(0, 'kind: [\n');
  t.is(await reader.at(200), '!');
});

test('what is written again as it was changes nothing', async (t) => {
  const reader = new Reader(t);
  reader.write(0, named('a'));
  t.true(await reader.changes(20));
  reader.touch(100);
  t.false(await reader.changes(120));
  reader.write(200, named('a'));
  t.false(await reader.changes(220));
});

test('a folder is no file, whatever its name', async (t) => {
  const reader = new Reader(t);
  mkdirSync(reader.path);
  reader.touch(0);
  t.is(await reader.at(20), 'gone');
});

test('files are kept in the order of their paths, broken ones too', async (t) => {
  const directory = new ManifestDirectory(t);
  const files = new ManifestFiles({ debounceMs: DEBOUNCE });
  for (const name of ['c.yaml', 'a.yaml', 'b/a.yaml', 'B.yaml']) {
    files.touch(directory.write(name, named('a')), 0);
  }
  writeFileSync(directory.file('broken.yaml'), '[');
  files.touch(directory.file('broken.yaml'), 0);
  await files.read(() => 10 * DEBOUNCE);
  const found = files.files().map(({ path, issues }) => `${path.slice(directory.path.length + 1)} ${issues.length}`);
  t.deepEqual(found, ['B.yaml 0', 'a.yaml 0', 'b/a.yaml 0', 'broken.yaml 1', 'c.yaml 0']);
});
