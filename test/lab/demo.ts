/**
 * `./dev demo`: what culvert does, on this machine's kernel and real sockets, in under a minute.
 *
 * Two nodes with an agent each, and four pods. Each claim is checked as it is shown; exit code 1 if one does not hold.
 * Nothing is left behind, whatever ends it.
 */
import { join } from 'node:path';
import { styleText } from 'node:util';
import { projectRoot } from './compile.ts';
import { apps, Lab, type LabAgent, type LabNode, type LabPod, type Snapshot, snapshot } from './index.ts';

const port = 8080;
const lockNoticeMs = 1000;

interface Claim {
  readonly text: string;
  readonly holds: boolean;
}

/** What one question and its answer look like from both ends. */
interface Talk {
  readonly clientSaw: string;
  readonly serverSaw: string;
  readonly serverGot: string;
  readonly error: string;
}

const claims: Claim[] = [];
let began = performance.now();
process.exitCode = await demo();

async function demo(): Promise<number> {
  const notice = setTimeout(() => say('Waiting for another lab on this machine to end ...'), lockNoticeMs);
  await using lab = await Lab.create('./dev demo');
  clearTimeout(notice);
  began = performance.now();

  title('Two nodes and four pods, on one kernel');
  const [n1, n2] = [await lab.node('n1'), await lab.node('n2')];
  const link = await lab.link(n1, n2);
  const client = await n1.pod('client', { namespace: 'shop' });
  const server = await n2.pod('server', { namespace: 'shop' });
  const stranger = await n1.pod('stranger');
  const plain = await n2.pod('plain');
  for (const pod of [server, plain])
    await pod.run(apps.echo({ bind: '0.0.0.0', port, mode: 'tell' })).json({ event: 'listening' });
  say(`node n1: pods client ${client.ipv4}, stranger ${stranger.ipv4}`);
  say(`node n2: pods server ${server.ipv4}, plain ${plain.ipv4}; both listen on port ${port}`);
  const pristine = { n1: await snapshot(n1), n2: await snapshot(n2) };
  const before = await talk(client, server, 'hello');
  say(`client asks server: ${described(before)}`);
  claim('the pods reach each other before there is any mesh', met(before, client, server));
  const early = client.run(apps.pythonConnect({ to: server.ipv4, port, hold: true }));
  await early.json({ event: 'connected' });

  title('An agent on each node; client and server are enrolled');
  const [a1, a2] = await Promise.all([startAgent(n1), startAgent(n2)]);
  for (const [agent, pod] of [
    [a1, client],
    [a2, server],
  ] as const) {
    const since = performance.now();
    await agent.enrol(pod);
    say(
      `${pod.name} enrolled on ${agent.node.name} in ${(performance.now() - since).toFixed(1)} ms; it runs on untouched`,
    );
  }
  early.write('still there?\n');
  const lives = objectOf(textOf((await early.json()).reply)).got === 'still there?';
  early.end();
  await early.exit;
  claim('a connection that was open before lives on', lives);
  picture(client, server);

  title(`client asks ${server.ipv4}:${port} again, and knows nothing of it`);
  const wire = await lab.capture(link);
  const held = client.run(apps.pythonConnect({ to: server.ipv4, port, hold: true }));
  const connected = await held.json({ event: 'connected' });
  held.write('a word on the wire\n');
  const through = parsed(await held.json(), connected);
  const underneath = (await peersOf(client)).find((peer) => peer.startsWith('127.')) ?? 'nothing';
  held.end();
  await held.exit;
  say(`the app asks the kernel who its peer is:  ${through.clientSaw}`);
  say(`the socket is really connected to:        ${underneath}   (the agent of n1)`);
  say(`the server app's accept() says:           ${through.serverSaw}   (the real client)`);
  const counted = { n1: await accepted(a1), n2: await accepted(a2) };
  say(`connections through the agents so far:    n1 ${counted.n1}, n2 ${counted.n2}`);
  claim(
    'an enrolled pod is led through the agents',
    underneath.includes(':15001') && counted.n1 === 1 && counted.n2 === 1,
  );
  claim('the client app sees the destination it asked for', through.clientSaw === `${server.ipv4}:${port}`);
  claim("the server app sees the client's real address", hostOf(through.serverSaw) === client.ipv4);
  const rules = [...(await snapshot(n1)).rules, ...(await snapshot(n2)).rules];
  claim(
    'no rule or route was written, on the nodes or in the pods',
    rules.join('\n') === [...pristine.n1.rules, ...pristine.n2.rules].join('\n'),
  );

  title('stranger and plain are not enrolled');
  const apart = await talk(stranger, plain, 'hello');
  const after = { n1: await accepted(a1), n2: await accepted(a2) };
  say(`stranger asks plain: ${described(apart)}`);
  say(`connections through the agents:           n1 ${after.n1}, n2 ${after.n2}, as before`);
  claim(
    'pods that are not enrolled are left alone',
    met(apart, stranger, plain) && after.n1 === counted.n1 && after.n2 === counted.n2,
  );

  title('culvert status, on n2');
  const status = await culvert(n2, ['status', '--run', n2.runDirectory]);
  for (const line of status.stdout.trimEnd().split('\n')) say(line);
  claim('culvert status shows the pod', status.code === 0 && /^shop +server +enrolled/m.test(status.stdout));

  title('Both agents are killed: kill -9');
  const seen = await wire.stop();
  await Promise.all([a1.kill(), a2.kill()]);
  const watch = await lab.capture(link);
  const refusedOut = await talk(client, server, 'never in the clear');
  const refusedIn = await talk(stranger, server, 'never in the clear');
  const still = await talk(stranger, plain, 'hello');
  const lost = (await watch.stop()).filter(
    (packet) => packet.source === client.ipv4 || packet.destination === server.ipv4,
  );
  say(`client asks server:   ${described(refusedOut)}`);
  say(`stranger asks server: ${described(refusedIn)}`);
  say(`stranger asks plain:  ${described(still)}`);
  say(
    `captured on the wire, of enrolled pods:   ${lost.payloadBytes()} payload bytes in ${lost.packets.length} packets`,
  );
  claim(
    'without an agent, enrolled pods are refused, not passed in the clear',
    [refusedOut, refusedIn].every(isRefused),
  );
  claim(
    'not one payload byte crossed the wire (the same capture did see the word before)',
    lost.payloadBytes() === 0 && seen.contains('a word on the wire'),
  );
  claim('pods that are not enrolled do not notice', met(still, stranger, plain));

  title('The agents start again');
  const since = performance.now();
  const [b1, b2] = await Promise.all([startAgent(n1), startAgent(n2)]);
  const again = await talk(client, server, 'hello again');
  say(`client asks server: ${described(again)}`);
  say(`${((performance.now() - since) / 1000).toFixed(2)} s after the start; nobody enrolled anything again`);
  claim(
    'a restarted agent knows its pods',
    met(again, client, server) && (await accepted(b1)) === 1 && (await accepted(b2)) === 1,
  );

  title('Withdrawn, and uninstalled');
  await b1.withdraw(client);
  await b2.withdraw(server);
  const clear = await talk(client, server, 'hello');
  const idle = (await accepted(b1)) === 1 && (await accepted(b2)) === 1;
  say(`client asks server: ${described(clear)}, without the agents`);
  claim('withdrawn pods speak as before', met(clear, client, server) && idle);
  await Promise.all([b1.stop(), b2.stop()]);
  for (const node of [n1, n2]) await uninstall(node);
  const leftovers = [...differences(pristine.n1, await snapshot(n1)), ...differences(pristine.n2, await snapshot(n2))];
  for (const line of leftovers) say(`left: ${line}`);
  say('attached programs, pins, rules and listeners of both nodes compared with the beginning');
  claim('culvert uninstall leaves the nodes as they were', leftovers.length === 0);
  return summary();
}

