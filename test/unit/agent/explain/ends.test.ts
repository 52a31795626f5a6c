import { readFileSync } from 'node:fs';
import test from 'ava';
import { ENDS } from '../../../../src/agent/index.ts';
import { END_REASONS } from '../../../../src/ztunnel/index.ts';

const errors = readFileSync(new URL('../../../../docs/errors.md', import.meta.url), 'utf8');
const section = errors.slice(errors.indexOf('## Why a connection ended'), errors.indexOf('## Kernel reasons'));

/** A cell of a table as people read it. */
function plain(cell: string): string {
  return cell.replaceAll(/\[([^\]]+)\]\([^)]*\)/g, '$1').replaceAll('`', '');
}

test('explain says of every end what docs/errors.md says of it, and of no other', (t) => {
  const rows = [...section.matchAll(/^\| `([^`]+)` \| (.*?) \| (.*?) \|$/gm)];
  t.deepEqual(
    Object.fromEntries(ENDS),
    Object.fromEntries(
      rows.map(([, reason = '', meaning = '', todo = '']) => [reason, { meaning: plain(meaning), todo: plain(todo) }]),
    ),
  );
  t.deepEqual([...ENDS.keys()].sort(), [...END_REASONS].sort());
});
