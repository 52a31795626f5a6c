/**
 * What the connect hook decides: given what the maps hold of a pod, and a socket of some kind, where does its connect go?
 * The programs run in a lab node's cgroup, without an agent: its listeners exist and nobody accepts, which is enough to
 * be connected.
 */
import { join } from 'node:path';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { encodeConnection, encodeHandover, encodePodUsage, limit, peerKind } from '../../src/gen/layout.ts';
import { Kernel, type Reason, removePrograms } from '../../src/kernel/index.ts';
import { type Maps, mapNames } from '../../src/kernel/programs.ts';
import { Tables } from '../../src/kernel/tables.ts';
import { noTimeouts } from '../../src/kernel/timeouts.ts';
import { type Address, type Exclusions, type NetnsCookie, type Pod, parseCidr } from '../../src/mesh/index.ts';
import { apps, Lab, type LabNode, type LabPod } from '../lab/index.ts';
import { labOptions } from '../node/conversation.ts';

const pinName = 'capture-table';
const noExclusions: Exclusions = { outboundPorts: [], outboundCidrs: [], inboundPorts: [], inboundCidrs: [] };
/** Nobody has them (RFC 5737, RFC 3849): who is connected was led to the agent. */
const far4 = '198.51.100.7';
const far6 = '2001:db8:1::7';
/** Of pod_usage: no flow on the kernel path. */
const noFlows = { flowsBegun: 0n, flowsOver: 0n };

interface Row {
  readonly to: string;
  readonly port?: number;
  readonly mapped?: boolean;
  readonly bind?: string;
  readonly bindPort?: number;
  readonly device?: string;
  readonly kind?: 'stream' | 'udp' | 'mptcp';
}

interface Said {
  readonly real?: string;
  readonly peer?: string;
  readonly local?: string;
  readonly error?: string;
}

/** A pod whose kernel side is ready, and one process in it that connects. */
class Table implements AsyncDisposable {
  readonly pod: LabPod;
  readonly node: LabNode;
  readonly kernel: Kernel;
  readonly cookie: NetnsCookie;
  readonly #lab: Lab;
  readonly #app: ReturnType<LabPod['run']>;

  private constructor(lab: Lab, node: LabNode, pod: LabPod, kernel: Kernel, exclusions: Exclusions) {
    this.#lab = lab;
    this.node = node;
    this.pod = pod;
    this.kernel = kernel;
    const wanted = this.described(exclusions);
    this.cookie = kernel.prepare(wanted).cookie;
    kernel.capture(wanted, this.cookie);
    this.#app = pod.run(['/usr/bin/python3', join(import.meta.dirname, 'connects.py')]);
  }

  static async create(title: string, options: Partial<Exclusions> & { ipv6?: boolean } = {}): Promise<Table> {
    const { ipv6 = true, ...exclusions } = options;
    const lab = await Lab.create(title, labOptions);
    const node = await lab.node('n1');
    const pod = await node.pod('pod', { ipv6 });
    const kernel = new Kernel({ cgroup: node.cgroup, bpffs: node.bpffs, pinName, workers: 2 });
    return new Table(lab, node, pod, kernel, { ...noExclusions, ...exclusions });
  }

  described(exclusions: Exclusions): Pod {
    const { uid, name, namespace, serviceAccount, netns, addresses } = this.pod.request();
    return { uid, name, namespace, serviceAccount, netns, addresses: addresses as Address[], exclusions };
  }

  /** `answered`: wait until the connect is done, and ask for the peer. */
  async connect(row: Row, answered: boolean): Promise<Said> {
    const next = this.#app.json();
    this.#app.write(`${JSON.stringify({ port: 443, ...row, answered })}\n`);
    return (await next) as Said;
  }

  /** How often the kernel gave a reason so far. */
  count(reason: Reason): number {
    return this.kernel.counts().reduce((sum, each) => sum + (each.reason === reason ? each.count : 0), 0);
  }

  map(name: string): addon.BpfMap {
    return addon.pinOpen(join(this.node.bpffs, pinName, `v${limit.SCHEMA}`, 'maps', name), 'map');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kernel.dispose();
    removePrograms(this.node.bpffs, pinName);
    await this.#lab.dispose();
  }
}

const led4 = /^127\.(12[89]|1[3-9]\d|2\d\d)\.\d+\.\d+:15001$/;

function onOwn(address: string): RegExp {
  return new RegExp(`^${address.includes(':') ? `\\[${address}\\]` : address.replaceAll('.', '\\.')}:\\d+$`);
}

