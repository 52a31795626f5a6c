/** What of DER (X.690) it takes to write a certificate signing request. Nothing is read here. */

/** A sequence, and with it everything that is made of parts. */
export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(0x30, ...parts);
}

export function set(...parts: readonly Uint8Array[]): Buffer {
  return element(0x31, ...parts);
}

/** Below 128. */
export function smallInteger(value: number): Buffer {
  return element(0x02, Uint8Array.of(value));
}

export function trueValue(): Buffer {
  return element(0x01, Uint8Array.of(0xff));
}

export function octetString(content: Uint8Array): Buffer {
  return element(0x04, content);
}

/** Whole octets. */
export function bitString(content: Uint8Array): Buffer {
  return element(0x03, Uint8Array.of(0), content);
}

/** With at least two parts, e.g. `2.5.29.17`. */
export function objectIdentifier(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split('.').map(Number);
  return element(0x06, Uint8Array.from([40 * first + second, ...rest.flatMap(inBase128)]));
}

/** `[tag]` in place of the type's own tag. */
export function contextSpecific(tag: number, content: Uint8Array, isConstructed: boolean): Buffer {
  return element((isConstructed ? 0xa0 : 0x80) | tag, content);
}

function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  return Buffer.concat([Uint8Array.from([tag, ...lengthOctets(length)]), ...parts]);
}

function lengthOctets(length: number): number[] {
  if (length < 0x80) return [length];
  const octets: number[] = [];
  for (let rest = length; rest > 0; rest = Math.floor(rest / 0x100)) octets.unshift(rest % 0x100);
  return [0x80 | octets.length, ...octets];
}

/** All groups of seven bits but the last one have the eighth bit. */
function inBase128(value: number): number[] {
  const groups = [value % 0x80];
  for (let rest = Math.floor(value / 0x80); rest > 0; rest = Math.floor(rest / 0x80))
    groups.unshift(0x80 | (rest % 0x80));
  return groups;
}
