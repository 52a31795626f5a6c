/**
 * Throughput of one stream through a Relay against the same stream without it, over loopback, interleaved.
 * Sender, relay and receiver have a thread each. `./dev bench ztunnel/relay [--json] [--rounds=3] [--mib=1024]`
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { Relay } from '../../src/ztunnel/relay.ts';
import { SocketLeg } from '../../src/ztunnel/socket-leg.ts';

type Role = { role: 'sink' } | { role: 'relay'; port: number } | { role: 'source'; port: number; bytes: number };

const HIGH_WATER_BYTES = 131_072;
const CHUNK_BYTES = 262_144;

if (isMainThread) await main();
else await play(workerData as Role);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, rounds: { type: 'string' }, mib: { type: 'string' } },
  });
  const bytes = Number(values.mib ?? 1024) * 2 ** 20;
  const [sink, sinkPort] = await start({ role: 'sink' });
  const [relay, relayPort] = await start({ role: 'relay', port: sinkPort });
  const direct: number[] = [];
  const relayed: number[] = [];
  for (let round = 0; round < Number(values.rounds ?? 3); round += 1) {
    direct.push(await stream(sinkPort, bytes));
    relayed.push(await stream(relayPort, bytes));
  }
  await Promise.all([sink.terminate(), relay.terminate()]);
  const result = {
    directGbits: median(direct),
    relayedGbits: median(relayed),
    ratio: median(relayed) / median(direct),
  };
  if (values.json) console.log(JSON.stringify(result));
  else
    console.log(
      `direct ${result.directGbits.toFixed(2)} Gbit/s, relayed ${result.relayedGbits.toFixed(2)} Gbit/s, ratio ${result.ratio.toFixed(3)}`,
    );
}

async function start(role: Role): Promise<[Worker, number]> {
  const worker = new Worker(new URL(import.meta.url), { workerData: role });
  const [answer] = await once(worker, 'message');
  return [worker, answer];
}

/** Gbit/s of one stream. */
async function stream(port: number, bytes: number): Promise<number> {
  const [worker, seconds] = await start({ role: 'source', port, bytes });
  await worker.terminate();
  return (bytes * 8) / seconds / 1e9;
}

async function play(role: Role): Promise<void> {
  switch (role.role) {
    case 'sink':
      return await listen((socket) => {
        socket.resume();
        socket.on('end', () => socket.end());
      });
    case 'relay':
      return await listen((client) => {
        const server = connect({ host: '127.0.0.1', port: role.port, allowHalfOpen: true, noDelay: true });
        server.on('connect', () => new Relay(new SocketLeg(client), new SocketLeg(server)));
      });
    case 'source': {
      const socket = connect({ host: '127.0.0.1', port: role.port });
      await once(socket, 'connect');
      const since = performance.now();
      const chunk = Buffer.alloc(CHUNK_BYTES, 1);
      for (let sent = 0; sent < role.bytes; sent += chunk.length) if (!socket.write(chunk)) await once(socket, 'drain');
      socket.end();
      socket.resume();
      await once(socket, 'end');
      parentPort?.postMessage((performance.now() - since) / 1000);
    }
  }
}

async function listen(accepted: (socket: import('node:net').Socket) => void): Promise<void> {
  const options = { allowHalfOpen: true, pauseOnConnect: true, noDelay: true, highWaterMark: HIGH_WATER_BYTES };
  const server = createServer(options, accepted).listen(0, '127.0.0.1');
  await once(server, 'listening');
  parentPort?.postMessage((server.address() as AddressInfo).port);
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
