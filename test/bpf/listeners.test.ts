/**
 * The agent's listeners in a pod, without an agent: who reaches which, what accepted sockets inherit, and what apps have set
 * on their own sockets.
 */
import { closeSync } from 'node:fs';
import net from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import * as addon from '../../native/addon/index.js';
import { parsePod } from '../../src/agent/index.ts';
import { agentPort } from '../../src/gen/layout.ts';
import { readU32, u32 } from '../../src/kernel/bytes.ts';
import { descriptorOf } from '../../src/kernel/descriptor.ts';
import {
  createPodSockets,
  duplicate,
  openKernel,
  type PodSockets,
  removePrograms,
  type Timeouts,
} from '../../src/kernel/index.ts';
import { openNetns } from '../../src/kernel/netns.ts';
import { type Address, type Endpoint, encodeAddress } from '../../src/mesh/index.ts';
import { enterCgroup } from '../contract/enter-cgroup.ts';
import { type Accepting, accepting } from '../contract/pod-sockets.ts';
import { Lab, type LabPod } from '../lab/index.ts';
import { labOptions } from '../node/conversation.ts';

/** Of asm/socket.h, netinet/tcp.h. */
const SOL_SOCKET = 1;
const SO_KEEPALIVE = 9;
const SO_LINGER = 13;
const SOL_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
const TCP_USER_TIMEOUT = 18;

/** What an app sets, by the names of Timeouts. */
const appOptions = {
  keepAlive: [SOL_SOCKET, SO_KEEPALIVE],
  idleSeconds: [SOL_TCP, TCP_KEEPIDLE],
  intervalSeconds: [SOL_TCP, TCP_KEEPINTVL],
  probes: [SOL_TCP, TCP_KEEPCNT],
  userMs: [SOL_TCP, TCP_USER_TIMEOUT],
} as const;

interface Place {
  readonly netnsFd: number;
  readonly addresses: Readonly<Record<4 | 6, Address>>;
}

interface Scene {
  readonly lab: Lab;
  readonly sockets: PodSockets;
  readonly pod: Place;
  readonly stranger: Place;
  readonly host: Place;
  /** By port. */
  readonly agent: Readonly<Record<number, Accepting>>;
  readonly undo: DisposableStack;
}

const test = anyTest as TestFn<Scene>;

test.before(async (t) => {
  const undo = new DisposableStack();
  const lab = await Lab.create('listeners', labOptions);
  const node = await lab.node('n1');
  undo.defer(enterCgroup(node));
  const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
  undo.defer(() => removePrograms(node.bpffs));
  undo.defer(() => kernel.dispose());
  const place = await node.pod('pod');
  const pod = parsePod(place.request());
  const prepared = kernel.prepare(pod);
  kernel.capture(pod, prepared.cookie);
  const agent: Record<number, Accepting> = {};
  for (const { port, fd } of prepared.listeners) {
    const by = await accepting(duplicate(fd));
    undo.defer(() => by.close());
    agent[port] = by;
  }
  const stranger = await node.pod('stranger');
  const sockets = createPodSockets(node.bpffs);
  undo.defer(() => sockets.close());
  const open = (path: string): number => {
    const { netnsFd } = openNetns(path);
    undo.defer(() => closeSync(netnsFd));
    return netnsFd;
  };
  Object.assign(t.context, {
    lab,
    sockets,
    pod: { netnsFd: prepared.netnsFd, addresses: addressesOf(place) },
    stranger: { netnsFd: open(stranger.netns), addresses: addressesOf(stranger) },
    host: { netnsFd: open(node.netns), addresses: { 4: node.ipv4, 6: node.ipv6 } },
    agent,
    undo,
  });
});

test.after.always(async (t) => {
  t.context.undo?.dispose();
  await t.context.lab?.dispose();
});

function addressesOf(pod: LabPod): Record<4 | 6, Address> {
  return { 4: pod.ipv4 as Address, 6: pod.ipv6 as Address };
}

