/** The kubelet's probes: let in whatever policy says, by proof of the kernel, and nobody else with them. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { shellIn } from '../lab/command.ts';
import {
  type AgentOptions,
  apps,
  authorizationPolicyManifest,
  furnish,
  Lab,
  type LabAgent,
  type LabControl,
  type LabLink,
  type LabNode,
  type LabPod,
  type LabProcess,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { execute, type Place, LabProcess as Process } from '../lab/process.ts';
import { removeCgroup } from '../lab/remnants.ts';
import { type Conversation, families, labOptions, parseConversation, serve, socketKinds } from './conversation.ts';
import { grown } from './evidence.ts';
import { forge, impersonate } from './forgery.ts';
import { pathStatus } from './kernel-path-bed.ts';
import { changed } from './policy-bed.ts';
import { APP_PORT, podOf } from './tunnel-bed.ts';

interface Bed {
  readonly lab: Lab;
  readonly nodes: readonly [near: LabNode, far: LabNode];
  readonly link: LabLink;
  readonly control: LabControl;
  /** On the near node, enrolled; nobody may come in. */
  readonly server: LabPod;
  /** On the near node, enrolled. */
  readonly neighbour: LabPod;
  /** On the near node, of no mesh; its processes may do anything in its network. */
  readonly stranger: LabPod;
  /** On the far node, enrolled; nobody may come in. */
  readonly remote: LabPod;
  /** The server's, which tells who comes. */
  readonly app: LabProcess;
}

/** STRICT, and an ALLOW that allows nobody. */
const shut = [peerAuthenticationManifest('strict'), authorizationPolicyManifest('nobody', { rules: [] })];

let bed: Bed;
/** The agents that run, or have run last. */
let near: LabAgent;
let far: LabAgent;

test.serial.before(async () => {
  bed = await furnish(await Lab.create('probes', labOptions), async (lab) => {
    const nodes = [await lab.node('near'), await lab.node('far')] as const;
    const link = await lab.link(...nodes);
    const server = await podOf(nodes[0], 'server');
    const [neighbour, stranger] = [await podOf(nodes[0], 'neighbour'), await podOf(nodes[0], 'stranger')];
    const remote = await podOf(nodes[1], 'remote');
    const control = await lab.control({
      manifests: { 'pods.yaml': [server, neighbour, remote].map((pod) => podManifest(pod)), 'policies.yaml': shut },
    });
    for (const node of nodes) mkdirSync(kubeletGroup(node));
    const agents = await Promise.all(nodes.map((node) => start(node, control)));
    [near, far] = agents as [LabAgent, LabAgent];
    for (const pod of [server, neighbour]) await near.enrol(pod);
    await far.enrol(remote);
    for (const agent of agents) await agent.told({ message: 'the mesh is known' });
    const [app] = await Promise.all(
      [server, stranger, remote].map((pod) => serve(pod, apps.echo({ port: APP_PORT, mode: 'tell' }))),
    );
    if (app === undefined) throw new Error('there are three apps');
    return { lab, nodes, link, control, server, neighbour, stranger, remote, app };
  });
});

test.serial.after.always(() => bed?.lab.dispose());

function kubeletGroup(node: LabNode): string {
  return join(node.cgroup, 'kubelet');
}

function start(node: LabNode, control: LabControl, options: AgentOptions = {}): Promise<LabAgent> {
  return node.agent({ control, kernelPath: true, kubeletCgroup: kubeletGroup(node), ...options });
}

/** A process of the kubelet's group in a network namespace: the node's, unless another is given. */
function kubelet(node: LabNode, { netns }: { netns: string } = node): Place {
  return { netns, cgroup: kubeletGroup(node) };
}

async function talk(place: Place, options: Parameters<typeof apps.pythonConnect>[0]): Promise<Conversation> {
  return parseConversation(await execute(place, apps.pythonConnect(options)));
}

