import type { Duplex } from 'node:stream';
import type { IncomingRequest, SessionOptions } from '../session.ts';
import { MemoryBudget } from './budget.ts';
import { FrameClient } from './client.ts';
import { GatherPool } from './gather.ts';
import { FrameServer } from './server.ts';
import type { SessionDeps } from './session.ts';

export type { MemoryBudgetOptions } from './budget.ts';
export { MemoryBudget } from './budget.ts';
export { MAX_WRITE_BYTES } from './outbox.ts';
export { HELD_PRESSURE_BYTES, maxHeldBytes } from './receive-windows.ts';

/** Makes sessions of connected TLS sockets whose peers have passed their test. */
export interface FrameFactory {
  client(socket: Duplex, options?: SessionOptions): FrameClient;
  server(socket: Duplex, onRequest: (request: IncomingRequest) => void, options?: SessionOptions): FrameServer;
}

/** Sessions of one factory share their write buffers and the budget. */
export function createFrames(budget = new MemoryBudget()): FrameFactory {
  const deps: SessionDeps = { pool: new GatherPool(), budget };
  return {
    client: (socket, options) => new FrameClient(socket, deps, options),
    server: (socket, onRequest, options) => new FrameServer(socket, onRequest, deps, options),
  };
}

/** Every thread has one of its own: the budget is that of a worker, for all its pods. */
export const threadFrames: FrameFactory = createFrames();
