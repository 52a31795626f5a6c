import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

/** A server that hands out its accepted sockets one by one. */
export interface Listening {
  readonly server: Server;
  readonly port: number;
  accepted(): Promise<Socket>;
}

/** @param options `host`: default 127.0.0.1 */
export async function listening({
  host = '127.0.0.1',
  ...options
}: {
  host?: string;
  pauseOnConnect?: boolean;
} = {}): Promise<Listening> {
  const waiting: Array<(socket: Socket) => void> = [];
  const ready: Socket[] = [];
  const server = createServer({ allowHalfOpen: true, noDelay: true, ...options }, (socket) => {
    // A test that cares about how it breaks listens itself.
    socket.on('error', () => {});
    const next = waiting.shift();
    if (next === undefined) ready.push(socket);
    else next(socket);
  });
  server.listen(0, host);
  await once(server, 'listening');
  return {
    server,
    port: (server.address() as AddressInfo).port,
    accepted: () => {
      const socket = ready.shift();
      return socket === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(socket);
    },
  };
}

/** A connected pair over loopback: [the one that connected, the one that was accepted (paused)]. */
export async function pair(): Promise<[Socket, Socket]> {
  const at = await listening({ pauseOnConnect: true });
  const near = connect({ host: '127.0.0.1', port: at.port, allowHalfOpen: true, noDelay: true });
  const [far] = await Promise.all([at.accepted(), once(near, 'connect')]);
  at.server.close();
  return [near, far];
}

export interface Ending {
  /** Bytes that arrived before the end. */
  readonly bytes: Buffer;
  /** `end`: the peer said that it had finished; otherwise the error's code. */
  readonly how: string;
}

/** Reads a socket until it ends or breaks. */
export function ending(socket: Socket): Promise<Ending> {
  const chunks: Buffer[] = [];
  if (socket.destroyed) {
    const error: NodeJS.ErrnoException | null = socket.errored;
    return Promise.resolve({ bytes: Buffer.alloc(0), how: error?.code ?? 'closed' });
  }
  return new Promise((resolve) => {
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.resume();
    socket.once('end', () => resolve({ bytes: Buffer.concat(chunks), how: 'end' }));
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve({ bytes: Buffer.concat(chunks), how: error.code ?? '' }),
    );
  });
}
