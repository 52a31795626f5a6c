import type { Address, Endpoint } from '../mesh/index.ts';

/**
 * An address as Node's sockets write it: canonical already (inet_ntop), but v4-mapped on AF_INET6 sockets and with a zone
 * when it is link-local.
 */
export function addressOf(text: string | undefined): Address | undefined {
  if (text === undefined || text === '') return undefined;
  if (text.startsWith('::ffff:') && text.includes('.')) return text.slice('::ffff:'.length) as Address;
  const zone = text.indexOf('%');
  return (zone === -1 ? text : text.slice(0, zone)) as Address;
}

export function endpointOf(address: string | undefined, port: number | undefined): Endpoint | undefined {
  const known = addressOf(address);
  return known === undefined || port === undefined ? undefined : { address: known, port };
}
