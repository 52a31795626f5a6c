/** Command lines of the apps that run in pods, for `run` and `exec`. Each file tells what it prints. */
import { join } from 'node:path';
import { compile, projectRoot } from '../compile.ts';

const python = '/usr/bin/python3';
const directory = join(projectRoot, 'test', 'lab', 'apps');

/** Turns `{ bindPort: 1, hold: true }` into `--bind-port 1 --hold`; false and undefined are left out, a list is given one by one. */
function flags(options: Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>): string[] {
  return Object.entries(options).flatMap(([name, value]) => {
    if (value === undefined || value === false) return [];
    const flag = `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    if (typeof value === 'object') return value.flatMap((each) => [flag, each]);
    return value === true ? [flag] : [flag, `${value}`];
  });
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function endpoint(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

export interface EchoOptions {
  /** Default: `::`, which takes IPv4 too. */
  bind?: string;
  port: number;
  /** echo (default), tell, greet, http, drain, silent: see echo.ts. */
  mode?: 'echo' | 'tell' | 'greet' | 'http' | 'drain' | 'silent';
  backlog?: number;
  /** Print nothing per connection. */
  quiet?: boolean;
}

/** A server on Node. Ready at `{event:'listening'}`. */
export function echo(options: EchoOptions): string[] {
  return [process.execPath, join(directory, 'echo.ts'), ...flags({ ...options })];
}

export interface PythonEchoOptions {
  bind?: string;
  port: number;
  mode?: 'echo' | 'tell' | 'greet';
  v6only?: boolean;
  mptcp?: boolean;
  fastopen?: boolean;
  reuseport?: boolean;
  device?: string;
}

/** A server on blocking sockets. Ready at `{event:'listening'}`. */
export function pythonEcho(options: PythonEchoOptions): string[] {
  return [python, join(directory, 'echo.py'), ...flags({ ...options })];
}

export interface ConnectOptions {
  to: string;
  port: number;
  /** Source address. */
  bind?: string;
  /** Source port. */
  bindPort?: number;
  /** Default: `hello`. */
  send?: string;
  /** Send nothing, wait for the server. */
  listenFirst?: boolean;
}

/** A client on Node's event loop. */
export function connect(options: ConnectOptions): string[] {
  return [process.execPath, join(directory, 'connect.ts'), ...flags({ ...options })];
}

export interface PythonConnectOptions extends ConnectOptions {
  /** An AF_INET6 socket to the v4-mapped address. */
  mapped?: boolean;
  /** Share the source port: SO_REUSEADDR and SO_REUSEPORT. */
  reuse?: boolean;
  /** IP_BIND_ADDRESS_NO_PORT. */
  noPort?: boolean;
  nonblocking?: boolean;
  mark?: number;
  /** SO_BINDTODEVICE. */
  device?: string;
  mptcp?: boolean;
  /** sendto(MSG_FASTOPEN). */
  fastopen?: boolean;
  fastopenConnect?: boolean;
  /** Seconds. Default: 30. */
  timeout?: number;
  /** Stay connected and take lines from standard input. */
  hold?: boolean;
  /** Make the socket first, connect at a line of standard input. */
  wait?: boolean;
  /** Path of a unix socket over which the made socket is given away. */
  give?: string;
  /** Path at which to take a socket made elsewhere. */
  take?: string;
}

/** A client with every option that a socket can have. */
export function pythonConnect(options: PythonConnectOptions): string[] {
  return [python, join(directory, 'connect.py'), ...flags({ ...options })];
}

/** A client that makes and connects its socket through io_uring. Against an `echo` server: the reply is printed as it is. */
export async function uringConnect(options: { to: string; port: number }): Promise<string[]> {
  return [await compile('apps/uring.c'), options.to, `${options.port}`];
}

export interface LoadOptions {
  /** Connections per second. */
  rate: number;
  seconds: number;
  /** Of the form that `endpoint` gives; taken in turn. */
  to: readonly string[];
  /** What getsockname must give. Default: anything. */
  local?: string;
  /** Connections under way, at most: above that the rate is not reached. Default: 8,192, which is the most. */
  atOnce?: number;
}

/** Many short connections, closed by the client. Ends with `{event:'end', started, answered, local_wrong, errors}`. */
export async function load(options: LoadOptions): Promise<string[]> {
  const program = await compile('apps/load.c');
  const { rate, seconds, local = '-', atOnce = 8192 } = options;
  return [program, `${rate}`, `${seconds}`, local, `${atOnce}`, ...options.to];
}

/**
 * An echo server for load: short messages, many ports (`port` and the following), next to no CPU. Ready at
 * `{event:'listening'}`. With a tag (one character) it answers with that, and how it was reached.
 */
export async function answer(options: { port: number; ports?: number; tag?: string }): Promise<string[]> {
  const { port, ports = 1, tag } = options;
  return [await compile('apps/answer.c'), `${port}`, `${ports}`, ...(tag === undefined ? [] : [tag])];
}

/** A client that makes connections as standard input tells, to `answer` with a tag. Ready at `{event:'ready'}`. See attempt.c. */
export async function attempt(): Promise<string[]> {
  return [await compile('apps/attempt.c')];
}

/** A small HTTP server for benches: answers anything with `bodyBytes` bytes (default: 1,024). Ready at `{event:'listening'}`. */
export async function web(options: { port: number; bodyBytes?: number }): Promise<string[]> {
  return [await compile('apps/web.c'), `${options.port}`, `${options.bodyBytes ?? 1024}`];
}

export type ProbeOptions = { to: string; port: number } & (
  | { mode: 'connect'; count: number }
  | { mode: 'churn'; clients: number; seconds: number }
  | { mode: 'pace'; connections: number; rate: number; seconds: number }
);

/** A client for benches: one JSON line with what it has measured. See probe.c. */
export async function probe(options: ProbeOptions): Promise<string[]> {
  const { mode, to, port, ...numbers } = options;
  return [await compile('apps/probe.c'), mode, to, `${port}`, ...Object.values(numbers).map(String)];
}

export interface HoldOptions {
  to: readonly string[];
  count: number;
  /** Per second. Default: 5,000. */
  rate?: number;
  /** Connecting at the same time, at most. Default: 256. */
  atOnce?: number;
}

/** Many long connections. `{event:'held', open, errors}` when all are there. */
export function hold(options: HoldOptions): string[] {
  return [process.execPath, join(directory, 'hold.ts'), ...flags({ ...options, to: options.to.join(',') })];
}

/** One end of one connection, told by standard input what to do. See peer.ts. */
export function peer(options: { to?: string; port: number; bind?: string }): string[] {
  return [process.execPath, join(directory, 'peer.ts'), ...flags({ ...options })];
}

export interface TransferOptions {
  port: number;
  /** Addresses of the server, taken in turn. Undefined: this is the server. */
  to?: readonly string[];
  seed?: number;
  count?: number;
  atOnce?: number;
  /** Largest random size, per direction. */
  mostBytes?: number;
  /** How many of the transfers are of 64 MiB each way. */
  largest?: number;
  /** One direction's reader waits to be told. */
  stall?: 'up' | 'down';
  /** Size of a stalled transfer. */
  bytes?: number;
}

/** Random transfers both ways, hashed at both ends. See transfer.ts. */
export function transfer({ to, ...options }: TransferOptions): string[] {
  const destinations = to === undefined ? {} : { to: to.join(',') };
  return [process.execPath, join(directory, 'transfer.ts'), ...flags({ ...options, ...destinations })];
}

/** Of both h2Client and h2Server. Files are PEM. */
interface H2Options {
  cert?: string;
  key?: string;
  /** Undefined: the other is not checked. */
  roots?: string;
  tls?: '1.2' | '1.3';
  /** Default: `h2`. Empty: none. */
  alpn?: string;
  /** `name: value`. In a client's, `%` is the number of the request. */
  header?: readonly string[];
  /** SETTINGS_INITIAL_WINDOW_SIZE. Default: 65,535. */
  window?: number;
  /** SETTINGS_MAX_FRAME_SIZE. Default: 16,384. */
  frame?: number;
  /** SETTINGS_HEADER_TABLE_SIZE. Default: 4,096. */
  table?: number;
  /** SETTINGS_MAX_CONCURRENT_STREAMS. Default: 100. */
  maxStreams?: number;
  /** Pad DATA at random. */
  padding?: boolean;
  /** Header blocks in pieces of so many bytes: CONTINUATION. */
  split?: number;
  seed?: number;
}

export interface H2ClientOptions extends H2Options {
  to: string;
  port: number;
  /** Source address. */
  bind?: string;
  /** Default: CONNECT. */
  method?: string;
  /** Undefined: none is sent. */
  authority?: string;
  /** Opened at once. Default: 1. */
  streams?: number;
  /** Random bytes that each sends; else `send`. */
  bytes?: number;
  /** Default: `hello` and a newline. */
  send?: string;
  /** END_STREAM only after the peer's. */
  endLast?: boolean;
  /** RST_STREAM with this code (its name) once something has come back. */
  reset?: string;
  /** Sizes of the dynamic table, comma-separated; the next one for each request. */
  tables?: string;
  /** Lines of standard input are sent on every stream. */
  hold?: boolean;
}

/** An HBONE client that is not ours. See h2-client.py. */
export function h2Client(options: H2ClientOptions): string[] {
  return [python, '-B', join(directory, 'h2-client.py'), ...flags({ ...options })];
}

export interface H2ServerOptions extends H2Options {
  /** Default: `::`. */
  bind?: string;
  /** 0: any; `listening` tells. */
  port: number;
  /** Of every answer. Default: 200. */
  status?: number;
  /** Never answers. */
  silent?: boolean;
  /** Of each session, the first streams to refuse: REFUSED_STREAM. */
  refuse?: number;
  /** GOAWAY when a session has so many requests. */
  goawayAfter?: number;
  /** RST_STREAM when so many bytes have come on a stream. */
  resetAfter?: number;
  /** Its code, by name. Default: CONNECT_ERROR. */
  reset?: string;
  /** Gives no window back until it is told `go`. */
  stall?: boolean;
}

/** An HBONE server that is not ours. Ready at `{event:'listening'}`. See h2-server.py. */
export function h2Server(options: H2ServerOptions): string[] {
  return [python, '-B', join(directory, 'h2-server.py'), ...flags({ ...options })];
}

export interface H2HostileOptions {
  to: string;
  port: number;
  cert: string;
  key: string;
  authority: string;
  /** See h2-hostile.py. */
  attack: string;
  /** How often. Default: 10,000. */
  count?: number;
  /** Stays connected until its standard input ends. */
  hold?: boolean;
}

/** An HBONE client that means harm. Ends with `{event:'over'}`. See h2-hostile.py. */
export function h2Hostile(options: H2HostileOptions): string[] {
  return [python, '-B', join(directory, 'h2-hostile.py'), ...flags({ ...options })];
}
