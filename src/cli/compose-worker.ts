/** The entry of a tunnel worker thread: joins the kernel's pod sockets and the tunnel. */
import { parentPort, workerData } from 'node:worker_threads';
import { createPodSockets } from '../kernel/index.ts';
import { runTunnelWorker, type TunnelWorkerData } from '../ztunnel/index.ts';

/** What compose-agent.ts gives every worker (`TunnelWorkersOptions.composition`). */
interface WorkerComposition {
  /** Where this node's bpffs is mounted. */
  readonly bpffs: string;
}

if (parentPort === null) throw new Error('compose-worker.ts is the entry of a worker thread');
const data: TunnelWorkerData = workerData;
const { bpffs } = data.composition as WorkerComposition;
const sockets = createPodSockets(bpffs);
runTunnelWorker({ port: parentPort, sockets, timeouts: sockets, meter: sockets }, data);