test.serial(
  'sockets of every kind are led, show whom they asked for, and leave from the address of the pod',
  async (t) => {
    await using table = await Table.create(t.title);
    const { ipv4, ipv6 } = table.pod;
    const rows: Array<{ row: Row; real: RegExp; local: RegExp }> = [
      { row: { to: far4 }, real: led4, local: onOwn(ipv4) },
      { row: { to: far4, mapped: true }, real: led4, local: onOwn(ipv4) },
      { row: { to: far6 }, real: onOwn(ipv6), local: onOwn(ipv6) },
      { row: { to: far4, bind: ipv4 }, real: led4, local: onOwn(ipv4) },
      { row: { to: far4, bind: ipv4, mapped: true }, real: led4, local: onOwn(ipv4) },
      { row: { to: far6, bind: ipv6 }, real: onOwn(ipv6), local: onOwn(ipv6) },
      { row: { to: far4, bindPort: 5001 }, real: onOwn(ipv4), local: new RegExp(`^${ipv4}:5001$`) },
      { row: { to: far4, bindPort: 5002, mapped: true }, real: onOwn(ipv4), local: new RegExp(`^${ipv4}:5002$`) },
      { row: { to: far6, bindPort: 5003 }, real: onOwn(ipv6), local: new RegExp(`^\\[${ipv6}\\]:5003$`) },
      { row: { to: far4, bind: ipv4, bindPort: 5004 }, real: led4, local: new RegExp(`^${ipv4}:5004$`) },
      { row: { to: far6, bind: ipv6, bindPort: 5005 }, real: onOwn(ipv6), local: new RegExp(`^\\[${ipv6}\\]:5005$`) },
      { row: { to: far4, device: 'eth0' }, real: onOwn(ipv4), local: onOwn(ipv4) },
      { row: { to: far4, device: 'eth0', mapped: true }, real: onOwn(ipv4), local: onOwn(ipv4) },
      { row: { to: far6, device: 'eth0' }, real: onOwn(ipv6), local: onOwn(ipv6) },
      { row: { to: far4, device: 'eth0', bindPort: 5006 }, real: onOwn(ipv4), local: new RegExp(`^${ipv4}:5006$`) },
      { row: { to: far4, port: 15_001 }, real: led4, local: onOwn(ipv4) },
      { row: { to: far6, port: 1 }, real: onOwn(ipv6), local: onOwn(ipv6) },
    ];
    for (const [index, { row, real, local }] of rows.entries()) {
      const what = JSON.stringify(row);
      const said = await table.connect(row, true);
      t.is(said.error, undefined, what);
      t.regex(said.real ?? '', real, what);
      t.regex(said.local ?? '', local, what);
      t.is(said.peer, row.to.includes(':') ? `[${row.to}]:${row.port ?? 443}` : `${row.to}:${row.port ?? 443}`, what);
      t.is(table.count('captured_outbound'), index + 1, what);
    }
  },
);

test.serial('MPTCP is led and shows whom it asked for', async (t) => {
  await using table = await Table.create(t.title);
  for (const to of [far4, far6]) {
    const said = await table.connect({ to, kind: 'mptcp' }, true);
    t.is(said.peer, to.includes(':') ? `[${to}]:443` : `${to}:443`);
  }
  t.is(table.count('captured_outbound'), 2);
});

test.serial('what is not led goes where it was asked to go', async (t) => {
  await using table = await Table.create(t.title, {
    outboundPorts: [9443],
    outboundCidrs: [parseCidr('203.0.113.0/24'), parseCidr('2001:db8:3::/48')].filter((cidr) => cidr !== undefined),
  });
  const { ipv4, ipv6 } = table.pod;
  const alone: Row[] = [
    { to: '127.0.0.1' },
    { to: '127.0.0.1', mapped: true },
    { to: '127.77.0.1', port: 15_001 },
    { to: '::1' },
    { to: ipv4 },
    { to: ipv4, mapped: true },
    { to: ipv6 },
  ];
  // Refused where it was asked for: nobody listens there.
  for (const row of alone) t.is((await table.connect(row, true)).error, 'ECONNREFUSED', JSON.stringify(row));
  const excluded: Row[] = [
    { to: far4, port: 9443 },
    { to: far4, port: 9443, mapped: true },
    { to: far6, port: 9443 },
    { to: '203.0.113.0' },
    { to: '203.0.113.255', mapped: true },
    { to: '2001:db8:3::' },
    { to: '2001:db8:3:ffff:ffff:ffff:ffff:ffff' },
  ];
  for (const row of excluded) {
    const { real } = await table.connect(row, false);
    t.is(
      real,
      row.to.includes(':') ? `[${row.to}]:${row.port ?? 443}` : `${row.to}:${row.port ?? 443}`,
      JSON.stringify(row),
    );
  }
  for (const to of [far4, far6])
    t.is((await table.connect({ to, kind: 'udp' }, false)).real, to.includes(':') ? `[${to}]:443` : `${to}:443`);
  t.is(table.count('captured_outbound'), 0);
  t.is(table.count('excluded_outbound'), excluded.length);
  const beside: Row[] = [
    { to: far4, port: 9442 },
    { to: far6, port: 9444 },
    { to: '203.0.112.255' },
    { to: '203.0.114.0' },
    { to: '2001:db8:2:ffff:ffff:ffff:ffff:ffff' },
    { to: '2001:db8:4::' },
  ];
  for (const row of beside) t.is((await table.connect(row, true)).error, undefined, JSON.stringify(row));
  t.is(table.count('captured_outbound'), beside.length);
});

