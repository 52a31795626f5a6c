import { existsSync, readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { reason } from '../../src/gen/layout.ts';
import { END_REASONS } from '../../src/ztunnel/index.ts';

const root = new URL('../../', import.meta.url);
const page = readFileSync(new URL('docs/errors.md', root), 'utf8');

/** The rooms that have errors, and the names of their lists: one exported array per errors.ts. */
const rooms = readdirSync(new URL('src/', root)).filter((room) => existsSync(new URL(`src/${room}/errors.ts`, root)));
const listName = /ErrorCodes$|_ERROR_CODES$/;

async function codesOf(room: string): Promise<readonly string[]> {
  const exported: Record<string, unknown> = await import(new URL(`src/${room}/errors.ts`, root).href);
  const lists = Object.entries(exported).filter(([name]) => listName.test(name));
  const [list] = lists.map(([, value]) => value);
  if (lists.length !== 1 || !Array.isArray(list))
    throw new Error(`src/${room}/errors.ts must export one list of codes`);
  return list;
}

/** Rows of the table under a room's heading: code, meaning, what to do. */
function rowsOf(room: string): string[][] {
  const [, section = ''] = page.split(new RegExp(`^## ${room}$`, 'm'));
  const [own = ''] = section.split(/^## /m);
  return own
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

for (const room of rooms) {
  test(`docs/errors.md explains exactly the codes of ${room}`, async (t) => {
    const codes = await codesOf(room);
    t.deepEqual(
      rowsOf(room)
        .map(([code]) => code)
        .sort(),
      codes.map((code) => `\`${code}\``).sort(),
    );
    t.is(new Set(codes).size, codes.length);
  });

  test(`every code of ${room} says what it means and what to do`, (t) => {
    for (const [code, meaning = '', remedy = '', ...rest] of rowsOf(room)) {
      t.true(meaning.length > 10, code);
      t.true(remedy.length > 5, code);
      t.deepEqual(rest, [], code);
    }
  });

  test(`every code of ${room} is used in its sources`, async (t) => {
    const folder = new URL(`src/${room}/`, root);
    const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && file !== 'errors.ts')
      .map((file) => readFileSync(new URL(file, folder), 'utf8'))
      .join('\n');
    for (const code of await codesOf(room)) t.true(sources.includes(`'${code}'`), code);
  });
}

test('docs/errors.md has no section for a room without errors', (t) => {
  t.deepEqual([...page.matchAll(/^## ([a-z]+)$/gm)].map(([, room]) => room).sort(), [...rooms].sort());
});

for (const [section, names] of [
  ['Why a connection ended', END_REASONS],
  [
    'Kernel reasons',
    Object.keys(reason)
      .filter((name) => name !== 'COUNT')
      .map((name) => name.toLowerCase()),
  ],
] as const) {
  test(`docs/errors.md explains exactly what stands under "${section}"`, (t) => {
    const rows = rowsOf(section);
    t.deepEqual(rows.map(([name]) => name).sort(), names.map((name) => `\`${name}\``).sort());
    for (const [name, meaning = '', remedy = '', ...rest] of rows) {
      t.true(meaning.length > 10, name);
      t.true(remedy.length > 5, name);
      t.deepEqual(rest, [], name);
    }
  });
}
