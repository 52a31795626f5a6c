/** Integers as maps, globals and socket options hold them: this machine's byte order, which is little-endian. */

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}

export function u64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function readU32(bytes: Uint8Array, at = 0): number {
  return viewOf(bytes).getUint32(at, true);
}

export function readU64(bytes: Uint8Array, at = 0): bigint {
  return viewOf(bytes).getBigUint64(at, true);
}
