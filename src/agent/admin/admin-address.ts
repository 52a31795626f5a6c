import { type Address, parseAddress } from '../../mesh/index.ts';

/** Where the admin server listens. */
export interface AdminAddress {
  readonly address: Address;
  readonly port: number;
}

const PLACE = /^(?:(?:\[(?<v6>[^\]]+)\]|(?<v4>[^:[\]]+)):)?(?<port>\d{1,5})$/;
const LOOPBACK = /^(?:127\.|::1$)/;

/**
 * Reads `[ADDRESS:]PORT` (address default: 127.0.0.1; an IPv6 address stands in brackets) or `off`.
 *
 * @returns undefined: off
 * @throws RangeError it is not understood, or not a loopback address: whoever reaches the server may stop the agent
 */
export function parseAdminAddress(text: string): AdminAddress | undefined {
  if (text === 'off') return undefined;
  const { v4, v6, port = '' } = PLACE.exec(text)?.groups ?? {};
  const address = parseAddress(v6 ?? (v4 === 'localhost' ? '127.0.0.1' : v4) ?? '127.0.0.1');
  const number = Number(port);
  if (port === '' || address === undefined || number < 1 || number > 65_535)
    throw new RangeError('It must be [ADDRESS:]PORT, such as 127.0.0.1:15000 or [::1]:15000, or off.');
  if (!LOOPBACK.test(address)) throw new RangeError(`${address} is not a loopback address: anybody could reach it.`);
  return { address, port: number };
}
