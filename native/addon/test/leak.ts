/**
 * Many life cycles of everything that the addon owns, in the main thread and in workers, with success and with failure. Run
 * by leak.sh, which watches the memory; the descriptors are counted here.
 * Arguments: folder of the instrumented addon and a copy of src, object file, object file that the verifier refuses, namespace, cgroup, bpffs, cycles.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync, readdirSync, unlinkSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import type * as KernelRoom from '../../../src/kernel/index.ts';
import type { Address, Cidr, NetnsCookie, Pod } from '../../../src/mesh/index.ts';
import type * as Addon from '../index.js';

interface Work {
  root: string;
  objectPath: string;
  refusedPath: string;
  netnsPath: string;
  cgroupPath: string;
  bpffs: string;
  cycles: number;
}

const connect4 = 10;
const work: Work = isMainThread ? readArguments() : workerData;
// Not the addon of the build, but the one that leak.sh built with a sanitizer.
const addon: typeof Addon = await import(pathToFileURL(`${work.root}/native/addon/index.js`).href);
const { createPodSockets, openKernel, removePrograms }: typeof KernelRoom = await import(
  pathToFileURL(`${work.root}/src/kernel/index.ts`).href
);

function readArguments(): Work {
  const [root, objectPath, refusedPath, netnsPath, cgroupPath, bpffs, cycles] = process.argv.slice(2);
  assert(root && objectPath && refusedPath && netnsPath && cgroupPath && bpffs && cycles);
  return { root, objectPath, refusedPath, netnsPath, cgroupPath, bpffs, cycles: Number(cycles) };
}

function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

/** Everything once: open, load, share, fill, pin, attach, replace, listen, dial, fail, close. */
function cycle(cgroupFd: number, netnsFd: number, pinned: string): void {
  const object = addon.objectOpen(work.objectPath);
  addon.objectSetGlobal(object, 'wanted_port', u32(9));
  addon.objectLoad(object);
  addon.objectPrograms(object);
  addon.programRun(object, 'on_run', new Uint8Array(32));
  const entries = addon.objectMap(object, 'entries');
  const tags = addon.objectMap(object, 'tags');
  for (let key = 0; key < 64; key++) addon.mapUpdate(entries, u32(key), new Uint8Array(8));
  addon.mapEntries(entries);
  addon.mapLookup(entries, u32(1));
  addon.mapDelete(entries, u32(1));
  addon.pin(entries, pinned);
  const again = addon.pinOpen(pinned, 'map');
  assert.throws(() => addon.pinOpen(pinned, 'link'));
  unlinkSync(pinned);

  const second = addon.objectOpen(work.objectPath);
  assert.throws(() => addon.objectReuseMap(second, 'tags', entries));
  addon.objectReuseMap(second, 'entries', again);
  addon.objectLoad(second);
  const link = addon.linkAttach(object, 'on_connect4', cgroupFd, connect4);
  addon.linkUpdate(link, second, 'on_connect4');
  addon.info(link);
  addon.attachedPrograms(cgroupFd, connect4);
  const ring = addon.ringOpen(addon.objectMap(object, 'notes'));
  addon.ringRead(ring);

  for (let dial = 0; dial < 20; dial++) sockets(netnsFd, tags);
  namespaceAndFailures();
  // Half is closed here; the rest is left to the garbage collector and to the thread's end.
  addon.close(link);
  addon.close(object);
  addon.close(tags);
  addon.close(ring);
}

/** An enrolment as src/kernel makes it, with its failures, updates and ends; and an agent that goes with a pod still open. */
async function enrolment(): Promise<void> {
  const kernel = openKernel({ cgroup: work.cgroupPath, bpffs: work.bpffs, workers: 2 });
  const own: Pod = {
    uid: 'leak',
    name: 'leak',
    namespace: 'leak',
    serviceAccount: 'leak',
    netns: work.netnsPath,
    addresses: ['10.99.0.1' as Address, 'fd99::1' as Address],
    exclusions: { outboundPorts: [25], outboundCidrs: ['192.0.2.0/24' as Cidr], inboundPorts: [], inboundCidrs: [] },
  };
  const exclusions = { ...own.exclusions, outboundPorts: [], inboundPorts: [9] };
  assert.throws(() => kernel.prepare({ ...own, netns: '/nowhere' }), { code: 'NOT_A_NETNS' });
  assert.throws(() => kernel.capture(own, 1n as NetnsCookie), { code: 'NOT_PREPARED' });
  for (let round = 0; round < 2; round++) {
    const { cookie, netnsFd } = kernel.prepare(own);
    kernel.capture(own, cookie);
    kernel.capture({ ...own, exclusions }, cookie);
    assert.equal(kernel.check(own, cookie), 'live');
    assert.deepEqual(kernel.captured(), [cookie]);
    dials(netnsFd);
    kernelPath(kernel, cookie);
    kernel.counts();
    kernel.events();
    assert.deepEqual(kernel.faults(), []);
    kernel.sweep();
    await kernel.release(cookie);
    kernel.close(cookie);
  }
  kernel.capture(own, kernel.prepare(own).cookie);
  kernel.dispose();
  removePrograms(work.bpffs);
}