/** Asserts that a probe reaches the server's app from the node itself, past the agent, counted and told of. */
async function assertProbes(t: ExecutionContext, what = ''): Promise<void> {
  const { nodes, server } = bed;
  for (const { name, of, options } of socketKinds) {
    const since = near.process.lines.length;
    const seen = await grown(near, server, async () => {
      const probe = await talk(kubelet(nodes[0]), { to: of(server), port: APP_PORT, ...options });
      t.is(probe.error, undefined, `${what} ${name}: ${JSON.stringify(probe)}`);
      t.is(probe.server?.peer, probe.local, `${what} ${name}: the app sees the node`);
      t.like(await near.told({ message: 'connection complete', 'src.addr': probe.local }, { since }), {
        flow: 'probe',
        path: 'kernel',
        direction: 'inbound',
        'dst.workload': 'server',
        'dst.addr': apps.endpoint(of(server), APP_PORT),
        'src.identity': undefined,
      });
    });
    t.deepEqual(seen, { host_probe: 1 }, `${what} ${name}`);
  }
}

/** Asserts that no connection of somebody's reaches an app behind a shut door, nor is taken for a probe. */
async function assertShut(
  t: ExecutionContext,
  who: string,
  connect: (to: string, family: (typeof families)[number]) => Promise<Conversation>,
): Promise<void> {
  const { server, app } = bed;
  const before = app.lines.length;
  for (const family of families) {
    const seen = await grown(near, server, async () => {
      const { error, reply } = await connect(family.of(server), family);
      t.true(REFUSED.includes(error ?? 'none'), `${who}, ${family.name}: ${error}`);
      t.is(reply, undefined, who);
    });
    t.is(seen.host_probe, undefined, `${who}, ${family.name}`);
  }
  t.is(app.lines.length, before, who);
}

/** What an app sees of a connection that is reset as soon as it is made, or not made at all. */
const REFUSED: readonly string[] = ['ECONNREFUSED', 'ECONNRESET', 'ENOTCONN', 'EPIPE'];

test.serial('probes of the node are let in under STRICT and deny-all, told of, and counted', async (t) => {
  t.is((await pathStatus(near)).kubelet, kubeletGroup(bed.nodes[0]));
  await assertProbes(t);
});

test.serial('a probe is let in where the pod answers with SYN cookies', async (t) => {
  await bed.server.sysctl({ 'net.ipv4.tcp_syncookies': 2 });
  await assertProbes(t, 'SYN cookies');
  await bed.server.sysctl({ 'net.ipv4.tcp_syncookies': 1 });
});

test.serial('a process below the kubelet’s group probes like the kubelet itself', async (t) => {
  const { nodes, server } = bed;
  const cgroup = join(kubeletGroup(nodes[0]), 'below', 'further');
  mkdirSync(cgroup, { recursive: true });
  const probe = await talk({ netns: nodes[0].netns, cgroup }, { to: server.ipv4, port: APP_PORT });
  t.is(probe.server?.peer, probe.local, JSON.stringify(probe));
});

test.serial('nobody else of the node is let in with the probes', async (t) => {
  const { nodes, neighbour, stranger } = bed;
  const port = APP_PORT;
  const [node] = nodes;
  const beside = `${kubeletGroup(node)}-beside`;
  mkdirSync(beside);
  const others: Readonly<Record<string, Place>> = {
    'another process of the node': { netns: node.netns, cgroup: join(node.cgroup, 'host') },
    'a process of a group beside the kubelet’s': { netns: node.netns, cgroup: beside },
    'an enrolled pod': neighbour,
    'a pod that is not enrolled': stranger,
    'a process of the kubelet’s group in an enrolled pod': kubelet(node, neighbour),
    'a process of the kubelet’s group in a pod that is not enrolled': kubelet(node, stranger),
  };
  for (const [who, place] of Object.entries(others)) await assertShut(t, who, (to) => talk(place, { to, port }));
});

test.serial('a pod that has the node’s address is not let in, whether enrolled or not', async (t) => {
  const { lab, nodes, server, neighbour, stranger, app } = bed;
  const before = app.lines.length;
  for (const pod of [stranger, neighbour])
    for (const { name, of } of families) {
      const own = name === 'IPv4' ? nodes[0].ipv4 : nodes[0].ipv6;
      await using _ = await impersonate(pod, own, server);
      const wire = await lab.capture(server);
      const seen = await grown(near, server, async () => {
        const { error } = await talk(pod, { to: of(server), port: APP_PORT, bind: own });
        t.true(REFUSED.includes(error ?? 'none'), `${pod.name} as ${own}: ${error}`);
      });
      t.is(seen.host_probe, undefined);
      const answered = (await wire.stop()).filter((packet) => packet.destination === own && packet.flags === 'SA');
      // An enrolled pod's connection is its agent's, which is told of it by its identity.
      if (pod === stranger) t.true(answered.packets.length > 0, 'it has the connection until policy is asked');
    }
  t.is(app.lines.length, before);
});

