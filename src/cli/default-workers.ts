import { availableParallelism } from 'node:os';

export const MOST_WORKERS = 64;

/**
 * Tunnel workers where nobody says how many: half of the cores, for the apps need the other half. More workers also mean that
 * each runs the same code less often, so that V8 compiles it later: on two cores one worker opens a third more connections a
 * second than two, with two thirds of the CPU (docs/performance.md).
 */
export function defaultWorkers(): number {
  return Math.min(Math.ceil(availableParallelism() / 2), MOST_WORKERS);
}
