/** `culvert uninstall` and `culvert preflight`, as a user runs them, and the commands that ask the agent. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { command } from '../lab/command.ts';
import { projectRoot } from '../lab/compile.ts';
import { apps, Lab, type LabNode, type Outcome, type Snapshot, snapshot } from '../lab/index.ts';
import { accepted, entries, podPins, settled, statusOf } from './inspect.ts';

/** Runs `culvert` in the node's own namespace. */
function culvert(node: LabNode, ...argv: string[]): Promise<Outcome> {
  return node.exec([process.execPath, join(projectRoot, 'src/cli/main.ts'), ...argv]);
}

function whole(node: LabNode): string[] {
  return ['--cgroup', node.cgroup, '--bpffs', node.bpffs, '--run', node.runDirectory];
}

/** What is the node's own. Programs, links and maps are the whole kernel's: others make and free some meanwhile. */
function ofNode({ attached, pins, files, rules, listeners }: Snapshot): Omit<Snapshot, 'programs' | 'links' | 'maps'> {
  return { attached, pins, files, rules, listeners };
}

/** What is in the kernel now and was not before. */
function added(before: Snapshot, now: Snapshot): string[] {
  return (['programs', 'links', 'maps'] as const).flatMap((kind) =>
    now[kind].filter((row) => !before[kind].includes(row)).map((row) => `${kind} ${row}`),
  );
}

/** Somebody else's program at our hooks: attached in both ways that there are, and pinned beside ours. */
async function attachForeign(node: LabNode, name = 'foreign_connect'): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'culvert-foreign-'));
  try {
    const source = [
      'struct bpf_sock_addr;',
      `__attribute__((section("cgroup/connect4"), used)) int ${name}(struct bpf_sock_addr *ctx) { return 1; }`,
      '__attribute__((section("license"), used)) char LICENSE[] = "GPL";',
    ].join('\n');
    writeFileSync(join(scratch, 'foreign.c'), source);
    const object = join(scratch, 'foreign.o');
    await command(['clang', '-target', 'bpf', '-g', '-O2', '-c', join(scratch, 'foreign.c'), '-o', object]);
    const pin = join(node.bpffs, name);
    await command(['bpftool', 'prog', 'load', object, pin, 'type', 'cgroup/connect4']);
    await command(['bpftool', 'cgroup', 'attach', node.cgroup, 'connect4', 'pinned', pin, 'multi']);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

test.serial("uninstall returns the node to as it was, and leaves what is somebody else's", async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const [client, server] = [await node.pod('client'), await node.pod('server')];
  await server.run(apps.echo({ port: 8080, quiet: true })).json({ event: 'listening' });
  await attachForeign(node);
  mkdirSync(join(node.bpffs, 'culvert', 'theirs'), { recursive: true });
  writeFileSync(join(node.runDirectory, 'theirs'), '');
  const before = await snapshot(node);
  t.is(before.attached.length, 1);

  const agent = await node.agent();
  for (const pod of [client, server])
    await agent.enrol(pod, { excludeOutboundPorts: [9], excludeInboundCidrs: ['192.0.2.0/24'] });
  const argv = apps.pythonConnect({ to: server.ipv4, port: 8080 });
  t.is((await client.exec(argv)).code, 0);
  t.is(
    await settled(
      () => accepted(agent),
      (count) => count === 2,
    ),
    2,
  );
  const during = await snapshot(node);
  const ours = added(before, during);
  t.true(ours.length >= 8 + 8 + 11 + 2);
  await agent.kill();
  t.is((await client.exec(argv)).code, 1, 'refused while the agent is dead');

  const { code, stdout, stderr } = await culvert(node, 'uninstall', ...whole(node));
  t.is(code, 0, stderr);
  t.regex(stdout, /^removed .*\/links\/on_connect4$/m);
  const after = await settled(
    () => snapshot(node),
    (now) => !added(before, now).some((row) => ours.includes(row)),
  );
  t.deepEqual(
    added(before, after).filter((row) => ours.includes(row)),
    [],
  );
  t.deepEqual(ofNode(after), ofNode(before));
  t.is((await client.exec(argv)).code, 0);

  const again = await culvert(node, 'uninstall', ...whole(node));
  t.is(again.code, 0);
  t.is(again.stdout, 'nothing to remove\n');
  t.deepEqual(ofNode(await snapshot(node)), ofNode(before));
});