/**
 * Connects as the kubelet, leaves the kubelet's group, and connects the same socket again. Before that the first connection
 * is ended by AF_UNSPEC, where there was one.
 */
const LEAVE = `
import ctypes, errno, os, socket, sys
to, port, group = sys.argv[1], int(sys.argv[2]), sys.argv[3]
family = socket.AF_INET6 if ":" in to else socket.AF_INET
client = socket.socket(family, socket.SOCK_STREAM)
client.settimeout(10)
try:
    client.connect((to, port))
    first = "connected"
    ctypes.CDLL(None).connect(client.fileno(), bytes(16), 16)
except OSError as error:
    first = errno.errorcode[error.errno]
print(first, flush=True)
sys.stdin.readline()
with open(group + "/cgroup.procs", "w") as procs:
    procs.write(str(os.getpid()))
try:
    client.connect((to, port))
    client.sendall(b"again\\n")
    print(client.recv(1000).decode() or "EOF", flush=True)
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
`;

test.serial('what a process was allowed as the kubelet it is not allowed when it has left the group', async (t) => {
  const { nodes, server } = bed;
  const [node] = nodes;
  const group = join(node.cgroup, 'host');
  for (const to of server.addresses)
    for (const first of ['connected', 'EHOSTUNREACH']) {
      const block = to.includes(':') ? `${to}/128` : `${to}/32`;
      if (first !== 'connected') await shellIn(node.netns, `ip route add unreachable ${block}`);
      const leaver = new Process(kubelet(node), ['/usr/bin/python3', '-c', LEAVE, to, `${APP_PORT}`, group]);
      await leaver.line(new RegExp(`^${first}$`));
      if (first !== 'connected') await shellIn(node.netns, `ip route delete unreachable ${block}`);
      leaver.write('go\n');
      await leaver.exit;
      t.true(REFUSED.includes(leaver.lines[1] ?? ''), `${to}, first ${first}, then ${leaver.lines[1]}`);
    }
});

test.serial('another node is not let in: neither its kubelet, nor with the address of this node', async (t) => {
  const { lab, nodes, link, server, app } = bed;
  const [node, other] = nodes;
  await assertShut(t, 'the kubelet of another node', (to) => talk(kubelet(other), { to, port: APP_PORT }));

  const [device] = link.interfaces;
  // Else the kernel drops what claims to come from itself, before any pod sees it.
  await shellIn(
    node.netns,
    `for each in all ${device}; do
       echo 0 > /proc/sys/net/ipv4/conf/$each/rp_filter
       echo 1 > /proc/sys/net/ipv4/conf/$each/accept_local
     done`,
  );
  const before = app.lines.length;
  for (const [source, to] of [
    [node.ipv4, server.ipv4],
    [node.ipv6, server.ipv6],
  ] as const) {
    const wire = await lab.capture(server);
    t.deepEqual(await grown(near, server, () => forge(other, { source, to, port: APP_PORT, count: 10 })), {});
    const arrived = (await wire.stop()).filter((packet) => packet.flags === 'S' && packet.source === source);
    t.is(arrived.packets.length, 10, `what is forged as ${source} arrives`);
  }
  t.is(app.lines.length, before);
});

test.serial('to what is no pod of this node’s mesh the kubelet connects as anybody', async (t) => {
  const { nodes, stranger, remote } = bed;
  const [node] = nodes;
  const since = near.process.lines.length;
  const own = node.run(apps.echo({ port: APP_PORT, mode: 'tell' }));
  await own.json({ event: 'listening' });
  for (const { name, of, loopback } of families) {
    for (const to of [of(stranger), loopback]) {
      const talked = await talk(kubelet(node), { to, port: APP_PORT });
      t.is(talked.server?.peer, talked.local, `${name}, ${to}: ${JSON.stringify(talked)}`);
    }
    const { error } = await talk(kubelet(node), { to: of(remote), port: APP_PORT });
    t.true(REFUSED.includes(error ?? 'none'), `${name}, a pod of another node: ${error}`);
  }
  t.is((await pathStatus(near)).flows, 0);
  t.deepEqual(
    near.process.lines.slice(since).filter((line) => line.includes('"flow":"probe"')),
    [],
  );
  await own.kill();
});

