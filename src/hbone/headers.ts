import { Buffer } from 'node:buffer';
import { randomFillSync } from 'node:crypto';
import { type Endpoint, formatEndpoint, parseAddress, type Workload } from '../mesh/index.ts';
import type { HeaderFields } from './session.ts';

/** What a peer says of the workload that it speaks for (wire contract, section 2.2). Only told, never proven. */
export interface Baggage {
  readonly clusterId?: string;
  readonly namespace?: string;
  readonly workloadType?: Workload['workloadType'];
  readonly workloadName?: string;
  readonly canonicalName?: string;
  readonly canonicalRevision?: string;
  readonly region?: string;
  readonly zone?: string;
}

/** What `:authority` names: where the tunnel is to lead (wire contract, section 2.1). */
export type Authority =
  | { readonly kind: 'address'; readonly endpoint: Endpoint }
  | { readonly kind: 'hostname'; readonly hostname: string; readonly port: number };

/** What `forwarded` says of the client and the service. */
export interface Forwarded {
  readonly for?: Endpoint;
  readonly host?: string;
}

/** Keys of baggage, and what they tell. */
const BAGGAGE_FIELDS: ReadonlyMap<string, Exclude<keyof Baggage, 'workloadType'>> = new Map([
  ['k8s.cluster.name', 'clusterId'],
  ['k8s.namespace.name', 'namespace'],
  ['service.name', 'canonicalName'],
  ['service.version', 'canonicalRevision'],
  ['cloud.region', 'region'],
  ['cloud.availability_zone', 'zone'],
]);
/** Keys that tell the workload's name, and with it its type. */
const BAGGAGE_WORKLOADS: ReadonlyMap<string, Workload['workloadType']> = new Map([
  ['k8s.deployment.name', 'deployment'],
  ['k8s.cronjob.name', 'cronjob'],
  ['k8s.pod.name', 'pod'],
  ['k8s.job.name', 'job'],
]);
/** Characters of a baggage value: visible ones but for the comma. There is no encoding, so no others can be sent. */
const BAGGAGE_VALUE = /^[\x21-\x2b\x2d-\x7e]+$/;
/** Longest value of a baggage item that is taken, and most characters of baggage that are looked at: nothing real is longer. */
const MAX_BAGGAGE_VALUE = 256;
const MAX_BAGGAGE = 8192;

const MAX_HOSTNAME = 253;
/** Labels of letters, digits, hyphens and underscores; the last one is not a number, so a false IPv4 address is none. */
const HOSTNAME = /^(?:[a-z0-9_-]{1,63}\.)*(?!\d+$)[a-z0-9_-]{1,63}$/;
const PORT = /^[1-9]\d{0,4}$/;
const MAX_PORT = 65_535;
/** The longest hostname, a colon, five digits. Also longer than any address. */
const MAX_AUTHORITY = MAX_HOSTNAME + 6;

const MAX_FORWARDED = 1024;
/** One `name=value` of RFC 7239 and what follows it; the value is a token or quoted. */
const FORWARDED_PAIR = /[ \t]*([a-z]{1,16})=(?:"((?:[^"\\]|\\.)*)"|([^",;\s]*))[ \t]*([;,]|$)/iy;

const TRACE_BYTES = 24;
const TRACE_ID_BYTES = 16;
/** Random bytes are fetched for many connections at once. */
const randomness = Buffer.alloc(TRACE_BYTES * 128);
let randomnessUsed = randomness.length;

const baggages = new WeakMap<Workload, string>();

/** The `baggage` of a workload; empty where nothing is known of it. */
export function baggageOf(workload: Workload): string {
  const known = baggages.get(workload);
  if (known !== undefined) return known;
  const items: Array<[key: string, value: string]> = [
    ['k8s.cluster.name', workload.clusterId],
    ['k8s.namespace.name', workload.namespace],
    [`k8s.${workload.workloadType}.name`, workload.workloadName],
    ['service.name', workload.canonicalName],
    ['service.version', workload.canonicalRevision],
    ['cloud.region', workload.locality.region],
    ['cloud.availability_zone', workload.locality.zone],
  ];
  const text = items
    .filter(([, value]) => BAGGAGE_VALUE.test(value))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
  baggages.set(workload, text);
  return text;
}

/**
 * Reads baggage; what is not known is passed over.
 *
 * @param values every `baggage` field of the request
 */
export function parseBaggage(values: readonly string[]): Baggage {
  const baggage: { -readonly [K in keyof Baggage]: Baggage[K] } = {};
  let left = MAX_BAGGAGE;
  for (const value of values) {
    for (const item of value.slice(0, left).split(',')) {
      const [key, text] = item.split('=', 2);
      if (key === undefined || text === undefined || text === '' || text.length > MAX_BAGGAGE_VALUE) continue;
      keepItem(baggage, key, text);
    }
    left -= value.length;
    if (left <= 0) break;
  }
  return baggage;
}