// --- What is done

function startAgent(node: LabNode): Promise<LabAgent> {
  return node.agent({ workers: 1, logLevel: 'info' });
}

function culvert(node: LabNode, args: readonly string[]) {
  return node.exec([process.execPath, join(projectRoot, 'src/cli/main.ts'), ...args]);
}

async function uninstall(node: LabNode): Promise<void> {
  const where = ['--cgroup', node.cgroup, '--bpffs', node.bpffs, '--run', node.runDirectory];
  const { code, stdout, stderr } = await culvert(node, ['uninstall', ...where]);
  const removed = stdout.split('\n').filter((line) => line.startsWith('removed')).length;
  say(code === 0 ? `culvert uninstall on ${node.name}: ${removed} pins removed` : stderr.trim());
}

/** One question and its answer, by a client with a blocking socket. */
async function talk(from: LabPod, to: LabPod, word: string): Promise<Talk> {
  const { stdout } = await from.exec(apps.pythonConnect({ to: to.ipv4, port, send: word, timeout: 10 }));
  const said = objectOf(stdout);
  return parsed(said, said);
}

function parsed(answer: Record<string, unknown>, connected: Record<string, unknown>): Talk {
  const server = objectOf(textOf(answer.reply));
  return {
    clientSaw: textOf(connected.peer),
    serverSaw: textOf(server.peer),
    serverGot: textOf(server.got),
    error: textOf(answer.error),
  };
}

