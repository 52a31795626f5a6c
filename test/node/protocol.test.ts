/** Bad input to the agent's socket: a clear error, nothing changed, others not blocked. */
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { command } from '../lab/command.ts';
import { Lab, type LabAgent, type LabNode, type LabPod } from '../lab/index.ts';
import { descriptors, type Entries, entries, podPins, type Status, settled, statusOf } from './inspect.ts';

interface Scene {
  readonly node: LabNode;
  readonly agent: LabAgent;
  readonly enrolled: LabPod;
  readonly other: LabPod;
}

async function scene(lab: Lab): Promise<Scene> {
  const node = await lab.node('n1');
  const [enrolled, other] = [await node.pod('enrolled'), await node.pod('other')];
  const agent = await node.agent();
  await agent.enrol(enrolled, { excludeOutboundPorts: [9090] });
  return { node, agent, enrolled, other };
}

/** What no bad request may change. */
async function standing({ node, agent }: Scene): Promise<[Status['pods'], Entries, string[]]> {
  return [(await statusOf(agent)).pods, await entries(node), podPins(node)];
}

/** The error that a line of input is answered with. */
async function refusal(agent: LabAgent, input: string | Uint8Array): Promise<{ code: string; message: string }> {
  const reply = JSON.parse(await agent.raw(input)) as { ok: boolean; error: { code: string; message: string } };
  return reply.ok ? { code: 'none', message: '' } : reply.error;
}

