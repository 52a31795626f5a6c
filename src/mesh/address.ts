import ipaddr from 'ipaddr.js';

/** An IP address in its canonical text form; IPv4-mapped IPv6 is always written as IPv4. */
export type Address = string & { readonly brand: 'address' };

/** An address and a TCP port (1..65535; 0 only where "not chosen yet" is said). */
export interface Endpoint {
  readonly address: Address;
  readonly port: number;
}

/** A CIDR block in canonical text form, e.g. `10.0.0.0/8`. */
export type Cidr = string & { readonly brand: 'cidr' };

const MAPPED_PREFIX = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
const ADDRESS_BYTES = 16;
const DOT = 0x2e;
const ZERO = 0x30;
const MAPPED_PREFIX_BITS = 8 * MAPPED_PREFIX.length;

/**
 * Parses an IP address.
 *
 * @param text IPv4 dotted quad or IPv6, without brackets or zone
 * @returns the canonical form, or undefined if it is not an address
 */
export function parseAddress(text: string): Address | undefined {
  if (isCanonical4(text)) return text as Address;
  if (text.includes('%') || !ipaddr.isValid(text) || (!text.includes(':') && !ipaddr.IPv4.isValidFourPartDecimal(text)))
    return undefined;
  return ipaddr.process(text).toString() as Address;
}

/** Dotted quad, as it is always written here: what every connection brings several times, so it is read without a library. */
const CANONICAL_4 = /^(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)){3}$/;

function isCanonical4(text: string): boolean {
  return text.length <= 15 && CANONICAL_4.test(text);
}

/** What ipaddr.js calls addresses that never lead to a host's own place in a network. IPv4 link-local ones are pods' on some clouds. */
const NO_HOST = {
  4: new Set(['unspecified', 'loopback', 'multicast', 'broadcast']),
  6: new Set(['unspecified', 'loopback', 'multicast', 'linkLocal']),
};

/** Whether others can reach a host at it: not unspecified, loopback, multicast, broadcast, or link-local of IPv6. */
export function isHostAddress(address: Address): boolean {
  return !NO_HOST[familyOf(address)].has(ipaddr.parse(address).range());
}

/** 4 or 6. */
export function familyOf(address: Address): 4 | 6 {
  return address.includes(':') ? 6 : 4;
}

/** The 16 bytes of layout.h's `struct address`: network order, IPv4 in v4-mapped form. */
export function encodeAddress(address: Address): Uint8Array {
  if (isCanonical4(address)) return encode4(address);
  const bytes = ipaddr.parse(address).toByteArray();
  return Uint8Array.from(bytes.length === 4 ? [...MAPPED_PREFIX, ...bytes] : bytes);
}

function encode4(address: Address): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  bytes[10] = 0xff;
  bytes[11] = 0xff;
  let at = MAPPED_PREFIX.length;
  let value = 0;
  for (let index = 0; index < address.length; index += 1) {
    const code = address.charCodeAt(index);
    if (code === DOT) {
      bytes[at] = value;
      at += 1;
      value = 0;
    } else value = value * 10 + code - ZERO;
  }
  bytes[at] = value;
  return bytes;
}

/** The address in layout.h's 16 bytes. */
export function decodeAddress(bytes: Uint8Array): Address {
  if (isMapped(bytes)) return `${bytes[12]}.${bytes[13]}.${bytes[14]}.${bytes[15]}` as Address;
  return ipaddr.fromByteArray([...bytes]).toString() as Address;
}

function isMapped(bytes: Uint8Array): boolean {
  if (bytes.length !== ADDRESS_BYTES) return false;
  for (let at = 0; at < MAPPED_PREFIX.length; at += 1) if (bytes[at] !== MAPPED_PREFIX[at]) return false;
  return true;
}

/**
 * Parses a CIDR block; host bits must be zero (a block written with host bits is almost always a mistake).
 *
 * @returns the canonical form, or undefined if it is not a block; a block of IPv4-mapped addresses is written as IPv4
 */
export function parseCidr(text: string): Cidr | undefined {
  if (!ipaddr.isValidCIDR(text) || parseAddress(text.slice(0, text.indexOf('/'))) === undefined) return undefined;
  const [address, bits] = ipaddr.parseCIDR(text);
  const network =
    address.kind() === 'ipv4' ? ipaddr.IPv4.networkAddressFromCIDR(text) : ipaddr.IPv6.networkAddressFromCIDR(text);
  if (network.toString() !== address.toString()) return undefined;
  if (address instanceof ipaddr.IPv6 && address.isIPv4MappedAddress() && bits >= MAPPED_PREFIX_BITS)
    return `${address.toIPv4Address()}/${bits - MAPPED_PREFIX_BITS}` as Cidr;
  return `${address.toString()}/${bits}` as Cidr;
}

/** A block as 16 address bytes and the number of leading bits that count (IPv4 in v4-mapped form, so 96 more). */
export function encodeCidr(cidr: Cidr): { address: Uint8Array; bits: number; family: 4 | 6 } {
  const [address, bits] = ipaddr.parseCIDR(cidr);
  const v4 = address.kind() === 'ipv4';
  return {
    address: encodeAddress(address.toString() as Address),
    bits: v4 ? bits + MAPPED_PREFIX_BITS : bits,
    family: v4 ? 4 : 6,
  };
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function formatEndpoint(endpoint: Endpoint): string {
  return familyOf(endpoint.address) === 6
    ? `[${endpoint.address}]:${endpoint.port}`
    : `${endpoint.address}:${endpoint.port}`;
}
