import type { Socket } from 'node:net';
import { type Endpoint, formatEndpoint } from '../mesh/index.ts';
import { HboneError } from './errors.ts';

/**
 * Connects a socket to a peer's HBONE port.
 *
 * @throws HboneError CONNECT_FAILED, CONNECT_TIMED_OUT, CLOSED (by the signal). The socket is destroyed.
 */
export async function dial(socket: Socket, nextHop: Endpoint, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const timeOut = (): void => reject(timedOut(`${formatEndpoint(nextHop)} did not answer within ${timeoutMs} ms`));
  const abort = (): void => reject(new HboneError('CLOSED', 'closed while connecting'));
  const fail = (error: Error): void => reject(connectError(error, nextHop));
  const close = (): void => reject(new HboneError('CONNECT_FAILED', `connecting to ${formatEndpoint(nextHop)} ended`));
  const deadline = setTimeout(timeOut, timeoutMs).unref();
  signal.addEventListener('abort', abort);
  socket.once('connect', resolve).on('error', fail).on('close', close);
  try {
    if (signal.aborted) abort();
    else socket.setNoDelay(true).connect({ host: nextHop.address, port: nextHop.port });
    await promise;
  } catch (error) {
    socket.destroy();
    throw error;
  } finally {
    clearTimeout(deadline);
    signal.removeEventListener('abort', abort);
    // `error` stays: one that nobody listens to ends the process.
    socket.off('connect', resolve).off('close', close);
  }
}

function connectError(cause: NodeJS.ErrnoException, nextHop: Endpoint): HboneError {
  if (cause.code === 'ETIMEDOUT') return timedOut(`${formatEndpoint(nextHop)} did not answer`, cause);
  return new HboneError(
    'CONNECT_FAILED',
    `connecting to ${formatEndpoint(nextHop)} failed: ${cause.code ?? cause.message}`,
    {
      cause,
    },
  );
}

/** Wire contract, section 2.8. */
function timedOut(what: string, cause?: unknown): HboneError {
  return new HboneError(
    'CONNECT_TIMED_OUT',
    `connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: ${what}`,
    { cause },
  );
}
