import { EventEmitter } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { main } from '../../../src/cli/main.ts';
import { preflight } from '../../../src/cli/preflight.ts';
import { runService } from '../../../src/cli/service.ts';
import { table } from '../../../src/cli/table.ts';
import { uninstall } from '../../../src/cli/uninstall.ts';
import { version } from '../../../src/cli/version.ts';

function capture() {
  const written = { out: '', error: '' };
  const output = {
    out(text: string) {
      written.out += text;
    },
    error(text: string) {
      written.error += text;
    },
  };
  return { written, output };
}

/** Where cgroup v2 is mounted on this machine. */
const cgroupRoot = /^\S+ (\S+) cgroup2 /m.exec(readFileSync('/proc/self/mounts', 'utf8'))?.[1] ?? '/sys/fs/cgroup';

const enrolment = [
  '--uid',
  'a',
  '--name',
  'web',
  '--namespace',
  'shop',
  '--netns',
  '/run/netns/a',
  '--address',
  '10.0.0.1',
];

for (const [title, args, sentence] of [
  ['no command', [], /name a command/],
  ['an unknown command', ['fly'], /unknown command 'fly'/],
  ['an unknown option', ['status', '--loud'], /unknown option '--loud'/],
  ['an argument too many', ['status', 'x'], /too many arguments/],
  ['no uid', ['withdraw'], /missing required argument 'uid'/],
  ['half an enrolment', ['enrol', '--uid', 'a'], /required option/],
  ['workers that are no number', ['agent', '--workers', 'all'], /whole number from 1 to 64/],
  ['too many workers', ['agent', '--workers', '65'], /whole number from 1 to 64/],
  ['a node without a control process', ['agent', '--node', 'n1'], /--node and --control together/],
  ['a control process without a node', ['agent', '--control', '/x.sock'], /--node and --control together/],
  ['a kernel path that is neither', ['agent', '--kernel-path', 'maybe'], /Allowed choices are on, off/],
  [
    'a kubelet somewhere',
    ['agent', '--node', 'n1', '--control', '/x.sock', '--kubelet-cgroup', 'kubelet'],
    /absolute path/,
  ],
  ['a kubelet without a mesh', ['agent', '--kubelet-cgroup', '/k'], /--kubelet-cgroup needs --control/],
  [
    'a kubelet whose group is the root of all',
    ['agent', '--node', 'n1', '--control', '/x.sock', '--kubelet-cgroup', cgroupRoot],
    /is the root of all control groups/,
  ],
  ['a drain that is no time', ['agent', '--drain', '1m'], /number of seconds/],
  ['a PING at no interval', ['agent', '--ping-interval', '0'], /from 0\.1 to 1728000 seconds/],
  ['a life too short to be renewed', ['control', '--certificate-life', '4'], /whole number from 5 to 7776000/],
  ['a control process without manifests', ['control', '--ca', '/ca', '--run', '/run'], /--manifests <dir>/],
  ['a control process without a CA', ['control', '--manifests', '/m', '--run', '/run'], /--ca <dir>/],
  ['a control process without a run directory', ['control', '--manifests', '/m', '--ca', '/ca'], /--run <dir>/],
  ['a check of nothing', ['policy', 'check'], /missing required argument 'file'/],
  ['a replay of nothing', ['policy', 'replay'], /missing required argument 'file'/],
  ['a question without a source', ['policy', 'test', '--to', 'a/b:1'], /--from <id>/],
  ['a question without a target', ['policy', 'test', '--from', 'none'], /--to <pod:port>/],
  ['a rotation without a CA', ['ca', 'rotate'], /--ca <dir>/],
  ['an unknown log level', ['agent', '--log-level', 'loud'], /Allowed choices/],
  ['a port that is none', ['enrol', ...enrolment, '--exclude-outbound-ports', '80,x'], /whole number from 1 to 65535/],
  [
    'a block that is none',
    ['enrol', ...enrolment, '--exclude-outbound-cidrs', '10.0.0.1/8'],
    /excludeOutboundCidrs\[0\]/,
  ],
  ['a name that is none', ['enrol', ...enrolment, '--service-account', 'A B'], /serviceAccount: must be/],
] as Array<[string, string[], RegExp]>)
  test(`${title} is a usage error of one sentence`, async (t) => {
    const { written, output } = capture();
    t.is(await main(args, output), 2);
    t.regex(written.error, sentence);
    t.regex(written.error, /^culvert: .*\n$/);
    t.is(written.out, '');
  });

