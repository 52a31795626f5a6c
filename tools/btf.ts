/**
 * BPF Type Format, as far as struct layouts need it: finds the `.BTF` section of an ELF object and reads its types.
 * Formats: ELF-64 little-endian; BTF as in the kernel's Documentation/bpf/btf.rst.
 * Little-endian only, like the hosts culvert runs on (amd64, arm64): the object's byte order is the host's.
 */

export type BtfType =
  | { kind: 'int'; name: string; bytes: number; signed: boolean; char: boolean }
  | { kind: 'struct' | 'union'; name: string; bytes: number; members: BtfMember[] }
  | { kind: 'enum'; name: string; bytes: number; values: Array<{ name: string; value: bigint }> }
  | { kind: 'array'; name: ''; type: number; count: number }
  | { kind: 'alias'; name: string; type: number }
  | { kind: 'other'; name: string };

export interface BtfMember {
  name: string;
  type: number;
  /** From the start of the struct. */
  bitOffset: number;
  /** Width of a bit field; 0: not a bit field. */
  bitWidth: number;
}

const ELF_MAGIC = 0x464c457f;
const BTF_MAGIC = 0xeb9f;
const BTF_TYPE_BYTES = 12;

const KIND = {
  INT: 1,
  PTR: 2,
  ARRAY: 3,
  STRUCT: 4,
  UNION: 5,
  ENUM: 6,
  FWD: 7,
  TYPEDEF: 8,
  VOLATILE: 9,
  CONST: 10,
  RESTRICT: 11,
  FUNC: 12,
  FUNC_PROTO: 13,
  VAR: 14,
  DATASEC: 15,
  FLOAT: 16,
  DECL_TAG: 17,
  TYPE_TAG: 18,
  ENUM64: 19,
} as const;

function textAt(bytes: Uint8Array, offset: number): string {
  const end = bytes.indexOf(0, offset);
  return new TextDecoder().decode(bytes.subarray(offset, end < 0 ? bytes.length : end));
}

/** The bytes of one section of an ELF-64 little-endian file. */
export function elfSection(elf: Uint8Array, wanted: string): Uint8Array {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  if (elf.length < 64 || view.getUint32(0, true) !== ELF_MAGIC) throw new Error('not an ELF file');
  if (view.getUint8(4) !== 2 || view.getUint8(5) !== 1) throw new Error('not a 64-bit little-endian ELF file');
  const headers = Number(view.getBigUint64(0x28, true));
  const headerBytes = view.getUint16(0x3a, true);
  const count = view.getUint16(0x3c, true);
  const namesIndex = view.getUint16(0x3e, true);
  const section = (index: number): { name: number; bytes: Uint8Array } => {
    const at = headers + index * headerBytes;
    const offset = Number(view.getBigUint64(at + 0x18, true));
    const size = Number(view.getBigUint64(at + 0x20, true));
    return { name: view.getUint32(at, true), bytes: elf.subarray(offset, offset + size) };
  };
  const names = section(namesIndex).bytes;
  for (let index = 0; index < count; index++) {
    const found = section(index);
    if (textAt(names, found.name) === wanted) return found.bytes;
  }
  throw new Error(`no section ${wanted}`);
}

/** All types of a `.BTF` section; the index is BTF's type id (0 is void). */
export function readBtf(section: Uint8Array): BtfType[] {
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
  if (section.length < 24 || view.getUint16(0, true) !== BTF_MAGIC) throw new Error('not BTF of this byte order');
  const headerBytes = view.getUint32(4, true);
  const typesAt = headerBytes + view.getUint32(8, true);
  const typesEnd = typesAt + view.getUint32(12, true);
  const stringsAt = headerBytes + view.getUint32(16, true);
  const strings = section.subarray(stringsAt, stringsAt + view.getUint32(20, true));

  const types: BtfType[] = [{ kind: 'other', name: 'void' }];
  let at = typesAt;
  while (at < typesEnd) {
    const name = textAt(strings, view.getUint32(at, true));
    const info = view.getUint32(at + 4, true);
    const count = info & 0xffff;
    const kind = (info >>> 24) & 0x1f;
    const flag = info >>> 31 === 1;
    const sizeOrType = view.getUint32(at + 8, true);
    const tail = at + BTF_TYPE_BYTES;
    switch (kind) {
      case KIND.INT: {
        const encoding = (view.getUint32(tail, true) >>> 24) & 0xf;
        const signed = (encoding & 1) !== 0;
        types.push({ kind: 'int', name, bytes: sizeOrType, signed, char: (encoding & 2) !== 0 });
        at = tail + 4;
        break;
      }
      case KIND.ARRAY:
        types.push({
          kind: 'array',
          name: '',
          type: view.getUint32(tail, true),
          count: view.getUint32(tail + 8, true),
        });
        at = tail + 12;
        break;
      case KIND.STRUCT:
      case KIND.UNION: {
        const members: BtfMember[] = [];
        for (let index = 0; index < count; index++) {
          const member = tail + index * 12;
          const offset = view.getUint32(member + 8, true);
          members.push({
            name: textAt(strings, view.getUint32(member, true)),
            type: view.getUint32(member + 4, true),
            bitOffset: flag ? offset & 0xffffff : offset,
            bitWidth: flag ? offset >>> 24 : 0,
          });
        }
        types.push({ kind: kind === KIND.STRUCT ? 'struct' : 'union', name, bytes: sizeOrType, members });
        at = tail + count * 12;
        break;
      }
      case KIND.ENUM: {
        // Signed, whatever the flag says: clang before 16 does not set it.
        const values: Array<{ name: string; value: bigint }> = [];
        for (let index = 0; index < count; index++) {
          const value = tail + index * 8;
          values.push({
            name: textAt(strings, view.getUint32(value, true)),
            value: BigInt(view.getInt32(value + 4, true)),
          });
        }
        types.push({ kind: 'enum', name, bytes: sizeOrType, values });
        at = tail + count * 8;
        break;
      }
      case KIND.ENUM64: {
        const values: Array<{ name: string; value: bigint }> = [];
        for (let index = 0; index < count; index++) {
          const value = tail + index * 12;
          const bits = BigInt(view.getUint32(value + 4, true)) | (BigInt(view.getUint32(value + 8, true)) << 32n);
          values.push({
            name: textAt(strings, view.getUint32(value, true)),
            value: flag ? BigInt.asIntN(64, bits) : bits,
          });
        }
        types.push({ kind: 'enum', name, bytes: sizeOrType, values });
        at = tail + count * 12;
        break;
      }
      case KIND.TYPEDEF:
      case KIND.VOLATILE:
      case KIND.CONST:
      case KIND.RESTRICT:
      case KIND.TYPE_TAG:
        types.push({ kind: 'alias', name, type: sizeOrType });
        at = tail;
        break;
      case KIND.PTR:
      case KIND.FWD:
      case KIND.FUNC:
      case KIND.FLOAT:
        types.push({ kind: 'other', name });
        at = tail;
        break;
      case KIND.VAR:
      case KIND.DECL_TAG:
        types.push({ kind: 'other', name });
        at = tail + 4;
        break;
      case KIND.FUNC_PROTO:
        types.push({ kind: 'other', name });
        at = tail + count * 8;
        break;
      case KIND.DATASEC:
        types.push({ kind: 'other', name });
        at = tail + count * 12;
        break;
      default:
        throw new Error(`BTF kind ${kind} is unknown`);
    }
  }
  return types;
}

/** The BTF types of an ELF object. */
export function readObjectTypes(elf: Uint8Array): BtfType[] {
  return readBtf(elfSection(elf, '.BTF'));
}
