/** A worker thread that chooses when it is told the time, and says how often it chose what was ejected. */
import { parentPort, workerData } from 'node:worker_threads';
import { EndpointCosts } from '../../../src/ztunnel/outbound/endpoints.ts';

export interface ProberData {
  readonly memory: SharedArrayBuffer;
  readonly worker: number;
  readonly keys: readonly string[];
  /** So many of the first are ejected. */
  readonly ejected: number;
  readonly choices: number;
  /** One cell that counts who has arrived where. */
  readonly meeting: SharedArrayBuffer;
  readonly threads: number;
}

/** Looks at the others before a thread sleeps. */
const MOST_LOOKS = 10_000;

const { memory, worker, keys, ejected, choices, meeting, threads } = workerData as ProberData;
const arrivals = new Int32Array(meeting);
let now = 0;
const costs = new EndpointCosts({ memory, worker, now: () => now });
const candidates = { keys, weights: keys.map(() => 1) };

parentPort?.on('message', (time: number) => {
  now = time;
  let probes = 0;
  for (let count = 0; count < choices; count += 1) {
    meet();
    if (costs.choose(candidates) < ejected) probes += 1;
  }
  parentPort?.postMessage(probes);
});

/** Goes on when all have come, and all at the same moment: what is tested is that they meet. */
function meet(): void {
  const all = Math.ceil((Atomics.add(arrivals, 0, 1) + 1) / threads) * threads;
  for (let looks = 0, seen = Atomics.load(arrivals, 0); seen < all; looks += 1, seen = Atomics.load(arrivals, 0))
    if (looks > MOST_LOOKS) Atomics.wait(arrivals, 0, seen, 1);
}
