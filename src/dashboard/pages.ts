import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { extname, join } from 'node:path';

/** What the browser may do with the pages: nothing from elsewhere, nothing inline, in nobody's frame. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
};

interface Page {
  readonly file: string;
  readonly type: string;
  readonly etag: string;
}

/**
 * The pages, as the build has put them into a folder. Only what is there at the start is ever served, so no path of a
 * request reaches the file system.
 */
export class Pages {
  readonly #pages = new Map<string, Page>();

  /** @param folder where `./dev setup` has put them; one that is not there has no pages */
  constructor(folder: string) {
    for (const path of filesIn(folder)) {
      const type = TYPES[extname(path)];
      if (type === undefined) continue;
      const file = join(folder, path);
      const etag = `"${createHash('sha256').update(readFileSync(file)).digest('base64url').slice(0, 22)}"`;
      this.#pages.set(path === 'index.html' ? '/' : `/${path}`, { file, type, etag });
    }
  }

  get count(): number {
    return this.#pages.size;
  }

  /** Whether it is one, and so will be answered. */
  handle(path: string, request: IncomingMessage, response: ServerResponse): boolean {
    const page = this.#pages.get(path);
    if (page === undefined) return false;
    const headers = { ...PAGE_HEADERS, 'content-type': page.type, etag: page.etag, 'cache-control': 'no-cache' };
    if (request.headers['if-none-match'] === page.etag) response.writeHead(304, headers).end();
    else void send(page, headers, request, response);
    return true;
  }
}

async function send(
  page: Page,
  headers: Readonly<Record<string, string>>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    const body = await readFile(page.file);
    response.writeHead(200, { ...headers, 'content-length': body.byteLength });
    response.end(request.method === 'HEAD' ? undefined : body);
  } catch {
    response.writeHead(500, PAGE_HEADERS).end();
  }
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.replace(/\/$/, '').length + 1));
  } catch {
    return [];
  }
}
