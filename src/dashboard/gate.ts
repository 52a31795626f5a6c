import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

export interface GateOptions {
  /** Whoever has it is let in. Undefined: everybody is, so only for a listener that others do not reach. */
  readonly token: string | undefined;
  /** Wrong tokens from one address within a minute, after which it is asked to wait. Default: 10. */
  readonly maxWrong?: number;
  /** Milliseconds of some clock. Default: the process's. */
  readonly now?: () => number;
}

/** What a request may do: go on, or be answered with a status and a sentence; `welcome`: it brought the token in its address. */
export type Admission =
  | { readonly kind: 'admitted' }
  | { readonly kind: 'welcome'; readonly cookie: string }
  | { readonly kind: 'refused'; readonly status: 401 | 403 | 429; readonly text: string };

const ADMITTED: Admission = { kind: 'admitted' };
const WINDOW_MS = 60_000;
/** Addresses that are remembered for wrong tokens; beyond it all others share one account. */
const MOST_ADDRESSES = 1_000;
const OTHERS = 'others';

/**
 * Who may see the dashboard. A page of another site must not ask in the name of who looks at it: hence the look at Host (a
 * name that an attacker lets point here), Origin and Sec-Fetch-Site.
 */
export class Gate {
  readonly #token: Buffer | undefined;
  readonly #cookieName: string;
  readonly #cookie: string;
  readonly #cookieDigest: Buffer | undefined;
  readonly #maxWrong: number;
  readonly #now: () => number;
  readonly #wrong = new Map<string, { count: number; until: number }>();

  constructor(options: GateOptions) {
    const { token } = options;
    this.#token = token === undefined ? undefined : digest(token);
    // The cookie is not the token, and two agents behind one address do not take each other's away.
    this.#cookie = token === undefined ? '' : digest(`cookie of ${token}`).toString('base64url');
    this.#cookieName = token === undefined ? '' : `culvert-${digest(`name of ${token}`).toString('hex').slice(0, 8)}`;
    this.#cookieDigest = token === undefined ? undefined : digest(this.#cookie);
    this.#maxWrong = options.maxWrong ?? 10;
    this.#now = options.now ?? (() => performance.now());
  }

  /** @param query of the request's address */
  admit(request: IncomingMessage, query: URLSearchParams): Admission {
    const foreign = this.#foreign(request);
    if (foreign !== undefined) return { kind: 'refused', status: 403, text: foreign };
    if (this.#token === undefined) return ADMITTED;
    const address = accountOf(request.socket.remoteAddress);
    const given = query.get('token') ?? bearerOf(request);
    if (given === undefined) {
      const cookie = cookieOf(request, this.#cookieName);
      if (cookie === undefined) return NO_TOKEN;
      return this.#compare(address, cookie, this.#cookieDigest) ?? ADMITTED;
    }
    const refusal = this.#compare(address, given, this.#token);
    if (refusal !== undefined) return refusal;
    return query.has('token')
      ? { kind: 'welcome', cookie: `${this.#cookieName}=${this.#cookie}; Path=/; HttpOnly; SameSite=Strict` }
      : ADMITTED;
  }

  /** Why it comes from another site; undefined: it does not. */
  #foreign(request: IncomingMessage): string | undefined {
    const { host, origin } = request.headers;
    if (host === undefined || !/^[\w.:[\]-]{1,255}$/.test(host)) return 'the request names no host';
    if (this.#token === undefined && !isOwnName(host))
      return 'this listener is only asked as localhost, 127.0.0.1 or [::1]; use such an address';
    if (origin !== undefined && originHost(origin) !== host) return 'the request comes from another site';
    const site = request.headers['sec-fetch-site'];
    const isNavigation = request.headers['sec-fetch-mode'] === 'navigate';
    if ((site === 'cross-site' || site === 'same-site') && !isNavigation) return 'the request comes from another site';
    return undefined;
  }

  #compare(address: string, given: string, wanted: Buffer | undefined): Admission | undefined {
    const account = this.#account(address);
    if (account !== undefined && account.count >= this.#maxWrong) return TOO_MANY;
    if (wanted !== undefined && timingSafeEqual(digest(given), wanted)) return undefined;
    if (account === undefined) this.#open(address);
    else account.count += 1;
    return WRONG_TOKEN;
  }

  /** Of an address that has given a wrong token within the last minute. */
  #account(address: string): { count: number } | undefined {
    const known = this.#wrong.get(address) ?? (this.#wrong.size < MOST_ADDRESSES ? undefined : this.#wrong.get(OTHERS));
    return known !== undefined && known.until > this.#now() ? known : undefined;
  }

  #open(address: string): void {
    const now = this.#now();
    if (this.#wrong.size >= MOST_ADDRESSES)
      for (const [each, { until }] of this.#wrong) if (until <= now) this.#wrong.delete(each);
    const key = this.#wrong.size < MOST_ADDRESSES || this.#wrong.has(address) ? address : OTHERS;
    this.#wrong.set(key, { count: 1, until: now + WINDOW_MS });
  }
}

const NO_TOKEN: Admission = {
  kind: 'refused',
  status: 401,
  text: 'this dashboard needs a token: `culvert dashboard` on the node prints the address to open',
};
const WRONG_TOKEN: Admission = {
  kind: 'refused',
  status: 401,
  text: 'this token is not the one of this agent: `culvert dashboard` on the node prints the address to open',
};
const TOO_MANY: Admission = { kind: 'refused', status: 429, text: 'too many wrong tokens; wait a minute' };

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function bearerOf(request: IncomingMessage): string | undefined {
  return /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1];
}

function cookieOf(request: IncomingMessage, name: string): string | undefined {
  for (const part of (request.headers.cookie ?? '').split(';')) {
    const [key, value] = part.trim().split('=');
    if (key === name) return value;
  }
  return undefined;
}

function isOwnName(host: string): boolean {
  return /^(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?$/i.test(host);
}

function originHost(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined;
  }
}

/** An IPv6 host has a whole /64 to ask from. */
function accountOf(address: string | undefined): string {
  if (address === undefined) return OTHERS;
  if (address.includes('.')) return address;
  const [head = [], tail = []] = address.split('::').map((part) => part.split(':'));
  const zeros = address.includes('::') ? Math.max(0, 8 - head.length - tail.length) : 0;
  return [...head, ...Array<string>(zeros).fill('0'), ...tail].slice(0, 4).join(':');
}
