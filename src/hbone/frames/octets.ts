/** Big-endian integers in bytes that are known to be there: callers have checked the length. */

export function u8(bytes: Uint8Array, at: number): number {
  return bytes[at] as number;
}

export function u16(bytes: Uint8Array, at: number): number {
  return (u8(bytes, at) << 8) | u8(bytes, at + 1);
}

export function u24(bytes: Uint8Array, at: number): number {
  return (u8(bytes, at) << 16) | (u8(bytes, at + 1) << 8) | u8(bytes, at + 2);
}

export function u32(bytes: Uint8Array, at: number): number {
  return u8(bytes, at) * 0x1000000 + u24(bytes, at + 1);
}

/** Stream ids and window increments: the top bit is reserved and ignored. */
export function u31(bytes: Uint8Array, at: number): number {
  return ((u8(bytes, at) & 0x7f) << 24) | u24(bytes, at + 1);
}

export function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** The nine bytes before each payload (RFC 9113, section 4.1). */
export function putFrameHead(
  bytes: Uint8Array,
  at: number,
  length: number,
  type: number,
  flags: number,
  id: number,
): void {
  bytes[at] = length >>> 16;
  bytes[at + 1] = length >>> 8;
  bytes[at + 2] = length;
  bytes[at + 3] = type;
  bytes[at + 4] = flags;
  putU32(bytes, at + 5, id);
}
