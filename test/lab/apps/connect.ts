/**
 * A client on Node's event loop: connects, sends a line, reads a line.
 *
 *   node connect.ts --to ADDR --port N [--bind ADDR] [--bind-port N] [--send TEXT] [--listen-first]
 *
 * Prints {peer, local, reply} or {error, at}, `at` being connect or read; ends with 0 or 1.
 */
import { connect } from 'node:net';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    to: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    bind: { type: 'string' },
    'bind-port': { type: 'string' },
    send: { type: 'string', default: 'hello' },
    'listen-first': { type: 'boolean', default: false },
  },
});

const endpoint = (address = '', port = 0): string =>
  address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
let seen = {};
let connected = false;
let reply = '';
const socket = connect({
  host: values.to,
  port: Number(values.port),
  ...(values.bind === undefined ? {} : { localAddress: values.bind }),
  ...(values['bind-port'] === undefined ? {} : { localPort: Number(values['bind-port']) }),
});
const done = (outcome: Record<string, unknown>, code: number): void => {
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
  process.exitCode = code;
  socket.destroy();
};
socket.on('connect', () => {
  connected = true;
  seen = {
    peer: endpoint(socket.remoteAddress, socket.remotePort),
    local: endpoint(socket.localAddress, socket.localPort),
  };
  if (!values['listen-first']) socket.write(`${values.send}\n`);
});
socket.setEncoding('utf8');
socket.on('data', (chunk) => {
  reply += chunk;
  if (reply.includes('\n')) done({ ...seen, reply: reply.slice(0, reply.indexOf('\n')) }, 0);
});
socket.on('end', () => done({ ...seen, error: 'EOF', at: 'read' }, 1));
socket.on('error', (error: NodeJS.ErrnoException) =>
  done({ ...seen, error: error.code, at: connected ? 'read' : 'connect' }, 1),
);
