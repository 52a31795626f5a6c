/** A tunnel worker whose pods are this process's own loopback: the listener's port says where its clients wanted to go. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Endpoint } from '../../../src/mesh/index.ts';
import { type PodSockets, runTunnelWorker, type TunnelWorkerData } from '../../../src/ztunnel/index.ts';
import { fakePodSockets } from '../../contract/fakes/pod-sockets.ts';

export interface FakeComposition {
  readonly destinations: Readonly<Record<number, Endpoint>>;
  /** Clients of these listeners make the worker fail. */
  readonly crash: readonly number[];
  readonly exit: readonly number[];
  /** Clients of these listeners meet a fault of our own. */
  readonly fault: readonly number[];
}

if (parentPort === null) throw new Error('fake-worker.ts is the entry of a worker thread');
const data: TunnelWorkerData = workerData;
const composition = data.composition as FakeComposition;
const sockets = fakePodSockets(composition);
const watched: PodSockets = {
  ...sockets,
  // The client's own port is in use: by the client, which is on this machine too.
  openInbound: (netnsFd, destination, client) => sockets.openInbound(netnsFd, destination, { ...client, port: 0 }),
  originalDestination: (socket) => {
    const port = socket.localPort ?? 0;
    if (composition.exit.includes(port)) process.exit(3);
    if (composition.fault.includes(port)) throw new Error('a fault');
    if (composition.crash.includes(port)) {
      setImmediate(() => {
        throw new Error('a crash');
      });
    }
    return sockets.originalDestination(socket);
  },
};
const timeouts = { followTimeouts: () => undefined, pollTimeouts: () => undefined };
const meter = { measure: () => undefined };
runTunnelWorker({ port: parentPort, sockets: watched, timeouts, meter }, data);
