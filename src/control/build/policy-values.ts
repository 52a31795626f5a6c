/** The values that a policy's fields may have (wire contract, section 5.5). */
import {
  type Address,
  type Cidr,
  decodeAddress,
  encodeAddress,
  familyOf,
  parseAddress,
  type ServiceAccountMatch,
  type StringMatch,
} from '../../mesh/index.ts';
import { isPort } from '../objects/index.ts';
import { isLabel, isSubdomain } from '../objects/names.ts';

/** What a value becomes; a text says what it must be. */
export type Read<Value> = { readonly value: Value } | { readonly wrong: string };

/** What an identity or a namespace is at most. */
const MAX_CHARACTERS = 2048;
const STRING_FORM = 'must be a text, with one * at most, at its beginning or at its end';
const PRINCIPAL_FORM = 'must be written without spiffe://';
const ACCOUNT_FORM = 'must be a service account, or namespace/account, without *';
const BLOCK_FORM = 'is neither an IP address nor a CIDR block';
const PORT_FORM = 'must be a port number, 1 to 65535';
const BLOCK = /^([^/]+)(?:\/(0|[1-9]\d{0,2}))?$/;

/** `*` is presence, `*x` a suffix, `x*` a prefix, anything else exact. */
export function readString(text: string): Read<StringMatch> {
  if (text === '*') return { value: { kind: 'presence' } };
  const [kind, value] = splitStar(text);
  if (value === '' || value.includes('*') || value.length > MAX_CHARACTERS) return { wrong: STRING_FORM };
  return { value: { kind, value } };
}

function splitStar(text: string): readonly ['exact' | 'prefix' | 'suffix', string] {
  if (text.startsWith('*')) return ['suffix', text.slice(1)];
  return text.endsWith('*') ? ['prefix', text.slice(0, -1)] : ['exact', text];
}

/** Taken literally, one with `spiffe://` would match nobody (wire contract, section 5.3). */
export function readPrincipal(text: string): Read<StringMatch> {
  return text.startsWith('spiffe://') ? { wrong: PRINCIPAL_FORM } : readString(text);
}

/** @param namespace of a service account that names none */
export function readAccount(text: string, namespace: string): Read<ServiceAccountMatch> {
  const parts = text.split('/');
  const [of = '', serviceAccount = ''] = parts.length === 1 ? [namespace, text] : parts;
  if (parts.length > 2 || !isLabel(of) || !isSubdomain(serviceAccount)) return { wrong: ACCOUNT_FORM };
  return { value: { namespace: of, serviceAccount } };
}

/** A single address is a block of all its bits; what is set behind the bits that count is let go. */
export function readBlock(text: string): Read<Cidr> {
  const [, host = '', bits] = BLOCK.exec(text) ?? [];
  const address = parseAddress(host);
  if (address === undefined) return { wrong: BLOCK_FORM };
  const length = familyOf(address) === 4 ? 32 : 128;
  // A mapped address is written as IPv4, so its block is one of IPv4 too.
  const count = bits === undefined ? length : Number(bits) - (length === 32 && host.includes(':') ? 96 : 0);
  if (count < 0 || count > length) return { wrong: BLOCK_FORM };
  return { value: `${networkOf(address, count)}/${count}` as Cidr };
}

function networkOf(address: Address, bits: number): Address {
  const bytes = encodeAddress(address);
  const from = bits + (familyOf(address) === 4 ? 96 : 0);
  for (let at = 0; at < bytes.length; at += 1) {
    const kept = Math.min(8, Math.max(0, from - at * 8));
    bytes[at] = (bytes[at] ?? 0) & (0xff00 >> kept);
  }
  return decodeAddress(bytes);
}

export function readPort(text: string): Read<number> {
  return isPort(text) ? { value: Number(text) } : { wrong: PORT_FORM };
}