test.serial('uninstall refuses while an agent runs, and so does a second agent', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pod = await node.pod('client');
  const agent = await node.agent();
  await agent.enrol(pod);
  const before = [await snapshot(node).then(ofNode), await entries(node)];

  for (const args of [
    ['uninstall', ...whole(node)],
    ['agent', ...whole(node), '--workers', '1'],
  ]) {
    const { code, stdout, stderr } = await culvert(node, ...args);
    t.is(code, 1);
    t.regex(stdout + stderr, /another agent holds .*agent\.lock; stop it first/);
  }
  t.deepEqual([await snapshot(node).then(ofNode), await entries(node)], before);
  t.like(await statusOf(agent), { agent: { state: 'serving' }, pods: [{ uid: pod.uid, path: 'enrolled' }] });
});

test.serial('preflight says yes on a fit node, no on an unfit one, and leaves nothing', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const before = await snapshot(node);
  const kernel = ['--cgroup', node.cgroup, '--bpffs', node.bpffs];

  const table = await culvert(node, 'preflight', ...kernel);
  t.is(table.code, 0, table.stdout + table.stderr);
  t.regex(table.stdout, /^CHECK +RESULT +DETAIL$/m);
  t.regex(table.stdout, /^this node can run the agent$/m);
  const json = await culvert(node, 'preflight', ...kernel, '--json');
  t.is(json.code, 0);
  const report = JSON.parse(json.stdout) as { fit: boolean; checks: Array<{ check: string; result: string }> };
  t.true(report.fit);
  t.true(report.checks.some(({ check, result }) => check.startsWith('self-test') && result === 'ok'));

  const unfit = ['--cgroup', join(node.runDirectory, 'none'), '--bpffs', node.bpffs];
  const refused = await culvert(node, 'preflight', ...unfit);
  t.is(refused.code, 1);
  t.regex(refused.stdout, /^cgroup v2 +failed +.* is not a cgroup v2 directory/m);
  t.regex(refused.stdout, /^this node cannot run the agent/m);
  const refusedJson = await culvert(node, 'preflight', ...unfit, '--json');
  t.is(refusedJson.code, 1);
  t.like(JSON.parse(refusedJson.stdout), { fit: false });
  t.deepEqual(ofNode(await snapshot(node)), ofNode(before));
});

test.serial("preflight names who else is at the hooks and who listens on the agent's ports", async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pod = await node.pod('app');
  await attachForeign(node);
  await pod.run(apps.echo({ port: 15006, quiet: true })).json({ event: 'listening' });

  const { code, stdout } = await culvert(node, 'preflight', '--cgroup', node.cgroup, '--bpffs', node.bpffs);
  t.is(code, 0, 'neither keeps the agent from running');
  t.regex(stdout, /^other programs at our hooks +warning +.*connect4: foreign_connect/m);
  t.regex(stdout, /^conflicting listeners +warning +.*port 15006/m);
});

test.serial("preflight beside a running agent knows the agent's programs from others of the same name", async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  await node.agent();
  const argv = ['preflight', '--cgroup', node.cgroup, '--bpffs', node.bpffs];
  const row = /^other programs at our hooks +(.*)$/m;
  const alone = await culvert(node, ...argv);
  t.regex(row.exec(alone.stdout)?.[1] ?? alone.stderr, /^ok +none$/);
  await attachForeign(node, 'on_connect4');
  const beside = await culvert(node, ...argv);
  t.regex(row.exec(beside.stdout)?.[1] ?? beside.stderr, /^warning +connect4: on_connect4 \(id \d+\)$/);
});

