import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import type { ExecutionContext, TestFn } from 'ava';
import type { Address, Endpoint } from '../../src/mesh/index.ts';
import type { PodSockets, SocketMeter } from '../../src/ztunnel/index.ts';
import { ending } from '../unit/ztunnel/loopback.ts';

/** Whoever accepts at an endpoint. */
export interface Accepting {
  readonly port: number;
  accepted(): Promise<Socket>;
  close(): void;
}

/** Pod sockets to test, and a hand on the world around them. */
export interface PodSocketsSubject {
  readonly sockets: PodSockets & SocketMeter;
  /** The pod's network namespace. */
  readonly netnsFd: number;
  readonly podAddress: Address;
  /** Somebody far away, for whom an inbound connection is made. */
  readonly client: Endpoint;
  /** A server that is not in the pod. */
  serverOutside(): Promise<Accepting & { readonly endpoint: Endpoint }>;
  /** A server in the pod. */
  appInPod(): Promise<Accepting & { readonly endpoint: Endpoint }>;
  /** An app of the pod that asked for this, and the socket that the agent accepted. */
  ledClient(asked: Endpoint, bindsSource: boolean): Promise<{ client: Socket; accepted: Socket }>;
  /** The two ends of a connection that nobody led to the agent. */
  strayClient(): Promise<{ client: Socket; accepted: Socket }>;
  dispose(): Promise<void>;
}

/** Accepts from a listener's descriptor, which is its own from now on. */
export async function accepting(fd: number): Promise<Accepting> {
  const arrived: Socket[] = [];
  const waiting: Array<(socket: Socket) => void> = [];
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on('error', () => undefined);
    const next = waiting.shift();
    if (next === undefined) arrived.push(socket);
    else next(socket);
  });
  server.listen({ fd });
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    accepted: () => {
      const socket = arrived.shift();
      return socket === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(socket);
    },
    close: () => void server.close(),
  };
}

