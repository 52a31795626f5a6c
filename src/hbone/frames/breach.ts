import { COMPRESSION_ERROR, ENHANCE_YOUR_CALM, errorName } from './wire.ts';

/**
 * The peer broke a rule of the connection: it ends with a GOAWAY of this code. Thrown where it is found, caught by the
 * session; it never leaves this folder.
 */
export class Breach extends Error {
  /** Error code of HTTP/2. */
  readonly h2Code: number;

  constructor(h2Code: number, message: string) {
    super(message);
    this.name = 'Breach';
    this.h2Code = h2Code;
  }

  override toString(): string {
    return `${errorName(this.h2Code)}: ${this.message}`;
  }
}

/** It asks for more than we do for one peer. */
export function excess(message: string): Breach {
  return new Breach(ENHANCE_YOUR_CALM, message);
}

export function badCompression(message: string): Breach {
  return new Breach(COMPRESSION_ERROR, message);
}
