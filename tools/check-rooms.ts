/**
 * ./dev check rooms: who may import whom, as rooms.json says.
 *
 * - A file imports from its own room, or from a room that rooms.json allows, and there only its index.ts
 *   (gen has none: its files are entered by name). `import type` counts like any other.
 * - The allowed imports have no cycle, and neither have the files of src (type-only imports left out: they vanish).
 * - Only the room `native` enters native/addon or loads culvert.node. src imports nothing else outside src.
 * - In the composition room only files whose names begin with `files` import more than one room besides `nouns`.
 * - A room's index.ts names what it exports. Packages are node: modules or package.json's dependencies.
 *
 * Imports are found in the text, with comments left out; `new URL('./x.ts', import.meta.url)` (a worker) is one, too.
 */
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';

interface Rooms {
  rooms: Record<string, string[]>;
  native: string;
  composition: { room: string; files: string; nouns: string[] };
}

interface Import {
  specifier: string;
  typeOnly: boolean;
}

/** The text without comments. Strings are kept; a quote inside a regular expression ends at its line's end. */
export function withoutComments(text: string): string {
  return text.replace(
    /("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\[\s\S])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_match, kept: string | undefined) => kept ?? ' ',
  );
}

const PATTERNS = [
  /^\s*(?:import|export)\s+(type\s+)?(?:[\w*${][^;'"`]*?\s*from\s*)['"]([^'"]+)['"]/gm,
  /^\s*import\s*()['"]([^'"]+)['"]/gm,
  /\bimport\s*\(\s*()['"]([^'"]+)['"]/g,
  /\bnew\s+URL\(\s*()['"](\.[^'"]+\.ts)['"]/g,
];

export function importsOf(source: string): Import[] {
  const code = withoutComments(source);
  return PATTERNS.flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => ({
      specifier: match[2] ?? '',
      typeOnly: (match[1] ?? '').startsWith('type'),
    })),
  );
}

/** The first cycle of a graph, as the nodes along it. */
export function cycleIn(graph: ReadonlyMap<string, ReadonlyArray<string>>): string[] | undefined {
  const done = new Set<string>();
  const walk = (node: string, trail: string[]): string[] | undefined => {
    const seen = trail.indexOf(node);
    if (seen >= 0) return [...trail.slice(seen), node];
    if (done.has(node)) return undefined;
    for (const next of graph.get(node) ?? []) {
      const cycle = walk(next, [...trail, node]);
      if (cycle !== undefined) return cycle;
    }
    done.add(node);
    return undefined;
  };
  for (const node of graph.keys()) {
    const cycle = walk(node, []);
    if (cycle !== undefined) return cycle;
  }
  return undefined;
}

function readRooms(root: string): Rooms {
  return JSON.parse(readFileSync(path.join(root, 'rooms.json'), 'utf8')) as Rooms;
}

function readDependencies(root: string): Set<string> {
  const file = path.join(root, 'package.json');
  if (!existsSync(file)) return new Set();
  const parsed = JSON.parse(readFileSync(file, 'utf8')) as { dependencies?: Record<string, string> };
  return new Set(Object.keys(parsed.dependencies ?? {}));
}

const packageOf = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');

/** Every violation below `root`, one sentence each. */
export function checkRooms(root: string): string[] {
  const { rooms, native, composition } = readRooms(root);
  const dependencies = readDependencies(root);
  const problems: string[] = [];

  for (const [room, allowed] of Object.entries(rooms)) {
    for (const other of allowed) {
      if (!(other in rooms)) problems.push(`rooms.json: ${room} may import ${other}, which is not a room`);
    }
  }
  const tableCycle = cycleIn(new Map(Object.entries(rooms)));
  if (tableCycle !== undefined) problems.push(`rooms.json: a cycle of rooms: ${tableCycle.join(' -> ')}`);

  const files = globSync('src/**/*.ts', { cwd: root }).sort();
  const graph = new Map<string, string[]>();
  for (const file of files) {
    const [, room = '', ...inside] = file.split(path.sep);
    if (inside.length === 0) {
      problems.push(`${file}: belongs to no room`);
      continue;
    }
    const allowed = rooms[room];
    if (allowed === undefined) {
      problems.push(`${file}: ${room} is not a room of rooms.json`);
      continue;
    }
    const source = readFileSync(path.join(root, file), 'utf8');
    if (inside.join('/') === 'index.ts' && /^\s*export\s+(type\s+)?\*/m.test(withoutComments(source))) {
      problems.push(`${file}: an index names what it exports; export * does not`);
    }
    if (room !== native && /culvert\.node['"`]/.test(withoutComments(source))) {
      problems.push(`${file}: only ${native} may load the addon`);
    }

    const entered = new Set<string>();
    const edges: string[] = [];
    for (const { specifier, typeOnly } of importsOf(source)) {
      if (!specifier.startsWith('.')) {
        if (!specifier.startsWith('node:') && !dependencies.has(packageOf(specifier))) {
          problems.push(`${file}: ${specifier} is not among package.json's dependencies`);
        }
        continue;
      }
      const target = path.normalize(path.join(path.dirname(file), specifier));
      const [top = '', other = '', ...rest] = target.split(path.sep);
      if (top === 'native' && other === 'addon') {
        if (room !== native) problems.push(`${file}: only ${native} may import native/addon`);
        continue;
      }
      if (top !== 'src') {
        problems.push(`${file}: src may not import ${target}`);
        continue;
      }
      if (!existsSync(path.join(root, target))) problems.push(`${file}: ${target} does not exist`);
      if (!typeOnly) edges.push(target);
      if (other === room) continue;
      entered.add(other);
      if (!allowed.includes(other)) problems.push(`${file}: ${room} may not import ${other}`);
      else if (other !== 'gen' && rest.join('/') !== 'index.ts') {
        problems.push(`${file}: ${other} is entered through its index.ts, not ${rest.join('/')}`);
      }
    }
    graph.set(file, edges);

    const joined = [...entered].filter((other) => !composition.nouns.includes(other));
    if (room === composition.room && joined.length > 1 && !path.basename(file).startsWith(composition.files)) {
      problems.push(`${file}: only ${composition.room}/${composition.files}*.ts may join rooms (${joined.join(', ')})`);
    }
  }

  const fileCycle = cycleIn(graph);
  if (fileCycle !== undefined) problems.push(`a cycle of files: ${fileCycle.join(' -> ')}`);
  return problems;
}

if (import.meta.main) {
  const problems = checkRooms(process.argv[2] ?? '.');
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
