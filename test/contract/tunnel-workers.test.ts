import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { type PreparedPod, parsePod, type Tunnel } from '../../src/agent/index.ts';
import { duplicate, openKernel, removePrograms } from '../../src/kernel/index.ts';
import { type Address, encodeAddress, type MeshUpdate, type NetnsCookie } from '../../src/mesh/index.ts';
import { OUTBOUND_PORT, TunnelWorkers } from '../../src/ztunnel/index.ts';
import { apps, Lab, type LabPod } from '../lab/index.ts';
import type { FakeComposition } from '../unit/ztunnel/fake-worker.ts';
import { listening } from '../unit/ztunnel/loopback.ts';
import { enterCgroup } from './enter-cgroup.ts';
import { pod as makePod } from './fakes/pods.ts';
import { FakeSeries } from './fakes/series.ts';
import { accepting } from './pod-sockets.ts';
import { tunnelContract } from './tunnel.ts';

const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const meshSnapshot = (): MeshUpdate => ({
  complete: true,
  workloads: [],
  services: [],
  removed: [],
  policies: [],
  removedPolicies: [],
  settings: undefined,
});
const port = 8080;

/** Resolves with true once the tunnel has this many open connections for a pod more than before. */
async function counted(tunnel: Tunnel, cookie: NetnsCookie, before: number): Promise<boolean> {
  const open = (): number => tunnel.status().openConnections.get(cookie) ?? 0;
  // The workers' numbers come without an event.
  while (open() <= before) await new Promise((resolve) => setTimeout(resolve, 5));
  return true;
}

tunnelContract(test, 'the workers on loopback', async () => {
  const loopback = '127.0.0.1' as Address;
  const app = await listening();
  const clients: Socket[] = [];
  const cookies = new Map<NetnsCookie, { port: number; fd: number }>();
  const listeners: Array<{ port: number; fd: number }> = [];
  // The worker is told where its clients want to go when it is born.
  for (let at = 0; at < 2; at += 1) {
    const fd = addon.socketOpen({ family: 4, bind: { address: encodeAddress(loopback), port: 0 }, backlog: 64 });
    const by = await accepting(duplicate(fd));
    by.close();
    listeners.push({ port: by.port, fd });
  }
  const endpoint = { address: loopback, port: app.port };
  const composition: FakeComposition = {
    destinations: Object.fromEntries(listeners.map((listener) => [listener.port, endpoint])),
    crash: [],
    exit: [],
    fault: [],
  };
  const tunnel: Tunnel = new TunnelWorkers(
    {
      log,
      duplicate,
      meshSnapshot,
      wantCertificate: () => undefined,
      flows: { add: () => undefined },
      series: new FakeSeries(),
    },
    {
      entry: new URL('../unit/ztunnel/fake-worker.ts', import.meta.url),
      workers: 1,
      descriptorLimit: 1000,
      descriptorReserve: 0,
      composition,
    },
  );
  const knock = async (prepared: PreparedPod): Promise<void> => {
    const client = connect({ host: loopback, port: cookies.get(prepared.cookie)?.port ?? 0 });
    clients.push(client.on('error', () => undefined));
    await once(client, 'connect');
  };
  return {
    tunnel,
    async makePod() {
      const listener = listeners[cookies.size];
      if (listener === undefined) throw new Error('no test of the contract has so many pods');
      const cookie = BigInt(cookies.size + 1) as NetnsCookie;
      cookies.set(cookie, listener);
      const prepared = { cookie, netnsFd: 0, listeners: [{ port: OUTBOUND_PORT, slot: 0, fd: listener.fd }] };
      return { pod: makePod({ uid: `uid-${cookie}` }), prepared };
    },
    async connect(prepared) {
      const before = tunnel.status().openConnections.get(prepared.cookie) ?? 0;
      await knock(prepared);
      return await counted(tunnel, prepared.cookie, before);
    },
    knock,
    async dispose() {
      await tunnel.shutdown(0);
      for (const client of clients) client.destroy();
      for (const { fd } of listeners) closeSync(fd);
      app.server.close();
    },
  };
});

tunnelContract(test, 'the workers in pods', async () => {
  const lab = await Lab.create('the contract of Tunnel');
  const node = await lab.node('n1');
  const server = await node.pod('server');
  await server.run(apps.echo({ bind: '0.0.0.0', port })).json({ event: 'listening' });
  const leave = enterCgroup(node);
  const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 2 });
  const tunnel: Tunnel = new TunnelWorkers(
    {
      log,
      duplicate,
      meshSnapshot,
      wantCertificate: () => undefined,
      flows: { add: () => undefined },
      series: new FakeSeries(),
    },
    {
      entry: new URL('../../src/cli/compose-worker.ts', import.meta.url),
      workers: 2,
      descriptorLimit: 1000,
      descriptorReserve: 0,
      composition: { bpffs: node.bpffs },
    },
  );
  const places = new Map<NetnsCookie, LabPod>();
  const knock = async (prepared: PreparedPod): Promise<void> => {
    const client = places.get(prepared.cookie)?.run(apps.pythonConnect({ to: server.ipv4, port, hold: true }));
    await client?.json({ event: 'connected' });
  };
  return {
    tunnel,
    async makePod() {
      const place = await node.pod(`p${places.size + 1}`);
      const pod = parsePod(place.request());
      const prepared = kernel.prepare(pod);
      kernel.capture(pod, prepared.cookie);
      places.set(prepared.cookie, place);
      return { pod, prepared };
    },
    async connect(prepared) {
      const before = tunnel.status().openConnections.get(prepared.cookie) ?? 0;
      await knock(prepared);
      return await counted(tunnel, prepared.cookie, before);
    },
    knock,
    async dispose() {
      await tunnel.shutdown(0);
      kernel.dispose();
      removePrograms(node.bpffs);
      leave();
      await lab.dispose();
    },
  };
});
