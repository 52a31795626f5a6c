/**
 * Who may ask the admin server. It listens on loopback only, but a browser of the same machine asks in the name of any page:
 * so the name that it was asked by must be a loopback one (DNS rebinding), and the page must be its own.
 */
import type { IncomingHttpHeaders } from 'node:http';

export interface Refusal {
  readonly status: number;
  readonly text: string;
}

/** A host as a Host header or an origin has it, without its port. */
const HOST = /^(?<name>\[[0-9a-f:.]+\]|[^:[\]/@?#\s]+)(?::\d{1,5})?$/i;
const LOOPBACK = /^(?:localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])$/i;
/** What a browser says of requests that its own page, or the user, has made. */
const OWN_SITES: ReadonlySet<string> = new Set(['same-origin', 'none']);

/** Why a request is not answered; undefined: it may be. */
export function refusalOf(headers: IncomingHttpHeaders): Refusal | undefined {
  const { host = '', origin } = headers;
  if (!isLoopbackHost(host)) return { status: 403, text: 'ask by a loopback address or localhost\n' };
  const site = headers['sec-fetch-site'];
  if (site !== undefined && !(typeof site === 'string' && OWN_SITES.has(site))) return CROSS_SITE;
  if (origin !== undefined && origin.toLowerCase() !== `http://${host.toLowerCase()}`) return CROSS_SITE;
  return undefined;
}

const CROSS_SITE: Refusal = { status: 403, text: 'a page of another site may not ask\n' };

/** Whether a Host header names this machine's loopback, with or without a port. */
export function isLoopbackHost(host: string): boolean {
  const name = HOST.exec(host)?.groups?.name;
  return name !== undefined && LOOPBACK.test(name);
}
