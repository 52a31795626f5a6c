/**
 * Opens connections and holds them.
 *
 *   node hold.ts --to ADDR:PORT[,ADDR:PORT...] --count N [--rate PER_SECOND] [--at-once N]
 *
 * Prints {"event":"held",open,errors} once every connection is open or has failed. Then obeys lines of standard input:
 *   ping    writes a line on each, and prints {"event":"ping",alive} when each has answered or closed
 *   state   prints {"event":"state",open,lost,lastLostAt,errors}; `lost` closed without being asked to, the last of them at
 *           `lastLostAt`, milliseconds since the epoch
 *   close   closes all, prints {"event":"end",...}, and ends; so does the end of standard input.
 */
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    to: { type: 'string', default: '' },
    count: { type: 'string', default: '1' },
    rate: { type: 'string', default: '5000' },
    'at-once': { type: 'string', default: '256' },
  },
});

const destinations = values.to.split(',').map((text) => {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replaceAll(/[[\]]/g, ''), port: Number(text.slice(colon + 1)) };
});
const count = Number(values.count);
const perTick = Math.max(1, Number(values.rate) / 100);
const atOnce = Number(values['at-once']);
const open = new Set<Socket>();
const errors: Record<string, number> = {};
let started = 0;
let settled = 0;
let lost = 0;
let lastLostAt = 0;
let closing = false;
let allowance = 0;

const say = (event: Record<string, unknown>): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
const state = (): Record<string, unknown> => ({ open: open.size, lost, lastLostAt, errors });

function hold(): void {
  const destination = destinations[started % destinations.length] ?? { host: '', port: 0 };
  started += 1;
  const socket = connect(destination);
  const settle = (): void => {
    settled += 1;
    if (settled === count) say({ event: 'held', ...state() });
  };
  socket.on('connect', () => {
    open.add(socket);
    settle();
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    const code = error.code ?? error.message;
    errors[code] = (errors[code] ?? 0) + 1;
  });
  socket.on('close', () => {
    if (!open.delete(socket)) settle();
    else if (!closing) {
      lost += 1;
      lastLostAt = Date.now();
      if (open.size === 0) say({ event: 'all lost', ...state() });
    }
  });
  socket.resume();
}

async function ping(): Promise<void> {
  const answers = [...open].map(
    (socket) =>
      new Promise<number>((resolve) => {
        const settle = (alive: number): void => {
          socket.off('data', onData).off('close', onClose);
          resolve(alive);
        };
        const onData = (): void => settle(1);
        const onClose = (): void => settle(0);
        socket.once('data', onData).once('close', onClose);
        socket.write('ping\n');
      }),
  );
  say({ event: 'ping', alive: (await Promise.all(answers)).reduce((sum, alive) => sum + alive, 0) });
}

function end(): void {
  closing = true;
  clearInterval(pace);
  say({ event: 'end', ...state() });
  for (const socket of open) socket.destroy();
  process.stdin.destroy();
}

const pace = setInterval(() => {
  allowance = Math.min(allowance + perTick, perTick * 2);
  while (allowance >= 1 && started < count && started - settled < atOnce) {
    allowance -= 1;
    hold();
  }
  if (started === count) clearInterval(pace);
}, 10);

const commands = createInterface({ input: process.stdin })
  .on('line', (line) => {
    if (line === 'ping') void ping();
    else if (line === 'state') say({ event: 'state', ...state() });
    else if (line === 'close') commands.close();
  })
  .on('close', end);