test.serial('a probe of a port where nobody listens is refused, and leaves nothing', async (t) => {
  const { nodes, server } = bed;
  for (const { of } of families)
    t.is((await talk(kubelet(nodes[0]), { to: of(server), port: APP_PORT + 1 })).error, 'ECONNREFUSED');
  t.is((await pathStatus(near)).flows, 0);
});

test.serial('a kubelet that was restarted is known again by its path, and its former group is nobody’s', async (t) => {
  const { nodes } = bed;
  const [node] = nodes;
  const former = `${kubeletGroup(node)}-former`;
  for (let round = 0; round < 2; round += 1) {
    const since = near.process.lines.length;
    removeCgroup(kubeletGroup(node));
    if (round === 1) {
      await near.told(
        { message: "the kubelet's control group is not there: policy decides about its probes" },
        { since },
      );
      t.is((await pathStatus(near)).kubelet, null);
      mkdirSync(former);
      await assertShut(t, 'nobody', (to) => talk({ netns: node.netns, cgroup: former }, { to, port: APP_PORT }));
    }
    mkdirSync(kubeletGroup(node));
    await near.told({ message: "the kubelet's probes are let in" }, { since });
    await assertProbes(t, `round ${round}`);
  }
});

test.serial('a probe under way outlives changes of policy, and the agent', async (t) => {
  const { nodes, control, server } = bed;
  const argv = apps.pythonConnect({ to: server.ipv4, port: APP_PORT, hold: true });
  const probe = new Process(kubelet(nodes[0]), argv);
  await probe.json({ event: 'connected' });
  const answers = async (): Promise<void> => {
    probe.write('well?\n');
    t.truthy((await probe.json()).reply);
  };
  await changed({ agents: [near, far] }, () => control.write('policies.yaml', []));
  await answers();
  await changed({ agents: [near, far] }, () => control.write('policies.yaml', shut));
  await answers();
  await near.kill();
  await answers();
  near = await start(nodes[0], control);
  await near.told({ message: 'the mesh is known' });
  await answers();
  probe.end();
  t.is((await probe.exit).code, 0);
});

test.serial('while there is no agent probes are let in, and nobody else', async (t) => {
  const { nodes, control, server, app, stranger } = bed;
  const [node] = nodes;
  await near.kill();
  for (const { name, of, options } of socketKinds) {
    const probe = await talk(kubelet(node), { to: of(server), port: APP_PORT, ...options });
    t.is(probe.server?.peer, probe.local, `${name}: ${JSON.stringify(probe)}`);
  }
  const before = app.lines.length;
  for (const place of [{ netns: node.netns, cgroup: join(node.cgroup, 'host') }, stranger])
    for (const { of } of families) t.is((await talk(place, { to: of(server), port: APP_PORT })).error, 'ECONNREFUSED');
  t.is(app.lines.length, before);
  near = await start(node, control);
});

test.serial('with the kernel path off probes are let in all the same, and nobody else', async (t) => {
  const { nodes, control, stranger } = bed;
  const [node] = nodes;
  await near.stop();
  near = await start(node, control, { kernelPath: false });
  await near.told({ message: 'the mesh is known' });
  t.is((await pathStatus(near)).state, 'off');
  await assertProbes(t, 'off');
  const host = { netns: node.netns, cgroup: join(node.cgroup, 'host') };
  for (const place of [host, stranger]) await assertShut(t, place.cgroup, (to) => talk(place, { to, port: APP_PORT }));
});

test.serial('an agent that is told of no kubelet lets no probe in', async (t) => {
  const { nodes, control } = bed;
  const [node] = nodes;
  await near.stop();
  near = await node.agent({ control, kernelPath: true });
  await near.told({ message: 'the mesh is known' });
  t.is((await pathStatus(near)).kubelet, null);
  await assertShut(t, 'the kubelet', (to) => talk(kubelet(node), { to, port: APP_PORT }));
});