test.serial('every bad request gets a clear error and changes nothing', async (t) => {
  await using lab = await Lab.create(t.title);
  const here = await scene(lab);
  const { agent, enrolled, other } = here;
  const before = await standing(here);
  const good = other.request();
  const enrol = (pod: Record<string, unknown>): string => `${JSON.stringify({ method: 'enrol', pod })}\n`;
  const fifo = join(lab.directory, 'fifo');
  await command(['mkfifo', fifo]);
  const table: Array<[what: string, input: string | Uint8Array, code: string, message: RegExp]> = [
    ['not JSON', 'GET / HTTP/1.1\r\n\r\n', 'NOT_JSON', /one JSON object per line/],
    ['not UTF-8', Uint8Array.of(0x22, 0xff, 0xfe, 0x22, 0x0a), 'NOT_JSON', /UTF-8/],
    ['an array', '[]\n', 'BAD_REQUEST', /must be one of "enrol"/],
    ['no method', '{}\n', 'BAD_REQUEST', /must be one of "enrol"/],
    ['an unknown method', '{"method":"reboot"}\n', 'BAD_REQUEST', /"enrol", "withdraw"/],
    ['an unknown field', '{"method":"status","all":true}\n', 'BAD_REQUEST', /unknown field "all"/],
    ['an unknown field of a pod', enrol({ ...good, colour: 1 }), 'BAD_REQUEST', /pod: unknown field "colour"/],
    ['no address', enrol({ ...good, addresses: [] }), 'BAD_REQUEST', /pod\.addresses/],
    [
      'a port too high',
      enrol({ ...good, excludeInboundPorts: [65_536] }),
      'BAD_REQUEST',
      /pod\.excludeInboundPorts\[0\]/,
    ],
    ['a relative netns', enrol({ ...good, netns: 'run/netns/x' }), 'BAD_REQUEST', /pod\.netns: must be an absolute/],
    [
      'a netns that is not there',
      enrol({ ...good, netns: '/run/netns/none' }),
      'ENROL_FAILED',
      /\/run\/netns\/none is not a net/,
    ],
    [
      'a netns that is a file',
      enrol({ ...good, netns: '/etc/hostname' }),
      'ENROL_FAILED',
      /is not a network namespace/,
    ],
    ['a netns that is a FIFO', enrol({ ...good, netns: fifo }), 'ENROL_FAILED', /is not a network namespace/],
    ['a netns that is a device', enrol({ ...good, netns: '/dev/zero' }), 'ENROL_FAILED', /is not a network namespace/],
    ['a netns that is a directory', enrol({ ...good, netns: '/run' }), 'ENROL_FAILED', /is not a network namespace/],
    [
      'another kind of namespace',
      enrol({ ...good, netns: `/proc/${process.pid}/ns/mnt` }),
      'ENROL_FAILED',
      /is not a network/,
    ],
    ["the host's netns", enrol({ ...good, netns: here.node.netns }), 'ENROL_FAILED', /the host's network namespace/],
    ["another pod's netns", enrol({ ...good, netns: enrolled.netns }), 'NETNS_TAKEN', /withdraw that pod first/],
    ['no uid', '{"method":"withdraw"}\n', 'BAD_REQUEST', /uid/],
    ['1 MiB of junk', new Uint8Array(1 << 20).fill(0x78), 'TOO_LARGE', /longer than 65536 bytes/],
    ['1 MiB of JSON', enrol({ ...good, name: 'x'.repeat(1 << 20) }), 'TOO_LARGE', /longer than 65536 bytes/],
  ];
  for (const [what, input, code, message] of table) {
    const error = await refusal(agent, input);
    t.is(error.code, code, `${what}: ${error.message}`);
    t.regex(error.message, message, what);
    t.deepEqual(await standing(here), before, what);
  }
  t.is((await agent.enrol(enrolled, { excludeOutboundPorts: [9090] })).result, 'unchanged');
  t.deepEqual(await standing(here), before);
  t.is((await agent.enrol(other)).result, 'enrolled');
});

/** A client that connects and does nothing by itself. */
async function dial(agent: LabAgent): Promise<Socket> {
  const socket = createConnection(agent.socket);
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return socket;
}

async function firstLine(t: ExecutionContext, socket: Socket): Promise<string> {
  const [line] = (await once(createInterface({ input: socket }), 'line')) as [string];
  t.log(line);
  return line;
}

test.serial('clients that hang are told so and cut off, and hold nobody up meanwhile', async (t) => {
  await using lab = await Lab.create(t.title);
  const here = await scene(lab);
  const { agent, other } = here;
  const before = await standing(here);
  const silent = await dial(agent);
  const halfway = await dial(agent);
  halfway.write('{"method":"enrol","pod":{');
  const unread = await dial(agent);
  unread.pause();
  unread.write('{"method":"status"}\n'.repeat(2000));

  t.deepEqual(await standing(here), before);
  t.is((await agent.enrol(other)).result, 'enrolled');
  t.is((await agent.withdraw(other)).result, 'withdrawn');
  for (const socket of [silent, halfway]) t.regex(await firstLine(t, socket), /"TOO_SLOW".*no whole request/);
  t.deepEqual((await standing(here))[0], before[0]);
  unread.destroy();
});

test.serial('more clients than there is room for are turned away, and served again when there is room', async (t) => {
  await using lab = await Lab.create(t.title);
  const here = await scene(lab);
  const { agent } = here;
  const before = [await standing(here), descriptors(agent)];
  const clients: Socket[] = [];
  for (let n = 0; n < 64; n += 1) clients.push(await dial(agent));

  for (let n = 0; n < 200; n += 1) (await dial(agent)).destroy();
  t.regex(await firstLine(t, await dial(agent)), /"TOO_MANY_CLIENTS".*64 clients are being served/);
  for (const client of clients.slice(0, 32)) {
    client.write('{"method":"status"}\n');
    const [chunk] = (await once(client, 'data')) as [Buffer];
    t.true(String(chunk).startsWith('{"ok":true'));
  }
  for (const client of clients) client.destroy();
  const answered = await settled(
    () => agent.request({ method: 'status' }),
    ({ ok }) => ok === true,
  );
  t.true(answered.ok === true);
  const open = (): string[] => descriptors(agent);
  await settled(open, (now) => now.length === before[1]?.length);
  t.deepEqual([await standing(here), open()], before);
});

test.serial("only root and the agent's own user may use the socket", async (t) => {
  await using lab = await Lab.create(t.title);
  const { node, agent } = await scene(lab);
  t.is(statSync(agent.socket).mode & 0o777, 0o600);
  // Past the file's mode: connected by root, used by another.
  const script = [
    'import os, socket, sys',
    's = socket.socket(socket.AF_UNIX)',
    'try:',
    '    s.connect(sys.argv[1])',
    'except PermissionError:',
    '    print("EACCES"); sys.exit()',
    `s.sendall(b'{"method":"status"}\\n')`,
    'print(s.makefile().readline())',
  ].join('\n');
  const ask = async (options: { uid?: number; dropCapabilities?: string[] }): Promise<string> =>
    (await node.exec(['/usr/bin/python3', '-c', script, agent.socket], options)).stdout.trim();
  t.regex(await ask({}), /^\{"ok":true/);
  t.is(await ask({ uid: 65_534 }), 'EACCES');

  const lend = [
    'import ctypes, os, socket, sys',
    'os.setresgid(65534, 65534, 65534)',
    "# The file system is looked at with root's rights, the caller is another user.",
    'libc = ctypes.CDLL(None, use_errno=True)',
    'libc.prctl(8, 1, 0, 0, 0)',
    'os.setresuid(65534, 65534, 65534)',
    'class Header(ctypes.Structure): _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]',
    'class Data(ctypes.Structure): _fields_ = [("e", ctypes.c_uint32), ("p", ctypes.c_uint32), ("i", ctypes.c_uint32)]',
    'data = (Data * 2)()',
    'data[0].e = data[0].p = 1 << 1', // CAP_DAC_OVERRIDE
    'assert libc.capset(ctypes.byref(Header(0x20080522, 0)), data) == 0',
    's = socket.socket(socket.AF_UNIX)',
    's.connect(sys.argv[1])',
    `s.sendall(b'{"method":"status"}\\n')`,
    'print(s.makefile().readline())',
  ].join('\n');
  const { stdout, stderr } = await node.exec(['/usr/bin/python3', '-c', lend, agent.socket]);
  t.regex(stdout, /"FORBIDDEN".*user 65534 may not use this socket/, stderr);
});