test.serial('preflight puts its process and cgroup back also where its pins cannot be removed', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  // The file system of the pins becomes read-only as soon as there are any.
  const script = [
    `const { selfTest } = await import(${JSON.stringify(join(projectRoot, 'src/kernel/self-test.ts'))});`,
    "const { readFileSync } = await import('node:fs');",
    "const { execFileSync } = await import('node:child_process');",
    "const cgroup = () => readFileSync('/proc/self/cgroup', 'utf8');",
    'const home = cgroup();',
    'const [, options, bpffs] = process.argv;',
    "const running = selfTest(JSON.parse(options)).then(() => 'passed', ({ message }) => message);",
    "execFileSync('mount', ['-o', 'remount,ro', bpffs]);",
    'console.log(JSON.stringify({ outcome: await running, atHome: cgroup() === home }));',
  ].join('\n');
  const options = JSON.stringify({ cgroup: node.cgroup, bpffs: node.bpffs, timeoutMs: 100 });
  const { stdout, stderr } = await node.exec([
    process.execPath,
    '--input-type=module',
    '-e',
    script,
    options,
    lab.bpffs,
  ]);
  await command(['mount', '-o', 'remount,rw', lab.bpffs]);
  t.regex(stdout, /"outcome":"[^"]*Read-only file system.*"atHome":true/, stderr);
  t.deepEqual(
    readdirSync(node.cgroup).filter((name) => name.startsWith('culvert-preflight')),
    [],
  );
});

test.serial('status, enrol and withdraw do from the command line what they say', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const pod = await node.pod('client');
  const run = ['--run', node.runDirectory];
  const absent = await culvert(node, 'status', ...run);
  t.is(absent.code, 1);
  t.regex(absent.stderr, /^culvert: .*agent/);

  const agent = await node.agent();
  t.regex((await culvert(node, 'status', ...run)).stdout, /^no pod is enrolled$/m);
  const described = ['--uid', pod.uid, '--name', pod.name, '--namespace', 'shop', '--service-account', 'cart'];
  const placed = ['--netns', pod.netns, '--address', ...pod.addresses];
  const excluded = ['--exclude-outbound-ports', '53,5432', '--exclude-inbound-cidrs', '192.0.2.0/24'];
  const enrol = ['enrol', ...run, ...described, ...placed];
  const first = await culvert(node, ...enrol);
  t.is(first.code, 0, first.stderr);
  const [cookie] = podPins(node);
  t.is(first.stdout, `enrolled ${pod.uid} (netns cookie ${cookie})\n`);
  t.regex((await culvert(node, ...enrol)).stdout, /^unchanged /);
  t.regex((await culvert(node, ...enrol, ...excluded)).stdout, /^updated /);
  t.like(await entries(node), { excluded_ports: 2, excluded_cidrs: 1 });

  const status = await culvert(node, 'status', '--pods', ...run);
  t.regex(status.stdout, new RegExp(`^shop/client +enrolled +0 +${pod.addresses.join(',')}$`, 'm'));
  t.deepEqual(JSON.parse((await culvert(node, 'status', ...run, '--json')).stdout).pods, (await statusOf(agent)).pods);

  const wrong = await culvert(node, 'enrol', ...run, ...described, '--netns', pod.netns, '--address', 'nonsense');
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /addresses\[0\]: "nonsense" is not an IPv4 or IPv6 address/);
  const none = await culvert(node, 'enrol', ...run, ...described, '--netns', '/dev/null', '--address', pod.ipv4);
  t.is(none.code, 1);
  t.regex(none.stderr, /\/dev\/null is not a network namespace/);

  t.is((await culvert(node, 'withdraw', pod.uid, ...run)).stdout, `withdrawn ${pod.uid}\n`);
  t.is((await culvert(node, 'withdraw', pod.uid, ...run)).stdout, `unchanged: ${pod.uid} was not enrolled\n`);
  t.deepEqual(podPins(node), []);
  t.true(existsSync(agent.socket));
});