/** What every PodSockets must hold to. */
export function podSocketsContract(test: TestFn, name: string, make: () => Promise<PodSocketsSubject>): void {
  const law = (
    title: string,
    run: (t: ExecutionContext, subject: PodSocketsSubject, keep: <T extends Closable>(it: T) => T) => Promise<void>,
  ) =>
    test.serial(`${name} ${title}`, async (t) => {
      const subject = await make();
      const kept: Closable[] = [];
      const keep = <T extends Closable>(it: T): T => {
        kept.push(it);
        return it;
      };
      try {
        await run(t, subject, keep);
      } finally {
        for (const it of kept) close(it);
        await subject.dispose();
      }
    });

  law('tell what a client that was led to the agent had asked for', async (t, subject, keep) => {
    const asked = keep(await subject.serverOutside()).endpoint;
    const led = keep(await subject.ledClient(asked, false));
    t.deepEqual(subject.sockets.originalDestination(led.accepted), {
      endpoint: asked,
      picked: undefined,
      boundSource: false,
      timeouts: undefined,
    });
  });

  law('tell that a client had bound its source address', async (t, subject, keep) => {
    const asked = keep(await subject.serverOutside()).endpoint;
    const led = keep(await subject.ledClient(asked, true));
    t.deepEqual(subject.sockets.originalDestination(led.accepted), {
      endpoint: asked,
      picked: undefined,
      boundSource: true,
      timeouts: undefined,
    });
  });

  law('know nothing of a connection that nobody led to the agent', async (t, subject, keep) => {
    const stray = keep(await subject.strayClient());
    t.is(subject.sockets.originalDestination(stray.accepted), undefined);
  });

  for (const bound of [false, true])
    law(
      `open a socket that reaches a server outside${bound ? ' from the given source' : ''}, not the agent`,
      async (t, subject, keep) => {
        const server = keep(await subject.serverOutside());
        const source = bound ? subject.podAddress : undefined;
        const socket = keep(subject.sockets.openOutbound(subject.netnsFd, server.endpoint, source));
        t.false(socket.connecting);
        t.true(socket.allowHalfOpen);
        const accepted = keep(await reach(socket, server));
        t.is(addressOf(accepted.remoteAddress), subject.podAddress);
        t.is(socket.remotePort, server.endpoint.port);
        await talk(t, socket, accepted);
      },
    );

  law('measure a connected socket until it is gone', async (t, subject, keep) => {
    const server = keep(await subject.serverOutside());
    const socket = keep(subject.sockets.openOutbound(subject.netnsFd, server.endpoint, undefined));
    keep(await reach(socket, server));
    const measured = subject.sockets.measure(socket);
    t.true((measured?.roundTripUs ?? 0) > 0 && (measured?.roundTripUs ?? 0) < 60e6);
    t.is(measured?.retransmits, 0);
    socket.destroy();
    t.is(subject.sockets.measure(socket), undefined);
  });

  law('open a socket whose app sees the client for whom it was opened', async (t, subject, keep) => {
    const app = keep(await subject.appInPod());
    const socket = keep(subject.sockets.openInbound(subject.netnsFd, app.endpoint, subject.client));
    t.false(socket.connecting);
    t.true(socket.allowHalfOpen);
    const accepted = keep(await reach(socket, app));
    t.true(subject.sockets.isSpokenFor(socket));
    t.deepEqual(
      { address: addressOf(accepted.remoteAddress), port: accepted.remotePort },
      { address: subject.client.address, port: subject.client.port },
    );
    await talk(t, socket, accepted);
  });

  law("open a socket whose app sees the client's address with the socket's own port", async (t, subject, keep) => {
    const app = keep(await subject.appInPod());
    const client = { address: subject.client.address, port: 0 };
    const ports = new Set<number | undefined>();
    for (let count = 1; count <= 20; count += 1) {
      const socket = keep(subject.sockets.openInbound(subject.netnsFd, app.endpoint, client));
      const accepted = keep(await reach(socket, app));
      t.is(addressOf(accepted.remoteAddress), client.address);
      t.is(accepted.remotePort, socket.localPort);
      ports.add(accepted.remotePort);
    }
    t.is(ports.size, 20);
  });

  law('open a socket whose peer sees an end by death, where asked', async (t, subject, keep) => {
    const server = keep(await subject.serverOutside());
    const socket = keep(
      subject.sockets.openOutbound(subject.netnsFd, server.endpoint, undefined, { resetOnDeath: false }),
    );
    const accepted = keep(await reach(socket, server));
    socket.destroy();
    t.is((await ending(accepted)).how, 'end');
  });

  for (const direction of ['openOutbound', 'openInbound'] as const)
    for (const on of [true, false])
      law(
        `${direction}: ${on ? 'reset the peer' : 'end cleanly, once told to,'} by death`,
        async (t, subject, keep) => {
          const inbound = direction === 'openInbound';
          const server = keep(await (inbound ? subject.appInPod() : subject.serverOutside()));
          const socket = keep(
            inbound
              ? subject.sockets.openInbound(subject.netnsFd, server.endpoint, subject.client)
              : subject.sockets.openOutbound(subject.netnsFd, server.endpoint, undefined),
          );
          const accepted = keep(await reach(socket, server));
          if (!on) subject.sockets.setResetOnDeath(socket, false);
          // To the kernel a descriptor that is closed and one whose process died are the same.
          socket.destroy();
          t.is((await ending(accepted)).how, on ? 'ECONNRESET' : 'end');
        },
      );

  for (const on of [true, false])
    law(
      `${on ? 'reset' : 'do not reset, once told not to,'} by death the peer of an accepted socket`,
      async (t, subject, keep) => {
        const asked = keep(await subject.serverOutside()).endpoint;
        const { client, accepted } = keep(await subject.ledClient(asked, false));
        if (!on) subject.sockets.setResetOnDeath(accepted, false);
        accepted.destroy();
        t.is((await ending(client)).how, on ? 'ECONNRESET' : 'end');
      },
    );
}

type Closable = Socket | Accepting | { readonly client: Socket; readonly accepted: Socket };

function close(it: Closable): void {
  if ('client' in it) {
    it.client.destroy();
    it.accepted.destroy();
  } else if ('destroy' in it) it.destroy();
  else it.close();
}

async function reach(socket: Socket, server: Accepting & { readonly endpoint: Endpoint }): Promise<Socket> {
  socket.connect({ host: server.endpoint.address, port: server.endpoint.port });
  const [accepted] = await Promise.all([server.accepted(), once(socket, 'connect')]);
  return accepted;
}

/** A word each way, and half-close in between. */
async function talk(t: ExecutionContext, socket: Socket, accepted: Socket): Promise<void> {
  socket.end('question');
  t.is((await ending(accepted)).bytes.toString(), 'question');
  accepted.end('answer');
  t.is((await ending(socket)).bytes.toString(), 'answer');
}

function addressOf(text: string | undefined): string | undefined {
  return text?.replace(/^::ffff:/, '');
}
