import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'ava';
import { checkRooms, cycleIn, importsOf } from '../../../tools/check-rooms.ts';

const ROOMS = {
  rooms: { mesh: [], kernel: ['mesh'], agent: ['mesh'], cli: ['mesh', 'kernel', 'agent'] },
  native: 'kernel',
  composition: { room: 'cli', files: 'compose-', nouns: ['mesh'] },
};

const SOUND = {
  'src/mesh/index.ts': "export { a } from './a.ts';\n",
  'src/mesh/a.ts': 'export const a = 1;\n',
  'src/kernel/index.ts': "export { door } from './door.ts';\n",
  'src/kernel/door.ts':
    "import type { X } from '../../native/addon/index.d.ts';\nexport const door = '../../build/addon/culvert.node';\n",
  'src/agent/index.ts': "import { a } from '../mesh/index.ts';\nimport zod from 'zod';\nexport const b = [a, zod];\n",
  'src/cli/compose-agent.ts': "import { b } from '../agent/index.ts';\nimport { door } from '../kernel/index.ts';\n",
  'src/cli/status.ts': "import { b } from '../agent/index.ts';\nimport { a } from '../mesh/index.ts';\n",
  'native/addon/index.d.ts': 'export type X = 1;\n',
};

function problemsOf(files: Record<string, string>, rooms: unknown = ROOMS): string[] {
  const root = mkdtempSync(path.join(tmpdir(), 'culvert-rooms-'));
  try {
    const all = {
      'rooms.json': JSON.stringify(rooms),
      'package.json': JSON.stringify({ dependencies: { zod: '1.0.0' } }),
      ...files,
    };
    for (const [file, text] of Object.entries(all)) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), text);
    }
    return checkRooms(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('finds nothing to say about a house in order', (t) => {
  t.deepEqual(problemsOf(SOUND), []);
});

const VIOLATIONS: Array<[law: string, files: Record<string, string>, says: RegExp]> = [
  [
    'forbids a room that is not listed',
    { 'src/kernel/door.ts': "import { b } from '../agent/index.ts';\n" },
    /src\/kernel\/door\.ts: kernel may not import agent/,
  ],
  [
    'forbids it to a type-only import as well',
    { 'src/kernel/door.ts': "import type { b } from '../agent/index.ts';\n" },
    /kernel may not import agent/,
  ],
  [
    'forbids it to a dynamic import as well',
    { 'src/kernel/door.ts': "const b = await import('../agent/index.ts');\n" },
    /kernel may not import agent/,
  ],
  [
    'forbids it to a worker as well',
    { 'src/kernel/door.ts': "new Worker(new URL('../agent/index.ts', import.meta.url));\n" },
    /kernel may not import agent/,
  ],
  [
    'forbids it where the import spans lines',
    { 'src/kernel/door.ts': "import {\n  b,\n  c,\n} from '../agent/index.ts';\n" },
    /kernel may not import agent/,
  ],
  [
    'lets a room be entered through its index only',
    { 'src/agent/index.ts': "import { a } from '../mesh/a.ts';\n" },
    /mesh is entered through its index\.ts, not a\.ts/,
  ],
  [
    'lets only the native room import the addon',
    { 'src/agent/index.ts': "import type { X } from '../../native/addon/index.d.ts';\n" },
    /only kernel may import native\/addon/,
  ],
  [
    'lets only the native room load the addon',
    { 'src/agent/index.ts': "require('../../build/addon/culvert.node');\n" },
    /only kernel may load the addon/,
  ],
  [
    'keeps tests, benches and tools out of src',
    { 'src/agent/index.ts': "import { lab } from '../../test/lab/index.ts';\n" },
    /src may not import test\/lab\/index\.ts/,
  ],
  [
    'lets only a composition file join rooms',
    { 'src/cli/status.ts': "import { b } from '../agent/index.ts';\nimport { door } from '../kernel/index.ts';\n" },
    /src\/cli\/status\.ts: only cli\/compose-\*\.ts may join rooms \(agent, kernel\)/,
  ],
  [
    'forbids a cycle of files',
    {
      'src/mesh/a.ts': "import { c } from './c.ts';\nexport const a = 1;\n",
      'src/mesh/c.ts': "import { a } from './a.ts';\nexport const c = 1;\n",
    },
    /a cycle of files: src\/mesh\/a\.ts -> src\/mesh\/c\.ts -> src\/mesh\/a\.ts/,
  ],
  ['forbids a folder that is no room', { 'src/utils/index.ts': '' }, /utils is not a room/],
  ['forbids a file outside all rooms', { 'src/main.ts': '' }, /src\/main\.ts: belongs to no room/],
  ['wants an index to name its exports', { 'src/mesh/index.ts': "export * from './a.ts';\n" }, /export \* does not/],
  ['wants packages to be declared', { 'src/mesh/a.ts': "import x from 'left-pad';\n" }, /left-pad is not among/],
  ['notices an import of nothing', { 'src/mesh/a.ts': "import { x } from './x.ts';\n" }, /x\.ts does not exist/],
];

for (const [law, files, says] of VIOLATIONS) {
  test(law, (t) => {
    const problems = problemsOf({ ...SOUND, ...files });
    t.is(problems.length, 1, problems.join('\n'));
    t.regex(problems[0] ?? '', says);
  });
}

test('forbids a cycle of rooms in the table itself', (t) => {
  const rooms = { ...ROOMS, rooms: { ...ROOMS.rooms, mesh: ['agent'] } };
  t.true(problemsOf(SOUND, rooms).some((problem) => problem.includes('a cycle of rooms: mesh -> agent -> mesh')));
});

test('reads no import out of a comment', (t) => {
  t.deepEqual(
    importsOf("// import { a } from './a.ts';\n/* import './b.ts';\nimport './c.ts'; */\nconst s = '//';\n"),
    [],
  );
});

test('tells a type-only import from one that runs', (t) => {
  t.deepEqual(importsOf("import type { A } from './a.ts';\nimport { type B, b } from './b.ts';\n"), [
    { specifier: './a.ts', typeOnly: true },
    { specifier: './b.ts', typeOnly: false },
  ]);
});

test('finds no cycle where two ways lead to one place', (t) => {
  const graph = new Map([
    ['a', ['b', 'c']],
    ['b', ['d']],
    ['c', ['d']],
  ]);
  t.is(cycleIn(graph), undefined);
});
