export type { Address, Cidr, Endpoint } from './address.ts';
export {
  decodeAddress,
  encodeAddress,
  encodeCidr,
  familyOf,
  formatEndpoint,
  isHostAddress,
  parseAddress,
  parseCidr,
} from './address.ts';
export type { Exclusions, NetnsCookie, Pod } from './pod.ts';
