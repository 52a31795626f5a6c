import { endpointFields } from '../gen/layout.ts';
import { type Address, decodeAddress, type Endpoint } from '../mesh/index.ts';

/** So many texts of addresses are kept: more than a node's flows lead to as a rule. */
const mostAddresses = 8192;
const mappedWord = 0xffff;

/** Reads endpoints out of many records. Their addresses recur, so the texts of those met last are kept. */
export class EndpointReader {
  readonly #v4 = new Map<number, Address>();
  readonly #v6 = new Map<string, Address>();

  /** @param at offset of a `struct endpoint` of layout.h */
  read(view: DataView, at: number): Endpoint {
    return { address: this.#address(view, at), port: view.getUint16(at + endpointFields.port.offset, true) };
  }

  #address(view: DataView, at: number): Address {
    const words = [
      view.getUint32(at),
      view.getUint32(at + 4),
      view.getUint32(at + 8),
      view.getUint32(at + 12),
    ] as const;
    if (words[0] === 0 && words[1] === 0 && words[2] === mappedWord) return this.#kept(this.#v4, words[3], view, at);
    return this.#kept(this.#v6, words.join(), view, at);
  }

  #kept<Key>(texts: Map<Key, Address>, key: Key, view: DataView, at: number): Address {
    const known = texts.get(key);
    if (known !== undefined) return known;
    if (texts.size >= mostAddresses) texts.clear();
    const text = decodeAddress(new Uint8Array(view.buffer, view.byteOffset + at, 16));
    texts.set(key, text);
    return text;
  }
}