function met(talk: Talk, from: LabPod, to: LabPod): boolean {
  return talk.clientSaw === `${to.ipv4}:${port}` && hostOf(talk.serverSaw) === from.ipv4;
}

function isRefused(talk: Talk): boolean {
  return (talk.error === 'ECONNREFUSED' || talk.error === 'ECONNRESET') && talk.serverGot === '';
}

async function accepted(agent: LabAgent): Promise<number> {
  const { status } = (await agent.status()) as { status?: { totals?: { accepted?: number } } };
  return status?.totals?.accepted ?? Number.NaN;
}

/** The far ends of a pod's sockets as netlink tells them: below what the app is shown. */
async function peersOf(pod: LabPod): Promise<string[]> {
  const { stdout } = await pod.exec(['ss', '--no-header', '--tcp', '--numeric', 'state', 'established']);
  return stdout.split('\n').flatMap((line) => line.trim().split(/\s+/)[3] ?? []);
}

/** Lines of an agent's kind that are in one snapshot only. The kernel-wide lists are left out: other programs come and go. */
function differences(one: Snapshot, other: Snapshot): string[] {
  return (['attached', 'pins', 'files', 'rules', 'listeners'] as const).flatMap((kind) => {
    const [a, b] = [new Set(one[kind]), new Set(other[kind])];
    const inOneOnly = [...[...a].filter((line) => !b.has(line)), ...[...b].filter((line) => !a.has(line))];
    return inOneOnly.map((line) => `${kind}: ${line}`);
  });
}

// --- What is shown

function title(text: string): void {
  console.log(`\n${styleText('bold', text)}`);
}

function say(text: string): void {
  console.log(`  ${text}`.trimEnd());
}

function claim(text: string, holds: boolean): void {
  claims.push({ text, holds });
  say(`${mark(holds)} ${text}`);
}

function mark(holds: boolean): string {
  return holds ? styleText('green', '[ok]') : styleText('red', '[NO]');
}

function described(talk: Talk): string {
  if (talk.error !== '') return talk.error;
  return `answered; the server sees ${talk.serverSaw || 'nobody'}`;
}

function picture(client: LabPod, server: LabPod): void {
  console.log(`
  +- node n1 -----------------------+          +- node n2 -----------------------+
  |  pod client                     |          |  pod server                     |
  |  ${client.ipv4.padEnd(31)}|          |  ${server.ipv4.padEnd(31)}|
  |    connect() --> eBPF           |          |           eBPF --> accept()     |
  |                   |             |          |            ^ |                  |
  |                   v             |          |            | v                  |
  |              culvert agent -----+--------->+----- culvert agent              |
  +---------------------------------+          +---------------------------------+
  eBPF leads the connection to the agent's listener inside the pod, remembers whom
  the app asked for, and shows the server who really called. No iptables rule.`);
}

function summary(): number {
  const failed = claims.filter(({ holds }) => !holds).length;
  title('In short');
  for (const { text, holds } of claims) say(`${mark(holds)} ${text}`);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(`\ndemo: ${claims.length - failed} of ${claims.length} claims hold, in ${seconds} s`);
  return failed === 0 ? 0 : 1;
}

function hostOf(endpoint: string): string {
  return endpoint.slice(0, endpoint.lastIndexOf(':'));
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function objectOf(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}
