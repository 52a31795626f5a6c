/** Acts 2, 6 and 7: the mesh comes up, is killed and comes back, and tells of itself. */
import { join } from 'node:path';
import type { StatusReply } from '../src/agent/index.ts';
import { apps, type LabAgent, type LabControl, type LabNode, type LabPod, snapshot } from '../test/lab/index.ts';
import { showTalk, web } from './conversations.ts';
import { pathOf, short, trace } from './evidence.ts';
import { act, claim, command, doing, quote, say } from './screen.ts';
import { ask, benchPort, podOf, type Stage, startAgent, startControl, type Talk } from './stage.ts';

export interface Mesh {
  readonly control: LabControl;
  readonly agents: readonly [LabAgent, LabAgent];
}

/** Exit codes of curl. */
const notConnected = 7;
const wasReset = 56;

export async function raise(stage: Stage): Promise<Mesh> {
  act('2. The mesh: one control process, an agent on each node');
  const { n1, n2, client, webV1, webV2 } = stage;
  const rules = await rulesOf(stage);
  doing('starting the control process');
  const control = await startControl(stage);
  const ready = control.process.records.find(({ message }) => message === 'ready');
  command('control', 'culvert control --manifests demo/manifests --ca ... --run ...');
  say(`Kubernetes YAML: ${ready?.workloads} workloads, ${ready?.services} service; and it is the CA`);
  doing('starting two agents');
  const agents = await Promise.all([startAgent(n1, control), startAgent(n2, control)]);
  command('n1, n2', 'culvert agent --node NAME --control .../NAME.sock');
  for (const [agent, pod] of [
    [agents[0], client],
    [agents[0], webV1],
    [agents[1], webV2],
  ] as const) {
    const since = performance.now();
    await agent.enrol(pod);
    say(`${pod.name} is enrolled, while it runs: ${(performance.now() - since).toFixed(0)} ms`);
  }
  say('outsider is not: its namespace is not in the mesh');
  const held = await Promise.all([identities(agents[0], [client, webV1]), identities(agents[1], [webV2])]);
  say(`certificates of n1: ${held[0].join(', ')}; of n2: ${held[1].join(', ')}`);
  say('(shop/buyer is short for spiffe://cluster.local/ns/shop/sa/buyer)');
  claim(
    "each agent has identities of its own node's pods, no others",
    held[0].join() === 'shop/buyer,shop/seller' && held[1].join() === 'shop/seller',
  );
  claim('no iptables or nft rule and no route was written, in nodes or pods', (await rulesOf(stage)) === rules);
  return { control, agents };
}

async function rulesOf({ n1, n2 }: Stage): Promise<string> {
  const taken = await Promise.all([snapshot(n1), snapshot(n2)]);
  return taken.flatMap(({ rules }) => rules).join('\n');
}

/** What an agent has certificates for, once it has those of its pods. */
async function identities(agent: LabAgent, pods: readonly LabPod[]): Promise<string[]> {
  for (const pod of pods) await agent.issued(pod);
  const { status } = (await agent.status()) as { status: StatusReply };
  const held = status.mesh?.certificates.filter(({ state }) => state === 'available') ?? [];
  return held.map(({ identity }) => short(identity)).sort();
}

export async function killAgents(stage: Stage, { control, agents }: Mesh): Promise<Mesh> {
  act('7. Both agents die: kill -9');
  const { lab, link, n1, n2, client, webV1, webV2, outsider } = stage;
  const held = client.run(apps.hold({ to: [apps.endpoint(webV1.ipv4, benchPort)], count: 1 }));
  await held.json({ event: 'held' });
  await Promise.all(agents.map((agent) => agent.kill()));
  const capture = await lab.capture(link);
  const near = await ask(client, podOf(webV1));
  const talks = [await ask(client, podOf(webV2)), await ask(outsider, podOf(webV1))];
  const captured = await capture.stop();
  for (const talk of [near, ...talks]) showTalk(talk);
  const isRefused = ({ code }: Talk): boolean => code === notConnected || code === wasReset;
  const bytes = captured.payloadBytes();
  say(`bytes of apps that crossed the link meanwhile: ${bytes}`);
  claim('without an agent nothing leaves the node in the clear: refused', talks.every(isRefused) && bytes === 0);
  claim('on one node what policy has allowed goes on for 5 s, without any agent', near.error === '');
  doing('starting the agents again');
  const since = performance.now();
  const back = await Promise.all([startAgent(n1, control), startAgent(n2, control)]);
  const talk = await ask(client, web);
  const seconds = (performance.now() - since) / 1000;
  const traces = await trace([talk], back, [client, webV1, webV2]);
  showTalk(talk);
  say(`${seconds.toFixed(1)} s after the agents' start; nobody enrolled anything again`);
  claim(
    'agents that come back know their pods, and the tunnel is back',
    traces.every((each) => pathOf(each) === 'tunnel' || pathOf(each) === 'kernel'),
  );
  held.write('state\n');
  const { open, lost } = await held.json({ event: 'state' });
  await held.kill();
  claim('a connection over the kernel path did not notice that there was no agent', open === 1 && lost === 0);
  return { control, agents: back };
}

export async function showStatus(node: LabNode): Promise<void> {
  act('8. What the agent of n1 says of itself');
  command('n1', 'culvert status --pods');
  const main = join(import.meta.dirname, '../src/cli/main.ts');
  const { code, stdout, stderr } = await node.exec([
    process.execPath,
    main,
    'status',
    '--pods',
    '--run',
    node.runDirectory,
  ]);
  quote(stdout + stderr);
  claim(
    'culvert status knows both pods of n1',
    code === 0 && /shop\/client +enrolled/.test(stdout) && /shop\/web-v1 +enrolled/.test(stdout),
  );
}