/** What the agent writes down for the kernel path, and ends. */
function kernelPath(kernel: KernelRoom.Kernel, cookie: NetnsCookie): void {
  const [client, server] = [4000, 80].map((port) => ({ address: '127.0.0.1' as Address, port }));
  assert(client && server);
  kernel.beat();
  kernel.setKubelet(undefined);
  kernel.setKernelPath(cookie, true);
  const epochs = { sourceEpoch: kernel.raiseEpoch(cookie), destinationEpoch: kernel.epochOf(0n) };
  assert(kernel.putVerdict({ kind: 'outside', source: cookie, destination: server, to: 0n, ...epochs }));
  assert(kernel.putService(server, [{ endpoint: server, weight: 1 }]));
  assert(kernel.setOpenPorts(cookie, { others: true, ports: new Map([[80, false]]) }));
  const flow = { kind: 'local', state: 'established', source: cookie, destination: cookie, client, server } as const;
  const sockets = { sinceNs: 1n, clientSocket: 0n, serverSocket: 1n };
  assert.equal(kernel.destroyFlows([{ ...flow, ...epochs, ...sockets }]), 0);
  assert.deepEqual(kernel.flows(), []);
  assert.deepEqual(kernel.flowRecords(), []);
  assert.equal(kernel.flowCount() + kernel.sweepFlows(), 0);
  kernel.clearPaths();
}

/** What a worker does in a pod. */
function dials(netnsFd: number): void {
  const pods = createPodSockets(work.bpffs);
  const loopback = { address: '127.0.0.1' as Address, port: 9 };
  const outbound = pods.openOutbound(netnsFd, loopback, loopback.address);
  const inbound = pods.openInbound(netnsFd, loopback, { address: '192.0.2.1' as Address, port: 4000 });
  assert.throws(() => pods.openOutbound(netnsFd, loopback, '192.0.2.1' as Address));
  pods.followTimeouts(outbound, inbound, undefined);
  pods.pollTimeouts();
  for (const socket of [outbound, inbound]) socket.destroy();
  pods.pollTimeouts();
  pods.close();
}

function sockets(netnsFd: number, tags: Addon.BpfMap): void {
  const storage = [{ map: tags, value: u32(7) }];
  const loopback = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1);
  const listener = addon.socketOpen({
    family: 6,
    netnsFd,
    storage,
    bind: { address: loopback, port: 15001 },
    reusePort: true,
    backlog: 16,
  });
  const copy = addon.duplicate(listener);
  const options = [{ level: 6, option: 1, value: u32(1) }];
  const dialler = addon.socketOpen({ family: 4, netnsFd, storage, options, bind: { address: loopback, port: 0 } });
  addon.socketOption(dialler, 1, 57, 8);
  addon.socketOption(dialler, 1, 2, u32(1));
  assert.throws(() => addon.socketOpen({ family: 6, netnsFd, bind: { address: loopback, port: 15001 } }));
  // More than one batch, of nobody's: the listener is none of them.
  for (const verb of ['find', 'destroy'] as const) addon.sockDiag(netnsFd, verb, new Uint8Array(100 * 48));
  assert.throws(() => addon.sockDiag(0x7ffffff, 'find', new Uint8Array(48)));
  assert.throws(() => addon.sockDiag(netnsFd, 'find', new Uint8Array(47)));
  for (const fd of [listener, copy, dialler]) closeSync(fd);
}

function namespaceAndFailures(): void {
  closeSync(addon.netnsCreate());
  assert.throws(() => addon.objectOpen('/nowhere'));
  assert.throws(() => addon.pinOpen('/nowhere', 'map'));
  assert.throws(() => addon.socketOpen({ family: 4, netnsFd: 0x7ffffff }));
  const refused = addon.objectOpen(work.refusedPath);
  assert.throws(() => addon.objectLoad(refused));
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}

async function cycles(name: string): Promise<void> {
  const cgroupFd = openSync(work.cgroupPath, 'r');
  const netnsFd = openSync(work.netnsPath, 'r');
  for (let count = 0; count < work.cycles; count++) {
    cycle(cgroupFd, netnsFd, `${work.bpffs}/${name}`);
    await enrolment();
  }
  closeSync(cgroupFd);
  closeSync(netnsFd);
}

async function worker(): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  new Worker(new URL(import.meta.url), { workerData: work }).once('error', reject).once('exit', resolve);
  assert.equal(await promise, 0);
}

async function main(): Promise<void> {
  assert(globalThis.gc);
  // Once for what Node and the thread keep: the loader, the first worker, the thread's own namespace.
  await cycles('main');
  await worker();
  await collected();
  const before = descriptors();
  await cycles('main');
  await worker();
  await collected();
  assert.equal(descriptors(), before, 'descriptors after and before');
}

/** What the garbage collector frees, it frees in turns of the loop of its own. */
async function collected(): Promise<void> {
  for (let round = 0; round < 10; round++) {
    globalThis.gc?.();
    await setImmediate();
  }
}

if (isMainThread) await main();
else await cycles('worker');
