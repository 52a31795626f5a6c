/**
 * Writes src/gen/layout.ts: the shapes of native/bpf/include/layout.h in TypeScript.
 *
 *   gen-layout.ts --header layout.h --out layout.ts object.bpf.o...
 *
 * The header says which structs, enums and whole-number #defines there are; sizes, offsets and values come from the
 * objects' BTF, as the compiler laid them out. A struct or enum that no object's BTF holds is an error (it needs an
 * anchor in native/bpf/layout.bpf.c), and so is one that two objects lay out differently.
 *
 * The generated code reads and writes little-endian: maps hold the host's byte order, and the hosts are amd64 and arm64.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { type BtfType, readObjectTypes } from './btf.ts';

export type Shape =
  | { shape: 'number'; bytes: 1 | 2 | 4; signed: boolean }
  | { shape: 'bigint'; signed: boolean }
  | { shape: 'bytes'; bytes: number }
  | { shape: 'struct'; struct: string; bytes: number }
  | { shape: 'array'; item: Shape; count: number };

export interface Field {
  name: string;
  offset: number;
  shape: Shape;
}

export interface Struct {
  name: string;
  bytes: number;
  fields: Field[];
}

export interface Enum {
  name: string;
  values: Array<{ name: string; value: bigint }>;
}

export interface Layout {
  structs: Struct[];
  enums: Enum[];
  defines: Array<{ name: string; value: string }>;
}

interface Names {
  structs: string[];
  enums: string[];
  defines: Array<{ name: string; value: string }>;
}

/** What a header declares, by name and in its order. */
export function headerNames(header: string): Names {
  const code = header.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');
  const all = (pattern: RegExp): string[] => [...code.matchAll(pattern)].map((match) => match[1] ?? '');
  return {
    structs: all(/^struct\s+(\w+)\s*\{/gm),
    enums: all(/^enum\s+(\w+)\s*\{/gm),
    defines: [...code.matchAll(/^#define\s+(\w+)\s+(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\s*$/gm)].map((match) => ({
      name: match[1] ?? '',
      value: match[2] ?? '',
    })),
  };
}

function typeAt(types: BtfType[], id: number): BtfType {
  const type = types[id];
  if (type === undefined) throw new Error(`BTF has no type ${id}`);
  return type.kind === 'alias' ? typeAt(types, type.type) : type;
}

function shapeOf(types: BtfType[], id: number, where: string): Shape {
  const type = typeAt(types, id);
  switch (type.kind) {
    case 'int':
    case 'enum': {
      const signed = type.kind === 'int' ? type.signed : type.values.some(({ value }) => value < 0n);
      if (type.bytes === 8) return { shape: 'bigint', signed };
      if (type.bytes === 1 || type.bytes === 2 || type.bytes === 4)
        return { shape: 'number', bytes: type.bytes, signed };
      throw new Error(`${where}: a number of ${type.bytes} bytes has no shape here`);
    }
    case 'struct':
      return { shape: 'struct', struct: type.name, bytes: type.bytes };
    case 'array': {
      const item = shapeOf(types, type.type, where);
      if (item.shape === 'number' && item.bytes === 1) return { shape: 'bytes', bytes: type.count };
      return { shape: 'array', item, count: type.count };
    }
    default:
      throw new Error(`${where}: ${type.kind} ${type.name} has no shape here`);
  }
}

function bytesOf(shape: Shape): number {
  switch (shape.shape) {
    case 'bigint':
      return 8;
    case 'array':
      return bytesOf(shape.item) * shape.count;
    default:
      return shape.bytes;
  }
}

function structOf(types: BtfType[], name: string): Struct | undefined {
  const type = types.find((candidate) => candidate.kind === 'struct' && candidate.name === name);
  if (type?.kind !== 'struct') return undefined;
  const fields: Field[] = [];
  let end = 0;
  for (const member of type.members) {
    const where = `struct ${name}, ${member.name}`;
    if (member.bitWidth !== 0 || member.bitOffset % 8 !== 0) throw new Error(`${where}: bit fields are not allowed`);
    const offset = member.bitOffset / 8;
    if (offset !== end) throw new Error(`${where}: ${offset - end} bytes of padding before it are not explicit`);
    const shape = shapeOf(types, member.type, where);
    end = offset + bytesOf(shape);
    fields.push({ name: member.name, offset, shape });
  }
  if (end !== type.bytes)
    throw new Error(`struct ${name}: ${type.bytes - end} bytes of padding at its end are not explicit`);
  return { name, bytes: type.bytes, fields };
}

function enumOf(types: BtfType[], name: string): Enum | undefined {
  const type = types.find((candidate) => candidate.kind === 'enum' && candidate.name === name);
  return type?.kind === 'enum' ? { name, values: type.values } : undefined;
}

function one<T>(kind: string, name: string, found: Array<T | undefined>): T {
  const present = found.filter((item) => item !== undefined);
  const first = present[0];
  if (first === undefined)
    throw new Error(`${kind} ${name} is in no object's BTF: it needs an anchor in native/bpf/layout.bpf.c`);
  const text = (item: T): string =>
    JSON.stringify(item, (_key, value: unknown) => (typeof value === 'bigint' ? `${value}` : value));
  if (present.some((item) => text(item) !== text(first)))
    throw new Error(`${kind} ${name} differs between the objects`);
  return first;
}

/** The shapes that `header` names, as the compiler laid them out in `objects`. */
export function readLayout(header: string, objects: Uint8Array[]): Layout {
  const names = headerNames(header);
  const typeTables = objects.map(readObjectTypes);
  return {
    structs: names.structs.map((name) =>
      one(
        'struct',
        name,
        typeTables.map((types) => structOf(types, name)),
      ),
    ),
    enums: names.enums.map((name) =>
      one(
        'enum',
        name,
        typeTables.map((types) => enumOf(types, name)),
      ),
    ),
    defines: names.defines,
  };
}

const camel = (name: string): string => name.replace(/_(\w)/g, (_match, letter: string) => letter.toUpperCase());
const pascal = (name: string): string => camel(`_${name}`);
const isPadding = (field: Field): boolean => /^padding\d*$/.test(field.name);

function typeText(shape: Shape): string {
  switch (shape.shape) {
    case 'number':
      return 'number';
    case 'bigint':
      return 'bigint';
    case 'bytes':
      return 'Uint8Array';
    case 'struct':
      return pascal(shape.struct);
    case 'array':
      return `ReadonlyArray<${typeText(shape.item)}>`;
  }
}

function cText(shape: Shape): string {
  switch (shape.shape) {
    case 'number':
      return `${shape.signed ? 's' : 'u'}${shape.bytes * 8}`;
    case 'bigint':
      return `${shape.signed ? 's' : 'u'}64`;
    case 'bytes':
      return `u8[${shape.bytes}]`;
    case 'struct':
      return shape.struct;
    case 'array':
      return `${cText(shape.item)}[${shape.count}]`;
  }
}

const accessor = (shape: { bytes: number; signed: boolean }): string =>
  `${shape.signed ? 'Int' : 'Uint'}${shape.bytes * 8}`;

function writeText(shape: Shape, at: string, value: string, where: string, indent: string): string[] {
  switch (shape.shape) {
    case 'number': {
      const low = shape.signed ? -(2 ** (shape.bytes * 8 - 1)) : 0;
      const high = 2 ** (shape.bytes * 8 - (shape.signed ? 1 : 0)) - 1;
      const order = shape.bytes === 1 ? '' : ', true';
      return [`${indent}view.set${accessor(shape)}(${at}, whole(${value}, ${low}, ${high}, '${where}')${order});`];
    }
    case 'bigint': {
      const low = shape.signed ? -(2n ** 63n) : 0n;
      const high = shape.signed ? 2n ** 63n - 1n : 2n ** 64n - 1n;
      return [
        `${indent}view.setBig${shape.signed ? 'Int' : 'Uint'}64(${at}, whole(${value}, ${low}n, ${high}n, '${where}'), true);`,
      ];
    }
    case 'bytes':
      return [`${indent}putBytes(view, ${at}, ${value}, ${shape.bytes}, '${where}');`];
    case 'struct':
      return [`${indent}write${pascal(shape.struct)}(view, ${at}, ${value});`];
    case 'array':
      return [
        `${indent}atMost(${value}, ${shape.count}, '${where}');`,
        `${indent}for (const [index, item] of ${value}.entries()) {`,
        ...writeText(shape.item, `${at} + index * ${bytesOf(shape.item)}`, 'item', where, `${indent}  `),
        `${indent}}`,
      ];
  }
}

function readText(shape: Shape, at: string): string {
  switch (shape.shape) {
    case 'number':
      return `view.get${accessor(shape)}(${at}${shape.bytes === 1 ? '' : ', true'})`;
    case 'bigint':
      return `view.getBig${shape.signed ? 'Int' : 'Uint'}64(${at}, true)`;
    case 'bytes':
      return `takeBytes(view, ${at}, ${shape.bytes})`;
    case 'struct':
      return `read${pascal(shape.struct)}(view, ${at})`;
    case 'array': {
      const item = readText(shape.item, `${at} + index * ${bytesOf(shape.item)}`);
      return `Array.from({ length: ${shape.count} }, (_, index) => ${item})`;
    }
  }
}

function structText(struct: Struct): string {
  const type = pascal(struct.name);
  const fields = struct.fields.filter((field) => !isPadding(field));
  const at = (field: Field): string => (field.offset === 0 ? 'at' : `at + ${field.offset}`);
  return [
    `/** struct ${struct.name}. Padding is left out; it is always written as zero. */`,
    `export interface ${type} {`,
    ...fields.map((field) => `  readonly ${camel(field.name)}: ${typeText(field.shape)};`),
    '}',
    `export const ${struct.name.toUpperCase()}_BYTES = ${struct.bytes};`,
    `export const ${camel(struct.name)}Fields = {`,
    ...fields.map(
      (field) =>
        `  ${camel(field.name)}: { offset: ${field.offset}, bytes: ${bytesOf(field.shape)}, type: '${cText(field.shape)}' },`,
    ),
    '} as const;',
    '',
    `function write${type}(view: DataView, at: number, value: ${type}): void {`,
    ...fields.flatMap((field) =>
      writeText(field.shape, at(field), `value.${camel(field.name)}`, `${struct.name}.${field.name}`, '  '),
    ),
    '}',
    '',
    `function read${type}(view: DataView, at: number): ${type} {`,
    '  return {',
    ...fields.map((field) => `    ${camel(field.name)}: ${readText(field.shape, at(field))},`),
    '  };',
    '}',
    '',
    `export function encode${type}(value: ${type}): Uint8Array {`,
    `  const bytes = new Uint8Array(${struct.bytes});`,
    `  write${type}(new DataView(bytes.buffer), 0, value);`,
    '  return bytes;',
    '}',
    '',
    `export function decode${type}(bytes: Uint8Array): ${type} {`,
    `  return read${type}(viewOf(bytes, ${struct.bytes}, '${struct.name}'), 0);`,
    '}',
  ].join('\n');
}

/** `agent_port` strips AGENT_PORT_; where members do not carry the whole name (`pod_flag`: POD_WITHDRAWING), its first word. */
function memberPrefix(item: Enum): string {
  const whole = `${item.name.toUpperCase()}_`;
  const first = `${item.name.toUpperCase().split('_')[0] ?? ''}_`;
  for (const prefix of [whole, first]) {
    if (item.values.every(({ name }) => name.startsWith(prefix) && /^[A-Z]/.test(name.slice(prefix.length))))
      return prefix;
  }
  return '';
}

function enumText(item: Enum): string {
  const prefix = memberPrefix(item);
  const number = (value: bigint): string =>
    value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? `${value}` : `${value}n`;
  return [
    `/** enum ${item.name}${prefix === '' ? '' : `, each member there with ${prefix} before it`}. */`,
    `export const ${camel(item.name)} = {`,
    ...item.values.map(({ name, value }) => `  ${name.slice(prefix.length)}: ${number(value)},`),
    '} as const;',
    `export type ${pascal(item.name)} = (typeof ${camel(item.name)})[keyof typeof ${camel(item.name)}];`,
  ].join('\n');
}

const PROLOGUE = `// Generated by tools/gen-layout.ts from native/bpf/include/layout.h and the BPF objects' BTF. Never edited, not committed.
// Little-endian, like the hosts culvert runs on.
`;

const SUPPORT = `function whole<T extends number | bigint>(value: T, low: T, high: T, where: string): T {
  if (value < low || value > high || (typeof value === 'number' && !Number.isInteger(value))) {
    throw new RangeError(\`\${where}: \${value} is not a whole number from \${low} to \${high}\`);
  }
  return value;
}

function putBytes(view: DataView, at: number, value: Uint8Array, count: number, where: string): void {
  if (value.length !== count) throw new RangeError(\`\${where}: \${value.length} bytes instead of \${count}\`);
  new Uint8Array(view.buffer, view.byteOffset + at, count).set(value);
}

function takeBytes(view: DataView, at: number, count: number): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset + at, count).slice();
}

function atMost(value: ReadonlyArray<unknown>, count: number, where: string): void {
  if (value.length > count) throw new RangeError(\`\${where}: \${value.length} items do not fit into \${count}\`);
}

function viewOf(bytes: Uint8Array, count: number, where: string): DataView {
  if (bytes.length !== count) throw new RangeError(\`\${where}: \${bytes.length} bytes instead of \${count}\`);
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}`;

/** Support functions that nothing calls would not pass the type checker. */
function supportText(rest: string): string {
  return SUPPORT.split(/\n\n(?=function )/)
    .filter((text) => rest.includes(`${/^function (\w+)/.exec(text)?.[1]}(`))
    .join('\n\n');
}

/** The TypeScript text of a layout. */
export function layoutText(layout: Layout): string {
  const rest = [
    ...layout.defines.map(({ name, value }) => `export const ${name} = ${value};`),
    ...layout.enums.map(enumText),
    ...layout.structs.map(structText),
  ].join('\n\n');
  return [PROLOGUE, supportText(rest), '', rest, ''].join('\n');
}

function main(): void {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { header: { type: 'string' }, out: { type: 'string' } },
  });
  if (values.header === undefined || values.out === undefined || positionals.length === 0) {
    throw new Error('usage: gen-layout.ts --header layout.h --out layout.ts object.bpf.o...');
  }
  const header = readFileSync(values.header, 'utf8');
  const text = layoutText(
    readLayout(
      header,
      positionals.map((file) => readFileSync(file)),
    ),
  );
  mkdirSync(path.dirname(values.out), { recursive: true });
  const scratch = `${values.out}.${process.pid}`;
  writeFileSync(scratch, text);
  renameSync(scratch, values.out);
}

if (import.meta.main) {
  try {
    main();
  } catch (error) {
    console.error(`gen-layout: ${error instanceof Error ? error.message : String(error)}`);
    process.exitCode = 1;
  }
}