test.serial('a pod that is being withdrawn is not led any more', async (t) => {
  await using table = await Table.create(t.title);
  t.regex((await table.connect({ to: far4 }, true)).real ?? '', led4);
  await table.kernel.release(table.cookie);
  t.is((await table.connect({ to: far4 }, false)).real, `${far4}:443`);
  t.is((await table.connect({ to: far6 }, false)).real, `[${far6}]:443`);
});

test.serial('a family that the pod has no address of is refused as unreachable', async (t) => {
  await using table = await Table.create(t.title, { ipv6: false });
  t.deepEqual(await table.connect({ to: far6 }, true), { error: 'ENETUNREACH' });
  t.is(table.count('no_address'), 1);
  t.regex((await table.connect({ to: far4, mapped: true }, true)).real ?? '', led4);
});

test.serial('a pod that holds its quota of hand-overs is refused, and is served again below it', async (t) => {
  await using table = await Table.create(t.title);
  // An app of the pod that listens where the others would be led to is no answer either.
  const target = (await table.connect({ to: far6 }, true)).real ?? '';
  const targetPort = Number(target.slice(target.lastIndexOf(':') + 1));
  await table.pod.run(apps.pythonEcho({ bind: table.pod.ipv6, port: targetPort })).json({ event: 'listening' });
  const usage = table.map('pod_usage');
  const key = new Uint8Array(8);
  new DataView(key.buffer).setBigUint64(0, table.cookie, true);
  addon.mapUpdate(usage, key, encodePodUsage({ given: BigInt(limit.HANDOVERS_PER_POD), taken: 0n, ...noFlows }));
  for (const row of [{ to: far4 }, { to: far4, mapped: true }, { to: far6 }, { to: far4, bindPort: 5100 }])
    t.is((await table.connect(row, true)).error, 'ENOMEM', JSON.stringify(row));
  t.is(table.count('over_quota'), 4);
  addon.mapUpdate(usage, key, encodePodUsage({ given: 7n, taken: 7n, ...noFlows }));
  t.is((await table.connect({ to: far4 }, true)).error, undefined);
  addon.close(usage);
});

test.serial('hand-overs that the agent sweeps are counted off, and the pod is served again', async (t) => {
  await using table = await Table.create(t.title);
  const maps = Object.fromEntries(mapNames.map((name) => [name, table.map(name)])) as unknown as Maps;
  const { pod_usage: usage, handovers } = maps;
  const key = new Uint8Array(8);
  new DataView(key.buffer).setBigUint64(0, table.cookie, true);
  const full = encodePodUsage({ given: BigInt(limit.HANDOVERS_PER_POD), taken: 0n, ...noFlows });
  addon.mapUpdate(usage, key, full);
  const nowhere = { address: { bytes: new Uint8Array(16) }, port: 0 };
  const peer = { kind: peerKind.ASKED, flags: 0, endpoint: nowhere, picked: nowhere, timeouts: noTimeouts };
  for (let port = 1; port <= 10; port += 1)
    addon.mapUpdate(
      handovers,
      encodeConnection({ netns: table.cookie, client: { ...nowhere, port }, server: nowhere }),
      encodeHandover({ peer, sinceNs: 1n }),
    );
  t.is((await table.connect({ to: far4 }, true)).error, 'ENOMEM');
  const tables = new Tables(maps);
  t.is(tables.sweepHandovers(process.hrtime.bigint(), 1n), 10);
  t.is(tables.handoversOf(table.cookie), BigInt(limit.HANDOVERS_PER_POD - 10));
  t.is((await table.connect({ to: far4 }, true)).error, undefined);
  for (const map of Object.values(maps)) addon.close(map);
});

test.serial('without a live listener of the agent a connect is refused', async (t) => {
  await using table = await Table.create(t.title);
  const listeners = table.map('listeners');
  const { keys } = addon.mapEntries(listeners);
  t.is(keys.length, 2 * 3 * 16);
  for (let at = 0; at < keys.length; at += 16) addon.mapDelete(listeners, keys.subarray(at, at + 16));
  for (const row of [{ to: far4 }, { to: far4, mapped: true }, { to: far6 }, { to: far4, device: 'eth0' }])
    t.is((await table.connect(row, true)).error, 'ECONNREFUSED', JSON.stringify(row));
  t.true(table.count('no_listener') >= 4);
  addon.close(listeners);
});
