import { connect } from 'node:net';
import { messageOf } from '../mesh/index.ts';
import { AgentError } from './errors.ts';
import { encodePod, type Method, parseReply, type Reply, type Request } from './protocol.ts';

const NEWLINE = 0x0a;
const MAX_REPLY_BYTES = 64 * 1024 * 1024;

export interface AgentClientOptions {
  /** Path of the agent's socket. */
  readonly path: string;
  /** Longest wait for the reply. Default: 30,000 ms. */
  readonly deadlineMs?: number;
  /** The caller has given it up; the call then fails with the signal's reason. Default: never. */
  readonly signal?: AbortSignal;
}

/**
 * Sends one request to an agent.
 *
 * @throws AgentError the agent's own error, or AGENT_UNREACHABLE, AGENT_SILENT, BAD_REPLY
 */
export async function callAgent<M extends Method>(
  request: Extract<Request, { method: M }>,
  options: AgentClientOptions,
): Promise<Reply<M>> {
  const line = await exchange(encodeRequest(request), options);
  return parseReply<M>(request.method, line);
}

/** A request line, newline included. */
function encodeRequest(request: Request): string {
  const wire = request.method === 'enrol' ? { method: 'enrol', pod: encodePod(request.pod) } : request;
  return `${JSON.stringify(wire)}\n`;
}

async function exchange(line: string, options: AgentClientOptions): Promise<Uint8Array> {
  const deadlineMs = options.deadlineMs ?? 30_000;
  const { path } = options;
  const socket = connect(path);
  const deadline = AbortSignal.timeout(deadlineMs);
  const silent = Promise.withResolvers<never>();
  const giveUp = (): void =>
    silent.reject(new AgentError('AGENT_SILENT', `the agent at ${path} gave no reply within ${deadlineMs} ms`));
  const leave = (): void => silent.reject(options.signal?.reason);
  deadline.addEventListener('abort', giveUp, { once: true });
  try {
    options.signal?.addEventListener('abort', leave, { once: true });
    if (options.signal?.aborted === true) leave();
    return await Promise.race([readLine(socket, line, path), silent.promise]);
  } finally {
    deadline.removeEventListener('abort', giveUp);
    options.signal?.removeEventListener('abort', leave);
    socket.destroy();
  }
}

async function readLine(socket: ReturnType<typeof connect>, line: string, path: string): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  // A failed write must not hide a reply that has arrived: an agent that refuses answers first, then closes.
  let failure: Error | undefined;
  socket.write(line, (error) => {
    failure ??= error ?? undefined;
  });
  try {
    for await (const chunk of socket) {
      const data: Buffer = chunk;
      chunks.push(data);
      bytes += data.byteLength;
      if (data.includes(NEWLINE)) break;
      if (bytes > MAX_REPLY_BYTES) throw new AgentError('BAD_REPLY', `the reply of ${path} does not end`);
    }
  } catch (error) {
    if (error instanceof AgentError) throw error;
    failure ??= error instanceof Error ? error : new Error(String(error));
  }
  const held = Buffer.concat(chunks);
  const end = held.indexOf(NEWLINE);
  if (end >= 0) return held.subarray(0, end);
  if (failure === undefined)
    throw new AgentError('BAD_REPLY', `the agent at ${path} closed the connection without a reply`);
  throw new AgentError(
    'AGENT_UNREACHABLE',
    `no agent answers at ${path} (${messageOf(failure)}); is it running, with this --run directory, and are you root?`,
    { cause: failure },
  );
}