function keepItem(baggage: { -readonly [K in keyof Baggage]: Baggage[K] }, key: string, value: string): void {
  const workloadType = BAGGAGE_WORKLOADS.get(key);
  if (workloadType !== undefined) baggage.workloadType = workloadType;
  const field = workloadType === undefined ? BAGGAGE_FIELDS.get(key) : 'workloadName';
  if (field !== undefined) baggage[field] = value;
}

/** `for="10.0.0.1:1234"`, and `;host=` if a service was addressed. */
export function forwardedOf(client: Endpoint, serviceHostname?: string): string {
  const host = serviceHostname !== undefined && BAGGAGE_VALUE.test(serviceHostname) ? `;host=${serviceHostname}` : '';
  return `for="${formatEndpoint(client)}"${host}`;
}

/** Reads the first element of `forwarded` up to where it stops making sense; of a name that is there twice the first counts. */
export function parseForwarded(value: string): Forwarded {
  const forwarded: { -readonly [K in keyof Forwarded]: Forwarded[K] } = {};
  if (value.length > MAX_FORWARDED) return forwarded;
  FORWARDED_PAIR.lastIndex = 0;
  for (let pair = FORWARDED_PAIR.exec(value); pair !== null; pair = FORWARDED_PAIR.exec(value)) {
    const [, name, quoted, token, separator] = pair;
    keepPair(forwarded, name?.toLowerCase(), quoted?.replace(/\\(.)/g, '$1') ?? token ?? '');
    if (separator !== ';') break;
  }
  return forwarded;
}

function keepPair(
  forwarded: { -readonly [K in keyof Forwarded]: Forwarded[K] },
  name: string | undefined,
  text: string,
): void {
  if (name === 'for' && forwarded.for === undefined) {
    const authority = parseAuthority(text);
    if (authority?.kind === 'address') forwarded.for = authority.endpoint;
  } else if (name === 'host' && forwarded.host === undefined) {
    const host = text.toLowerCase();
    if (host.length <= MAX_HOSTNAME && HOSTNAME.test(host)) forwarded.host = host;
  }
}

/** A fresh `traceparent`: random, never copied from anything. */
export function newTraceparent(): string {
  if (randomnessUsed === randomness.length) {
    randomFillSync(randomness);
    randomnessUsed = 0;
  }
  const start = randomnessUsed;
  randomnessUsed += TRACE_BYTES;
  const middle = start + TRACE_ID_BYTES;
  return `00-${randomness.toString('hex', start, middle)}-${randomness.toString('hex', middle, randomnessUsed)}-00`;
}

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}/;

/** The trace id of a `traceparent`: 32 lower-case hexadecimal digits. Undefined: it is none. */
export function traceIdOf(traceparent: string): string | undefined {
  return TRACEPARENT.exec(traceparent)?.[1];
}

/** The header fields of a CONNECT. */
export function connectHeaders(from: {
  /** Whose connection it is. */
  readonly source: Workload;
  /** Address and port of the app's socket. */
  readonly client: Endpoint;
  /** Undefined: no service was addressed. */
  readonly serviceHostname?: string | undefined;
  /** Default: a fresh one. */
  readonly traceparent?: string;
}): HeaderFields {
  return [
    ['baggage', baggageOf(from.source)],
    ['forwarded', forwardedOf(from.client, from.serviceHostname)],
    ['traceparent', from.traceparent ?? newTraceparent()],
  ];
}

/** Every value of a header field, in order. */
export function headerValues(headers: HeaderFields, name: string): string[] {
  const values: string[] = [];
  for (const [each, value] of headers) if (each === name) values.push(value);
  return values;
}

/**
 * Reads `:authority`: IPv4, IPv6 in brackets, or a hostname, and a port, which may not be missing.
 *
 * @returns undefined if it is anything else; a hostname is returned in lower case
 */
export function parseAuthority(text: string): Authority | undefined {
  if (text.length > MAX_AUTHORITY) return undefined;
  const colon = text.lastIndexOf(':');
  const port = parsePort(text.slice(colon + 1));
  if (colon < 1 || port === undefined) return undefined;
  const host = text.slice(0, colon);
  if (host.startsWith('[')) {
    const inside = host.endsWith(']') ? host.slice(1, -1) : '';
    const address = inside.includes(':') ? parseAddress(inside) : undefined;
    return address && { kind: 'address', endpoint: { address, port } };
  }
  if (host.includes(':')) return undefined;
  const address = parseAddress(host);
  if (address !== undefined) return { kind: 'address', endpoint: { address, port } };
  const hostname = host.toLowerCase();
  return hostname.length <= MAX_HOSTNAME && HOSTNAME.test(hostname) ? { kind: 'hostname', hostname, port } : undefined;
}

function parsePort(text: string): number | undefined {
  const port = PORT.test(text) ? Number(text) : 0;
  return port >= 1 && port <= MAX_PORT ? port : undefined;
}
