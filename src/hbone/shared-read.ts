import { Buffer } from 'node:buffer';
import { Socket } from 'node:net';

/** As much as libuv reads of TCP at a time. */
const TCP_BYTES = 64 * 1024;
/** A record. */
const TLS_BYTES = 16 * 1024;

/** Takes what has come. The bytes are valid only during the call. */
export type TakeChunk = (socket: Socket, chunk: Buffer) => void;

/**
 * Reads a socket into a buffer that it shares with all others of the thread, from when it is resumed on: `take` is called in
 * place of `data` events. In the usual way Node makes a buffer of 64 KiB for every read, and freeing those again costs a
 * third of what it costs to move many bytes.
 *
 * Node knows such reading as `onread`, but only as an option of sockets that one makes oneself, and not of accepted ones. So
 * it is set where Node keeps it. A socket of which that cannot be done is read in the usual way.
 */
export function readShared(socket: Socket, take: TakeChunk): void {
  const reading = Object.assign(socket, { [TAKE]: take });
  reading.on('data', onData);
  const handle: unknown = Reflect.get(socket, '_handle');
  if (PLACES === undefined || !takesBuffer(handle)) return;
  // Two, because a read of TLS happens within a read of TCP.
  const bytes = 'encrypted' in socket ? tlsBytes() : tcpBytes();
  Reflect.set(socket, PLACES.buffer, bytes);
  Reflect.set(socket, PLACES.callback, onRead);
  handle.useUserBuffer(bytes);
}

const TAKE = Symbol('take');

interface ReadingSocket extends Socket {
  [TAKE]: TakeChunk;
}

function onData(this: ReadingSocket, chunk: Buffer): void {
  this[TAKE](this, chunk);
}

/** Node's `onread`. Returns whether to go on reading. */
function onRead(this: ReadingSocket, length: number, bytes: Buffer): boolean {
  const chunk = bytes.subarray(0, length);
  // What was read in the usual way, before, comes first.
  if (this.readableLength > 0) return this.push(Buffer.from(chunk));
  this[TAKE](this, chunk);
  return true;
}

/** Where Node keeps the buffer and the callback of `onread`; undefined: not where it did. */
const PLACES = placesOf(new Socket());

function placesOf(socket: Socket): { readonly buffer: symbol; readonly callback: symbol } | undefined {
  const symbols = Object.getOwnPropertySymbols(socket);
  const buffer = symbols.find(({ description }) => description === 'kBuffer');
  const callback = symbols.find(({ description }) => description === 'kBufferCb');
  return buffer === undefined || callback === undefined ? undefined : { buffer, callback };
}

let tcp: Buffer | undefined;
let tls: Buffer | undefined;

function tcpBytes(): Buffer {
  tcp ??= Buffer.allocUnsafeSlow(TCP_BYTES);
  return tcp;
}

function tlsBytes(): Buffer {
  tls ??= Buffer.allocUnsafeSlow(TLS_BYTES);
  return tls;
}

/** A handle of Node's that can be told where to read to. */
interface BufferedHandle {
  useUserBuffer(bytes: Uint8Array): void;
}

function takesBuffer(handle: unknown): handle is BufferedHandle {
  return typeof handle === 'object' && handle !== null && typeof Reflect.get(handle, 'useUserBuffer') === 'function';
}
