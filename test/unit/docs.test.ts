import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { parseAllDocuments } from 'yaml';
import { program } from '../../src/cli/main.ts';
import { FlowMetrics, openMetrics, SeriesBook } from '../../src/telemetry/index.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const pages = globSync(['*.md', 'docs/**/*.md'], { cwd: root });

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8');
}

/** Cells of the rows of all tables in a text, backquotes taken off. */
function rowsOf(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('|') && !line.startsWith('|--'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim().replace(/^`(.*)`$/, '$1')),
    );
}

/** Anchors of a page's headings, as GitHub makes them. */
function anchorsOf(page: string): Set<string> {
  const headings = [...page.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading);
  return new Set(
    headings.map((heading) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

test('the rooms of docs/architecture.md are those of rooms.json', (t) => {
  const [, table = ''] = read('docs/architecture.md').split(/<!-- \/?rooms -->/);
  const [, ...rows] = rowsOf(table);
  const { rooms } = JSON.parse(read('rooms.json')) as { rooms: Record<string, string[]> };
  t.deepEqual(
    Object.fromEntries(rows.map(([room = '', may = '']) => [room, may === 'nothing' ? [] : may.split(', ')])),
    rooms,
  );
});

for (const page of pages)
  test(`every link of ${page} leads somewhere`, (t) => {
    for (const [, link = ''] of read(page).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link)) continue;
      const [file = '', anchor] = link.split('#');
      const target = file === '' ? page : relative(root, join(root, dirname(page), file));
      t.true(existsSync(join(root, target)), link);
      if (anchor !== undefined) t.true(anchorsOf(read(target)).has(anchor), link);
    }
    t.pass();
  });

for (const page of pages)
  test(`every file that ${page} names is there`, (t) => {
    const made = /^(build|node_modules|src\/gen)\//;
    for (const [, path = ''] of read(page).matchAll(/`((?:src|native|test|tools|docs|bench|deploy)\/[\w./-]+)`/g))
      if (!made.test(path) && !path.includes('NAME')) t.true(existsSync(join(root, path)), path);
    t.pass();
  });

test('docs/metrics.md lists exactly the metrics that there are', (t) => {
  const listed = rowsOf(read('docs/metrics.md'))
    .filter(([, type = '']) => ['counter', 'gauge', 'histogram', 'summary'].includes(type))
    .map(([name, type]) => `${name} ${type}`);
  const metrics = openMetrics();
  metrics.add(new SeriesBook().families);
  metrics.add(new FlowMetrics().families);
  const existing = metrics.families().map(({ name, type }) => `${name} ${type}`);
  t.deepEqual(listed.sort(), existing.sort());
});

test('docs/development.md explains every verb of ./dev, and no other', (t) => {
  const [, verbs = ''] = read('dev').split('case "$command" in\n');
  const existing = [...verbs.matchAll(/^([a-z]+)(?: \| [-\w |]+)?\)$/gm)].map(([, verb]) => verb);
  const [, section = ''] = read('docs/development.md').split(/^## .*$/m);
  const explained = rowsOf(section).flatMap(([verb = '']) => /^\.\/dev (\w+)/.exec(verb)?.[1] ?? []);
  t.true(existing.length > 5);
  t.deepEqual(explained.sort(), existing.sort());
});

test('docs/kernel.md lists exactly the maps and programs that there are', (t) => {
  const headers = globSync('native/bpf/include/*.h', { cwd: root }).map(read).join('\n');
  const maps = [...headers.matchAll(/^\} (\w+) SEC\("\.maps"\)/gm)].map(([, name]) => name);
  const page = read('docs/kernel.md');
  const [, section = ''] = page.split(/^## Maps$/m);
  const [, ...rows] = rowsOf(section.split(/^## /m)[0] ?? '');
  t.deepEqual(rows.map(([name]) => name).sort(), maps.sort());
  const sources = globSync('native/bpf/*.bpf.c', { cwd: root }).map(read).join('\n');
  for (const [, name = ''] of sources.matchAll(/^int (on_\w+)\(/gm)) t.true(page.includes(`\`${name}\``), name);
});

test('docs/decisions/README.md lists every decision', (t) => {
  const listed = [...read('docs/decisions/README.md').matchAll(/\]\((\d{4}-[^)]+)\)/g)].map(([, file]) => file);
  t.deepEqual(listed, globSync('????-*.md', { cwd: join(root, 'docs/decisions') }).sort());
});

/** As much of the manifest as is looked at. */
interface DaemonSet {
  readonly kind: string;
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly hostNetwork: boolean;
        readonly terminationGracePeriodSeconds: number;
        readonly volumes: ReadonlyArray<{ name: string }>;
        readonly containers: ReadonlyArray<{
          args: string[];
          volumeMounts: ReadonlyArray<{ name: string; mountPath: string }>;
          securityContext: { capabilities: { add: string[] } };
        }>;
      };
    };
  };
}

test('deploy/daemonset.yaml gives the agent what it asks for', (t) => {
  const objects = parseAllDocuments(read('deploy/daemonset.yaml')).map((document) => document.toJS() as DaemonSet);
  t.deepEqual(
    objects.map(({ kind }) => kind),
    ['Namespace', 'DaemonSet'],
  );
  const pod = objects[1]?.spec.template.spec;
  const [container] = pod?.containers ?? [];
  if (pod === undefined || container === undefined) return t.fail();
  t.true(pod.hostNetwork);
  t.deepEqual(container.volumeMounts.map(({ name }) => name).sort(), pod.volumes.map(({ name }) => name).sort());

  const needed = [...read('src/kernel/preflight.ts').matchAll(/\bCAP_(\w+): \d+/g)].map(([, name]) => name);
  t.deepEqual(container.securityContext.capabilities.add.toSorted(), needed.sort());

  const [command, ...options] = container.args;
  const known = program({ out: () => undefined, error: () => undefined }, () => undefined).commands.find(
    (each) => each.name() === command,
  );
  const given = Object.fromEntries(options.map((option) => option.split('=') as [string, string]));
  const names = known?.options.map(({ long }) => long);
  for (const name of Object.keys(given)) t.true(names?.includes(name), name);
  const mounted = container.volumeMounts.map(({ mountPath }) => mountPath);
  for (const name of ['--cgroup', '--bpffs', '--run']) t.true(mounted.includes(given[name] ?? ''), name);
  t.true(pod.terminationGracePeriodSeconds > Number(given['--drain']));
});
