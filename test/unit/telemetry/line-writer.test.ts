import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { LineWriter, type LineWriterOptions } from '../../../src/telemetry/index.ts';

const directory = mkdtempSync(join(tmpdir(), 'lines-'));
test.after.always(() => rmSync(directory, { recursive: true }));

function writerTo(path: string, options?: LineWriterOptions) {
  const failures: string[] = [];
  return { failures, writer: new LineWriter({ failed: ({ message }) => failures.push(message) }, { path }, options) };
}

function linesOf(path: string): string[] {
  return readFileSync(path, 'utf8').split('\n').slice(0, -1);
}

test('writes every line, in order, and counts them', async (t) => {
  const path = join(directory, 'all');
  const { writer } = writerTo(path);
  const lines = Array.from({ length: 5000 }, (_, index) => `line ${index} ${'x'.repeat(index % 100)}`);
  for (const line of lines) writer.write(`${line}\n`);
  await writer.close();
  t.deepEqual(linesOf(path), lines);
  t.deepEqual(writer.counts(), { written: 5000, dropped: 0, failed: 0 });
});

test('what fits into no buffer is dropped whole, and counted', async (t) => {
  const path = join(directory, 'bounded');
  const { writer } = writerTo(path, { maxBytes: 100 });
  for (let index = 0; index < 20; index += 1) writer.write(`${index} 0123456\n`);
  await writer.close();
  const lines = linesOf(path);
  t.is(lines.length + writer.counts().dropped, 20);
  for (const line of lines) t.regex(line, /^\d+ 0123456$/);
});

test('a write that fails is counted, said once, and tried again until it can be done', async (t) => {
  const path = join(directory, 'missing', 'log');
  const { writer, failures } = writerTo(path, { retryMs: 5 });
  writer.write('kept\n');
  while (writer.counts().failed < 3) await sleep(5);
  t.is(failures.length, 1);
  t.regex(failures[0] ?? '', /ENOENT/);
  mkdirSync(join(directory, 'missing'));
  while (writer.counts().written < 1) await sleep(5);
  await writer.close();
  t.deepEqual(linesOf(path), ['kept']);
});

test('a full disk keeps nobody from ending, and what is lost is counted', async (t) => {
  const { writer, failures } = writerTo('/dev/full', { retryMs: 5, maxBytes: 1000 });
  for (let index = 0; index < 200; index += 1) writer.write('a line of some length\n');
  while (writer.counts().failed < 2) await sleep(5);
  await writer.close(20);
  t.regex(failures[0] ?? '', /ENOSPC/);
  const { written, dropped } = writer.counts();
  t.is(written, 0);
  t.true(dropped > 150);
  while (writer.counts().dropped < 200) await sleep(5);
});

test('after the file was moved away and it was told so, it writes a new one', async (t) => {
  const path = join(directory, 'rotated');
  const { writer } = writerTo(path);
  writer.write('before\n');
  while (writer.counts().written < 1) await sleep(1);
  renameSync(path, `${path}.1`);
  writer.reopen();
  writer.write('after\n');
  await writer.close();
  t.deepEqual([linesOf(`${path}.1`), linesOf(path)], [['before'], ['after']]);
});

test('a pipe that nobody reads for a while holds nobody up and loses nothing that fits', async (t) => {
  const path = join(directory, 'pipe');
  execFileSync('mkfifo', [path]);
  // Waits for nobody, as opening one end of it would.
  const both = openSync(path, constants.O_RDWR);
  const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  const writer = new LineWriter({ failed: () => t.fail() }, { fd });
  const lines = Array.from({ length: 3000 }, (_, index) => `${index} ${'y'.repeat(90)}`);
  for (const line of lines) writer.write(`${line}\n`);
  await sleep(20);
  t.true(writer.counts().written < 3000, 'the pipe holds less');
  const reader = spawn('cat', [path], { stdio: ['ignore', 'pipe', 'inherit'] });
  const read: string[] = [];
  const input = createInterface({ input: reader.stdout });
  input.on('line', (line) => read.push(line));
  while (writer.counts().written < 3000) await sleep(5);
  await writer.close();
  while (read.length < 3000) await sleep(5);
  for (const each of [fd, both]) closeSync(each);
  await once(reader, 'exit');
  t.deepEqual(read, lines);
});

test('after the end nothing is taken', async (t) => {
  const path = join(directory, 'ended');
  const { writer } = writerTo(path);
  writer.write('one\n');
  await writer.close();
  writer.write('two\n');
  t.like(writer.counts(), { written: 1, dropped: 1 });
  await writer.close();
});