test('--version tells the version of package.json', async (t) => {
  const { written, output } = capture();
  t.is(await main(['--version'], output), 0);
  t.is(written.out, `${version()}\n`);
  t.regex(written.out, /^\d+\.\d+\.\d+\n$/);
});

test('help is no error', async (t) => {
  const { written, output } = capture();
  t.is(await main(['--help'], output), 0);
  for (const name of ['agent', 'control', 'ca', 'enrol', 'withdraw', 'status', 'policy', 'preflight', 'uninstall'])
    t.true(written.out.includes(name));
});

test('without an agent the command says so and fails', async (t) => {
  const { written, output } = capture();
  t.is(await main(['status', '--run', '/nowhere'], output), 1);
  t.regex(written.error, /^culvert: no agent answers at \/nowhere\/agent\.sock .*\n$/);
});

test('the preflight report fails when a check has failed, not when one warns', async (t) => {
  const options = { cgroup: '/c', bpffs: '/b', json: false };
  const warned = capture();
  const warning = { check: 'kernel', result: 'warning' as const, detail: 'old' };
  t.is(await preflight({ preflight: async () => [warning] }, options, warned.output), 0);
  t.regex(warned.written.out, /kernel +warning +old/);
  const failed = capture();
  const failure = { check: 'BTF', result: 'failed' as const, detail: 'missing' };
  t.is(await preflight({ preflight: async () => [warning, failure] }, { ...options, json: true }, failed.output), 1);
  t.deepEqual(JSON.parse(failed.written.out), { fit: false, checks: [warning, failure] });
});

test('uninstall tells what it removed', async (t) => {
  const { written, output } = capture();
  const options = { cgroup: '/c', bpffs: '/b', run: '/r', json: false };
  t.is(await uninstall({ uninstall: async () => ['/b/culvert/v1/links/on_connect4'] }, options, output), 0);
  t.is(written.out, 'removed /b/culvert/v1/links/on_connect4\n');
});

test('a table keeps its columns, and control characters out of the terminal', (t) => {
  t.is(table(['A', 'LONG'], [['xyz', 'b\u001b[31m']]), 'A    LONG\nxyz  b?[31m\n');
});

test('the first signal drains, and the agent ends well', async (t) => {
  const signals = new EventEmitter();
  const started = Promise.withResolvers<void>();
  let stopped = false;
  const running = {
    start: async () => started.resolve(),
    stop: async () => {
      stopped = true;
    },
  };
  const ended = runService(running, signals);
  await started.promise;
  signals.emit('SIGTERM');
  t.is(await ended, 0);
  t.true(stopped);
  t.is(signals.listenerCount('SIGTERM') + signals.listenerCount('SIGINT'), 0);
});

test('the second signal ends the agent at once, however long the drain', async (t) => {
  const signals = new EventEmitter();
  const stopping = Promise.withResolvers<void>();
  const running = {
    start: async () => undefined,
    stop: () => {
      stopping.resolve();
      return new Promise<void>(() => undefined);
    },
  };
  const ended = runService(running, signals);
  signals.emit('SIGTERM');
  await stopping.promise;
  signals.emit('SIGTERM');
  t.is(await ended, 1);
});

test('a rotation adds a root to the CA that is there, and makes none where there is none', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'culvert-ca-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  chmodSync(directory, 0o700);
  const missing = capture();
  t.is(await main(['ca', 'rotate', '--ca', join(directory, 'nowhere')], missing.output), 1);
  t.regex(missing.written.error, /^culvert: there is no CA at .*nowhere/);
  t.deepEqual(readdirSync(directory), []);
  const { written, output } = capture();
  t.is(await main(['ca', 'rotate', '--ca', directory], output), 0);
  t.is(readdirSync(directory).length, 1);
  t.regex(written.out, /^added .*\.pem$/m);
});
