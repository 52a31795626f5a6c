/**
 * One end of one connection, by hand.
 *
 *   node peer.ts --port N [--bind ADDR]     takes one connection after the other
 *   node peer.ts --to ADDR --port N         connects
 *
 * Prints {"event":"listening"}, {"event":"open",peer,local}, {"event":"data",text} ({"event":"data",bytes} of more than 1 KiB),
 * {"event":"end"} (the other end has said that it will send no more), {"event":"closed"} or {"event":"closed",error}.
 * Obeys lines of standard input:
 *   send TEXT     fill BYTES     end (sends no more, reads on)     reset     close
 */
import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { to: { type: 'string' }, port: { type: 'string', default: '0' }, bind: { type: 'string', default: '::' } },
});

const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
const mostText = 1024;
let current: Socket | undefined;

function attend(socket: Socket): void {
  let failure: string | undefined;
  current = socket;
  socket.setEncoding('utf8');
  socket.on('data', (text) => say({ event: 'data', ...(text.length > mostText ? { bytes: text.length } : { text }) }));
  socket.on('end', () => say({ event: 'end' }));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    failure = error.code ?? error.message;
  });
  socket.on('close', () => say({ event: 'closed', ...(failure === undefined ? {} : { error: failure }) }));
}

const port = Number(values.port);
const opened = (socket: Socket): void => {
  const { localAddress = '', localPort } = socket;
  const local = localAddress.includes(':') ? `[${localAddress}]:${localPort}` : `${localAddress}:${localPort}`;
  say({ event: 'open', peer: `${socket.remoteAddress}`, local });
};
if (values.to === undefined)
  createServer({ allowHalfOpen: true }, (socket) => {
    attend(socket);
    opened(socket);
  }).listen(port, values.bind, () => say({ event: 'listening' }));
else {
  const socket = connect({ host: values.to, port, allowHalfOpen: true }, () => opened(socket));
  attend(socket);
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const [command, ...rest] = line.split(' ');
  if (command === 'send') current?.write(rest.join(' '));
  else if (command === 'fill') current?.write(Buffer.alloc(Number(rest[0]), 'x'));
  else if (command === 'end') current?.end();
  else if (command === 'reset') current?.resetAndDestroy();
  else if (command === 'close') current?.destroy();
});
