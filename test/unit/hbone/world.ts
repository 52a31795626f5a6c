import { once } from 'node:events';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import {
  type Certificates,
  type IncomingRequest,
  type PeerRefusal,
  type StreamSink,
  type TunnelPeer,
  TunnelServer,
  type TunnelServerOptions,
  type TunnelStream,
} from '../../../src/hbone/index.ts';
import type { Address, Endpoint } from '../../../src/mesh/index.ts';
import { SERVER } from '../../pki.ts';

/** What came out of a stream, and a way to wait for it. */
export class Collector implements StreamSink {
  text = '';
  readonly ends = Promise.withResolvers<void>();
  readonly closes = Promise.withResolvers<Error | undefined>();

  data(chunk: Buffer): void {
    this.text += chunk.toString();
  }

  drained(): void {}

  ended(): void {
    this.ends.resolve();
  }

  closed(error: Error | undefined): void {
    this.closes.resolve(error);
  }
}

/** Attaches a collector. */
export function collect(stream: TunnelStream): Collector {
  const collector = new Collector();
  stream.attach(collector);
  return collector;
}

/** Accepts, and gives back what comes. */
export function echo(request: IncomingRequest): void {
  const stream = request.accept([['x-answer', 'yes']]);
  stream.attach({
    data: (chunk) => stream.write(chunk),
    drained: () => {},
    ended: () => stream.end(),
    closed: () => {},
  });
}

/** The far end: a TunnelServer behind a port on the loopback. */
export interface FarEnd {
  readonly endpoint: Endpoint;
  readonly server: TunnelServer;
  readonly listener: Server;
  /** Every TCP connection that was accepted. */
  readonly sockets: Socket[];
  readonly requests: Array<{ readonly request: IncomingRequest; readonly peer: TunnelPeer }>;
  readonly refusals: PeerRefusal[];
  /** The next refusal. */
  refused(): Promise<PeerRefusal>;
  close(): void;
}

export async function farEnd(
  certificates: Certificates,
  onRequest: (request: IncomingRequest, peer: TunnelPeer) => void = echo,
  options: Partial<TunnelServerOptions> = {},
): Promise<FarEnd> {
  const requests: FarEnd['requests'] = [];
  const refusals: PeerRefusal[] = [];
  const sockets: Socket[] = [];
  let next = Promise.withResolvers<PeerRefusal>();
  const server = new TunnelServer(
    {
      certificates,
      onRequest: (request, peer) => {
        requests.push({ request, peer });
        onRequest(request, peer);
      },
      onRefused: (refusal) => {
        refusals.push(refusal);
        next.resolve(refusal);
        next = Promise.withResolvers();
      },
    },
    { identity: SERVER, ...options },
  );
  const listener = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) => {
    sockets.push(socket);
    server.accept(socket);
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  return {
    endpoint: { address: '127.0.0.1' as Address, port: (listener.address() as AddressInfo).port },
    server,
    listener,
    sockets,
    requests,
    refusals,
    refused: () => next.promise,
    close: () => {
      server.close();
      listener.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
