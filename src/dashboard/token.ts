import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { messageOf } from '../mesh/index.ts';
import { DashboardError } from './errors.ts';

const LEAST_LENGTH = 16;

/**
 * Reads the token that an operator has put into a file (a mounted secret).
 *
 * @throws DashboardError TOKEN_UNUSABLE
 */
export function readToken(path: string): string {
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new DashboardError('TOKEN_UNUSABLE', `cannot read the dashboard's token from ${path}: ${messageOf(cause)}`, {
      cause,
    });
  }
  if (token.length >= LEAST_LENGTH && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new DashboardError(
    'TOKEN_UNUSABLE',
    `the token in ${path} must be one line of at least ${LEAST_LENGTH} printable ASCII characters without a space`,
  );
}

/**
 * Makes a new token and writes it down for `culvert dashboard`, readable for this user only.
 *
 * @throws DashboardError TOKEN_UNUSABLE
 */
export function makeToken(path: string): string {
  const token = randomBytes(32).toString('base64url');
  try {
    // A new file: one that is there may be open to others, or a link.
    rmSync(path, { force: true });
    writeFileSync(path, `${token}\n`, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    throw new DashboardError('TOKEN_UNUSABLE', `cannot write the dashboard's token to ${path}: ${messageOf(cause)}`, {
      cause,
    });
  }
  return token;
}