/** A client in a namespace, to be connected at once: Node begins to read. */
function clientIn(place: Place, family: 4 | 6): net.Socket {
  const client = new net.Socket({ fd: addon.socketOpen({ netnsFd: place.netnsFd, family }), allowHalfOpen: true });
  // Once refused it also cannot be read.
  client.on('error', () => undefined);
  return client;
}

/** How a connect ends: `connected` or an errno. */
function connecting(socket: net.Socket, to: Endpoint): Promise<string> {
  return new Promise((resolve) => {
    socket.once('connect', () => resolve('connected'));
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    socket.connect({ host: to.address, port: to.port });
  });
}

/** Both ends of a connection, closed at the test's end. */
async function joined(
  t: ExecutionContext,
  client: net.Socket,
  to: Endpoint,
  by: Accepting | undefined,
): Promise<net.Socket> {
  t.teardown(() => void client.destroy());
  t.is(await connecting(client, to), 'connected');
  if (by === undefined) throw new Error('nobody accepts');
  const accepted = await by.accepted();
  t.teardown(() => void accepted.destroy());
  return accepted;
}

async function appIn(t: ExecutionContext, place: Place, family: 4 | 6, port: number): Promise<Accepting> {
  const bind = { address: encodeAddress(place.addresses[family]), port };
  const app = await accepting(addon.socketOpen({ netnsFd: place.netnsFd, family, bind, reusePort: true, backlog: 16 }));
  t.teardown(() => app.close());
  return app;
}

function option(socket: net.Socket, [level, name]: readonly [number, number]): number {
  return readU32(addon.socketOption(descriptorOf(socket), level, name, 4));
}

function optionsOf(socket: net.Socket): Record<string, number> {
  return Object.fromEntries(Object.entries(appOptions).map(([name, at]) => [name, option(socket, at)]));
}

function setOptions(socket: net.Socket, wanted: Partial<Record<keyof typeof appOptions, number>>): void {
  for (const [name, value] of Object.entries(wanted)) {
    const [level, at] = appOptions[name as keyof typeof appOptions];
    addon.socketOption(descriptorOf(socket), level, at, u32(value));
  }
}

/** The agent's own time-outs (wire contract, section 1.2). */
const own = { keepAlive: 1, idleSeconds: 180, intervalSeconds: 180, probes: 9, userMs: 0 };

