import { type Address, type Endpoint, parseAddress } from '../mesh/index.ts';
import { DashboardError } from './errors.ts';

/**
 * Reads where the dashboard shall listen.
 *
 * @param text `ADDRESS:PORT`, IPv6 in brackets: `0.0.0.0:15080`, `[::1]:15080`
 * @throws DashboardError BAD_LISTEN_ADDRESS
 */
export function parseListenAddress(text: string): Endpoint {
  const parts = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const address = parseAddress(parts?.[1] ?? parts?.[2] ?? '');
  const port = Number(parts?.[3]);
  if (address !== undefined && port > 0 && port <= 65_535) return { address, port };
  throw new DashboardError(
    'BAD_LISTEN_ADDRESS',
    `${JSON.stringify(text.slice(0, 64))} is no address with a port, such as 127.0.0.1:15080 or [::]:15080`,
  );
}

/** Whether only processes of this host reach it. */
export function isLoopback(address: Address): boolean {
  return address === '::1' || address.startsWith('127.');
}
