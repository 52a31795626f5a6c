import { setFlagsFromString } from 'node:v8';

/**
 * Calls of a function before V8 compiles it, quickly and then well. Its own defaults are 400 and 3000, for programs that run a
 * few functions very often. Here hundreds of them run about once for every connection, in each worker by itself: a node with
 * few connections would run slow code for its whole life, and a busy one for its first minutes.
 */
const QUICK_AFTER = 100;
const WELL_AFTER = 500;

/** To be called before the workers are made: it counts for all threads of the process. Again: nothing happens. */
export function compileSoon(): void {
  setFlagsFromString(`--invocation-count-for-maglev=${QUICK_AFTER}`);
  setFlagsFromString(`--invocation-count-for-turbofan=${WELL_AFTER}`);
}