for (const family of [4, 6] as const) {
  for (const from of ['stranger', 'host'] as const)
    test.serial(`HBONE of a pod is reached from ${from}, IPv${family}, with both true addresses`, async (t) => {
      const { pod, [from]: place, agent } = t.context;
      const client = clientIn(place, family);
      const to = { address: pod.addresses[family], port: agentPort.HBONE };
      const accepted = await joined(t, client, to, agent[agentPort.HBONE]);
      const plain = (text: string | undefined): string | undefined => text?.replace('::ffff:', '');
      t.is(plain(accepted.remoteAddress), place.addresses[family]);
      t.is(accepted.remotePort, client.localPort);
      t.is(plain(accepted.localAddress), to.address);
      t.is(accepted.localPort, to.port);
    });

  test.serial(`no port of the agent's is reached from inside its pod, IPv${family}`, async (t) => {
    const { pod } = t.context;
    for (const address of [pod.addresses[family], (family === 4 ? '127.0.0.1' : '::1') as Address])
      for (const port of [agentPort.OUTBOUND, agentPort.INBOUND, agentPort.HBONE]) {
        const client = clientIn(pod, family);
        t.is(await connecting(client, { address, port }), 'ECONNREFUSED', `${address} ${port}`);
        client.destroy();
      }
  });

  test.serial(`what the agent accepts inherits its listener's options, IPv${family}`, async (t) => {
    const { pod, stranger, agent } = t.context;
    const ways = [
      [pod, { address: stranger.addresses[family], port: 80 }, agentPort.OUTBOUND],
      [stranger, { address: pod.addresses[family], port: 80 }, agentPort.INBOUND],
      [stranger, { address: pod.addresses[family], port: agentPort.HBONE }, agentPort.HBONE],
    ] as const;
    for (const [from, to, port] of ways) {
      const accepted = await joined(t, clientIn(from, family), to, agent[port]);
      const isTunnel = port === agentPort.HBONE;
      t.is(option(accepted, [SOL_TCP, TCP_NODELAY]), 1, `${port}`);
      const linger = addon.socketOption(descriptorOf(accepted), SOL_SOCKET, SO_LINGER, 8);
      t.deepEqual([readU32(linger), readU32(linger, 4)], [isTunnel ? 0 : 1, 0], `${port}`);
      if (isTunnel) t.is(option(accepted, appOptions.keepAlive), 0);
      else t.deepEqual(optionsOf(accepted), own, `${port}`);
    }
  });

  const before: ReadonlyArray<readonly [string, Parameters<typeof setOptions>[1], Timeouts | undefined]> = [
    ['nothing', {}, undefined],
    ['keepalive that is not switched on', { idleSeconds: 5, intervalSeconds: 6, probes: 7 }, undefined],
    [
      'keepalive alone',
      { keepAlive: 1 },
      { userMs: 0, keepAlive: true, idleSeconds: 0, intervalSeconds: 0, probes: 0 },
    ],
    [
      'a user time-out',
      { userMs: 2345 },
      { userMs: 2345, keepAlive: false, idleSeconds: 0, intervalSeconds: 0, probes: 0 },
    ],
    [
      'everything',
      { keepAlive: 1, idleSeconds: 5, intervalSeconds: 6, probes: 7, userMs: 89 },
      { userMs: 89, keepAlive: true, idleSeconds: 5, intervalSeconds: 6, probes: 7 },
    ],
    [
      'the largest values that there are',
      { keepAlive: 1, idleSeconds: 32767, intervalSeconds: 32767, probes: 127, userMs: 0x7fffffff },
      { userMs: 0x7fffffff, keepAlive: true, idleSeconds: 32767, intervalSeconds: 32767, probes: 127 },
    ],
  ];
  for (const [what, set, wanted] of before)
    test.serial(`an app that sets ${what} before it connects: the agent is told, IPv${family}`, async (t) => {
      const { pod, stranger, agent, sockets } = t.context;
      const client = clientIn(pod, family);
      setOptions(client, set);
      const asked = { address: stranger.addresses[family], port: 80 };
      const accepted = await joined(t, client, asked, agent[agentPort.OUTBOUND]);
      t.deepEqual(sockets.originalDestination(accepted), {
        endpoint: asked,
        picked: undefined,
        boundSource: false,
        timeouts: wanted,
      });
      const far = sockets.openOutbound(pod.netnsFd, asked, undefined, { timeouts: wanted });
      t.teardown(() => void far.destroy());
      t.deepEqual(optionsOf(far), {
        ...own,
        userMs: wanted?.userMs ?? 0,
        ...(wanted?.idleSeconds ? { idleSeconds: 5, intervalSeconds: 6, probes: 7, ...set, keepAlive: 1 } : {}),
      });
    });

  test.serial(`what a client's app sets while connected is set on the agent's other leg, IPv${family}`, async (t) => {
    const { pod, stranger, agent, sockets } = t.context;
    const client = clientIn(pod, family);
    const asked = { address: stranger.addresses[family], port: 80 };
    const accepted = await joined(t, client, asked, agent[agentPort.OUTBOUND]);
    const far = sockets.openOutbound(pod.netnsFd, asked, undefined);
    t.teardown(() => void far.destroy());
    sockets.followTimeouts(accepted, far, undefined);
    sockets.pollTimeouts();
    t.deepEqual(optionsOf(far), own);
    setOptions(client, { keepAlive: 1, idleSeconds: 1, userMs: 2000 });
    sockets.pollTimeouts();
    t.deepEqual(optionsOf(far), { ...own, idleSeconds: 1, userMs: 2000 });
    setOptions(client, { keepAlive: 0, userMs: 0 });
    sockets.pollTimeouts();
    t.deepEqual(optionsOf(far), own);
  });

  test.serial(`what a server's app sets on its socket is set on the agent's other leg, IPv${family}`, async (t) => {
    const { pod, stranger, agent, sockets } = t.context;
    const app = await appIn(t, pod, family, 8083);
    const to = { address: pod.addresses[family], port: 8083 };
    const far = await joined(t, clientIn(stranger, family), to, agent[agentPort.INBOUND]);
    const dialled = sockets.openInbound(pod.netnsFd, to, { address: stranger.addresses[family], port: 40_000 });
    const served = await joined(t, dialled, to, app);
    sockets.followTimeouts(dialled, far, undefined);
    setOptions(served, { keepAlive: 1, idleSeconds: 3, intervalSeconds: 2, probes: 1 });
    sockets.pollTimeouts();
    t.deepEqual(optionsOf(far), { keepAlive: 1, idleSeconds: 3, intervalSeconds: 2, probes: 1, userMs: 0 });
  });
}

