/** What agents and the link tell of connections. */
import { setTimeout as pause } from 'node:timers/promises';
import type { Captured, LabAgent, LabPod } from '../test/lab/index.ts';
import type { Talk } from './stage.ts';

/** An agent's line of log about a connection that is over (docs: `connection complete`). */
export interface Told {
  /** Node of the agent. */
  readonly node: string;
  readonly path: string;
  readonly identities: string;
  /** Where the connection was led to. */
  readonly to: string;
  /** What was asked for through the tunnel. */
  readonly authority: string;
  readonly error: string;
}

/** A connection as the apps saw it, and as the agents of both ends told of it. */
export interface Trace {
  readonly talk: Talk;
  /** By the agent of the client's node; undefined: it did not have it. */
  readonly near: Told | undefined;
  /** By the agent of the server's node. */
  readonly far: Told | undefined;
}

const deadlineMs = 5000;
const lookMs = 20;

/**
 * Finds each connection in the agents' logs, by the client's address and port, which both agents tell.
 *
 * @param enrolled of these pods an agent must have something to tell
 */
export async function trace(
  talks: readonly Talk[],
  agents: readonly LabAgent[],
  enrolled: readonly LabPod[],
): Promise<Trace[]> {
  const names = new Set(enrolled.map(({ name }) => name));
  const isWhole = ({ talk, near, far }: Trace): boolean =>
    (near !== undefined || !names.has(talk.from.name)) && (far !== undefined || !names.has(talk.server ?? ''));
  const until = performance.now() + deadlineMs;
  for (;;) {
    const lines = agents.flatMap(linesOf);
    const found = talks.map((talk) => ({
      talk,
      near: told(lines, talk, 'outbound'),
      far: told(lines, talk, 'inbound'),
    }));
    if (found.every(isWhole) || performance.now() > until) return found;
    await pause(lookMs);
  }
}

interface Line {
  readonly node: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

function linesOf(agent: LabAgent): Line[] {
  const done = agent.process.records.filter(({ message }) => message === 'connection complete');
  return done.map((fields) => ({ node: agent.node.name, fields }));
}

function told(lines: readonly Line[], talk: Talk, direction: string): Told | undefined {
  const line = lines.findLast(({ fields }) => fields['src.addr'] === talk.local && fields.direction === direction);
  if (line === undefined) return undefined;
  const text = (name: string): string => `${line.fields[name] ?? ''}`;
  const [source, destination] = [short(text('src.identity')), short(text('dst.identity'))];
  return {
    node: line.node,
    path: text('path'),
    identities: source === '' ? 'none' : `${source} -> ${destination}`,
    to: text('dst.addr'),
    authority: text('dst.hbone_addr'),
    error: text('error'),
  };
}

/** `spiffe://cluster.local/ns/shop/sa/buyer` is `shop/buyer` for short. */
export function short(identity: string): string {
  return identity.replace(/^spiffe:\/\/cluster\.local\/ns\/([^/]+)\/sa\/([^/]+)$/, '$1/$2');
}

/** How it travelled, if all who must tell say the same. */
export function pathOf({ near, far }: Trace): string {
  const paths = new Set([near, far].flatMap((each) => (each === undefined ? [] : [each.path])));
  return paths.size === 1 ? [...paths].join() : 'unclear';
}

/** Who proved to be whom, if both ends say the same. */
export function identitiesOf({ near, far }: Trace): string {
  const found = new Set([near, far].flatMap((each) => (each === undefined ? [] : [each.identities])));
  return found.size === 1 ? [...found].join() : 'unclear';
}

/** How many of the words and receipts of these conversations occur in a capture. */
export function legible(captured: Captured, talks: readonly Talk[]): number {
  const secrets = talks.flatMap(({ word, receipt }) => [word, receipt]).filter((secret) => secret !== '');
  return secrets.filter((secret) => captured.contains(secret)).length;
}

/** The first line of a request in a capture. */
export function readable(captured: Captured, word: string): string {
  const packet = captured.packets.find(({ payload }) => payload.includes(word));
  return packet?.payload.toString('latin1').split('\r\n', 1)[0] ?? '';
}

/** The first bytes of a record of what is encrypted. */
export function unreadable(captured: Captured): string {
  const packet = captured.packets.find(({ payload }) => payload[0] === applicationData && payload.length > 64);
  return packet?.payload.subarray(0, 8).toString('hex').replaceAll(/../g, '$& ').trim() ?? '';
}

const applicationData = 23;
const recordTypes = new Set([20, 21, 22, applicationData]);
const headerBytes = 5;

/** Whether a capture holds TLS records and nothing else, from the first byte of each connection. */
export function isTlsOnly(captured: Captured): boolean {
  const streams = captured.streams();
  return streams.length > 0 && streams.every(isTls);
}

function isTls(bytes: Buffer): boolean {
  for (let at = 0; at + headerBytes <= bytes.length; at += headerBytes + bytes.readUInt16BE(at + 3))
    if (!recordTypes.has(bytes[at] ?? 0) || bytes[at + 1] !== 3) return false;
  return true;
}
