/**
 * A server on Node's net (AF_INET6, dual stack, unless told otherwise).
 *
 *   node echo.ts --bind ADDR --port N [--mode echo|tell|greet|http|drain|silent] [--quiet]
 *
 * echo: sends back what comes, and ends when the client does.     tell: answers each line with {peer, local, got}.
 * greet: speaks first, with {peer, local}, then echoes.           http: answers a request with {peer, local} as its body.
 * drain: reads all, then sends {bytes}, and ends.                 silent: accepts and never reads.
 *
 * Prints {"event":"listening","port":N}, and unless --quiet, {"event":"accepted",peer,local} and
 * {"event":"closed",peer,bytes,error?} of each connection. On SIGUSR2: {"event":"totals",accepted,open,bytes}.
 */
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    bind: { type: 'string', default: '::' },
    port: { type: 'string', default: '0' },
    mode: { type: 'string', default: 'echo' },
    backlog: { type: 'string', default: '4096' },
    quiet: { type: 'boolean', default: false },
  },
});

const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
const endpoint = (address = '', port = 0): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
const totals = { accepted: 0, open: 0, bytes: 0 };

function serve(socket: Socket): void {
  // As the operating system says it, v4-mapped or not: what an app would see.
  const seen = {
    peer: endpoint(socket.remoteAddress, socket.remotePort),
    local: endpoint(socket.localAddress, socket.localPort),
  };
  let bytes = 0;
  let failure: string | undefined;
  totals.accepted += 1;
  totals.open += 1;
  if (!values.quiet) say({ event: 'accepted', ...seen });
  if (values.mode !== 'silent')
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      totals.bytes += chunk.length;
    });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    failure = error.code ?? error.message;
  });
  socket.on('close', () => {
    totals.open -= 1;
    if (!values.quiet)
      say({ event: 'closed', peer: seen.peer, bytes, ...(failure === undefined ? {} : { error: failure }) });
  });
  switch (values.mode) {
    case 'tell':
      createInterface({ input: socket })
        .on('line', (got) => socket.write(`${JSON.stringify({ ...seen, got })}\n`))
        .on('error', () => undefined); // the socket's own, told there
      socket.on('end', () => socket.end());
      break;
    case 'http': {
      const body = `${JSON.stringify(seen)}\n`;
      const reply = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
      let held = '';
      socket.on('data', (chunk: Buffer) => {
        held += chunk.toString('latin1');
        for (let end = held.indexOf('\r\n\r\n'); end >= 0; end = held.indexOf('\r\n\r\n')) {
          held = held.slice(end + 4);
          socket.write(reply);
        }
      });
      socket.on('end', () => socket.end());
      break;
    }
    case 'drain':
      socket.on('end', () => socket.end(`${JSON.stringify({ bytes })}\n`));
      break;
    case 'silent':
      break;
    default:
      if (values.mode === 'greet') socket.write(`${JSON.stringify(seen)}\n`);
      socket.pipe(socket);
  }
}

const server = createServer({ allowHalfOpen: true, noDelay: true }, serve);
server.on('error', (error: NodeJS.ErrnoException) => {
  say({ event: 'error', error: error.code ?? error.message });
  process.exitCode = 1;
});
server.listen({ host: values.bind, port: Number(values.port), backlog: Number(values.backlog) }, () => {
  const address = server.address();
  if (address && typeof address === 'object') say({ event: 'listening', port: address.port, address: address.address });
});
process.on('SIGUSR2', () => say({ event: 'totals', ...totals }));