test.serial('an app is asked after at once while its connection is young, and later now and then', async (t) => {
  const { pod, stranger, agent, sockets } = t.context;
  const client = clientIn(pod, 4);
  const asked = { address: stranger.addresses[4], port: 80 };
  const accepted = await joined(t, client, asked, agent[agentPort.OUTBOUND]);
  const far = sockets.openOutbound(pod.netnsFd, asked, undefined);
  t.teardown(() => void far.destroy());
  sockets.followTimeouts(accepted, far, undefined);
  const polls = (userMs: number): number => {
    setOptions(client, { userMs });
    for (let count = 1; count <= 100; count += 1) {
      sockets.pollTimeouts();
      if (option(far, appOptions.userMs) === userMs) return count;
    }
    return 0;
  };
  for (let value = 1; value <= 20; value += 1) t.is(polls(value), 1);
  t.is(polls(21), 20);
  t.is(polls(22), 20);
});

test.serial('more connections than fit into one question are all asked after', async (t) => {
  const { pod, stranger, agent, sockets } = t.context;
  const asked = { address: stranger.addresses[4], port: 80 };
  const legs: Array<{ client: net.Socket; far: net.Socket }> = [];
  for (let count = 0; count < 70; count += 1) {
    const client = clientIn(pod, 4);
    const accepted = await joined(t, client, asked, agent[agentPort.OUTBOUND]);
    const far = sockets.openOutbound(pod.netnsFd, asked, undefined);
    t.teardown(() => void far.destroy());
    sockets.followTimeouts(accepted, far, undefined);
    legs.push({ client, far });
  }
  for (const [index, { client }] of legs.entries()) setOptions(client, { userMs: 1000 + index });
  sockets.pollTimeouts();
  t.deepEqual(
    legs.map(({ far }) => option(far, appOptions.userMs)),
    legs.map((_, index) => 1000 + index),
  );
});

test.serial('a connection that has ended is asked after no more, and harms no other', async (t) => {
  const { pod, stranger, agent, sockets } = t.context;
  const asked = { address: stranger.addresses[4], port: 80 };
  const follow = async () => {
    const client = clientIn(pod, 4);
    const accepted = await joined(t, client, asked, agent[agentPort.OUTBOUND]);
    const far = sockets.openOutbound(pod.netnsFd, asked, undefined);
    t.teardown(() => void far.destroy());
    sockets.followTimeouts(accepted, far, undefined);
    return { client, accepted, far };
  };
  const [closed, gone, lives] = [await follow(), await follow(), await follow()];
  closed.far.destroy();
  gone.client.destroy();
  setOptions(lives.client, { userMs: 77 });
  sockets.pollTimeouts();
  t.is(option(lives.far, appOptions.userMs), 77);
  t.deepEqual(optionsOf(gone.far), own);
});
