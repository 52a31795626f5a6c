import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { headerNames, layoutText, readLayout } from '../../../tools/gen-layout.ts';

const TYPES = `
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;
`;

const HEADER = `
#define SCHEMA 7 /* whole number */
#define WIDE 0x10
#define NOT_A_NUMBER (1 << 2)
enum ship_kind {
	SHIP_KIND_SLOOP = 1,
	SHIP_KIND_BRIG = 4096,
};
enum ship_flag {
	SHIP_ANCHORED = 1,
	SHIP_BURNING = 2,
};
enum sign {
	SIGN_BELOW = -1,
	SIGN_ABOVE = 1,
};
struct port {
	__u16 number;
	__u8 name[6];
};
struct ship {
	__u64 id;
	__s64 balance;
	__u32 kind;
	__s32 depth;
	struct port home;
	struct port calls[2];
	__u16 cargo[3];
	__u8 crew;
	__u8 padding;
};
`;

const ANCHORS = `
enum ship_kind a1; enum ship_flag a2; enum sign a3; struct port a4; struct ship a5;
`;

interface Ship {
  id: bigint;
  balance: bigint;
  kind: number;
  depth: number;
  home: { number: number; name: Uint8Array };
  calls: Array<{ number: number; name: Uint8Array }>;
  cargo: number[];
  crew: number;
}

interface Generated {
  SCHEMA: number;
  WIDE: number;
  SHIP_BYTES: number;
  shipFields: Record<string, { offset: number; bytes: number; type: string }>;
  shipKind: Record<string, number>;
  shipFlag: Record<string, number>;
  sign: Record<string, number>;
  encodeShip(ship: Ship): Uint8Array;
  decodeShip(bytes: Uint8Array): Ship;
}

function compile(source: string): Uint8Array {
  const folder = mkdtempSync(path.join(tmpdir(), 'culvert-layout-'));
  try {
    writeFileSync(path.join(folder, 'a.c'), TYPES + source);
    execFileSync('clang', ['-target', 'bpf', '-g', '-O2', '-c', 'a.c', '-o', 'a.o'], { cwd: folder });
    return readFileSync(path.join(folder, 'a.o'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function generate(header: string, anchors: string): Promise<{ text: string; module: Generated }> {
  const text = layoutText(readLayout(header, [compile(header + anchors)]));
  const folder = mkdtempSync(path.join(tmpdir(), 'culvert-layout-'));
  try {
    const file = path.join(folder, 'layout.ts');
    writeFileSync(file, text);
    return { text, module: (await import(pathToFileURL(file).href)) as Generated };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const name = (text: string): Uint8Array => Uint8Array.from({ length: 6 }, (_, index) => text.charCodeAt(index) || 0);

const SHIP: Ship = {
  id: 2n ** 64n - 1n,
  balance: -3n,
  kind: 4096,
  depth: -70000,
  home: { number: 65535, name: name('Varna') },
  calls: [
    { number: 1, name: name('Delos') },
    { number: 2, name: name('Samos') },
  ],
  cargo: [1, 2, 3],
  crew: 255,
};

test('reads back what it wrote, for every kind of field', async (t) => {
  const { module } = await generate(HEADER, ANCHORS);
  t.deepEqual(module.decodeShip(module.encodeShip(SHIP)), SHIP);
});

test('writes the bytes that the C compiler lays out', async (t) => {
  const { module } = await generate(HEADER, ANCHORS);
  const bytes = module.encodeShip(SHIP);
  t.is(bytes.length, module.SHIP_BYTES);
  t.is(module.SHIP_BYTES, 56);
  t.deepEqual(module.shipFields.depth, { offset: 20, bytes: 4, type: 's32' });
  t.deepEqual(module.shipFields.calls, { offset: 32, bytes: 16, type: 'port[2]' });
  t.deepEqual([...bytes.subarray(16, 34)], [0, 16, 0, 0, 144, 238, 254, 255, 255, 255, 86, 97, 114, 110, 97, 0, 1, 0]);
});

test('reads a struct from the middle of a larger buffer', async (t) => {
  const { module } = await generate(HEADER, ANCHORS);
  const larger = new Uint8Array(80).fill(0xff);
  larger.set(module.encodeShip(SHIP), 11);
  t.deepEqual(module.decodeShip(larger.subarray(11, 67)), SHIP);
});

test('gives enums and whole-number defines their values, under short names', async (t) => {
  const { module, text } = await generate(HEADER, ANCHORS);
  t.deepEqual({ ...module.shipKind }, { SLOOP: 1, BRIG: 4096 });
  t.deepEqual({ ...module.shipFlag }, { ANCHORED: 1, BURNING: 2 });
  t.deepEqual({ ...module.sign }, { BELOW: -1, ABOVE: 1 });
  t.is(module.SCHEMA, 7);
  t.is(module.WIDE, 16);
  t.notRegex(text, /NOT_A_NUMBER/);
});

test('leaves the rest of a short array zero and refuses a long one', async (t) => {
  const { module } = await generate(HEADER, ANCHORS);
  t.deepEqual(module.decodeShip(module.encodeShip({ ...SHIP, cargo: [9] })).cargo, [9, 0, 0]);
  t.throws(() => module.encodeShip({ ...SHIP, cargo: [1, 2, 3, 4] }), {
    instanceOf: RangeError,
    message: /ship\.cargo/,
  });
});

test('refuses numbers and bytes that do not fit their field', async (t) => {
  const { module } = await generate(HEADER, ANCHORS);
  const refuses = (wrong: Partial<Ship>, message: RegExp): void => {
    t.throws(() => module.encodeShip({ ...SHIP, ...wrong }), { instanceOf: RangeError, message });
  };
  refuses({ crew: 256 }, /ship\.crew/);
  refuses({ crew: 1.5 }, /ship\.crew/);
  refuses({ kind: -1 }, /ship\.kind/);
  refuses({ id: 2n ** 64n }, /ship\.id/);
  refuses({ home: { number: 1, name: new Uint8Array(5) } }, /port\.name/);
  t.throws(() => module.decodeShip(new Uint8Array(55)), { instanceOf: RangeError, message: /55 bytes instead of 56/ });
});

test('generates the same text from the same object', async (t) => {
  t.is((await generate(HEADER, ANCHORS)).text, (await generate(HEADER, ANCHORS)).text);
});

test('names the type that no object anchors', (t) => {
  const object = compile(`${HEADER} struct ship only;`);
  t.throws(() => readLayout(HEADER, [object]), { message: /enum ship_kind is in no object's BTF/ });
});

test('refuses two objects that disagree', (t) => {
  const header = 'struct port {\n\t__u32 number;\n};\n';
  const one = compile(`${header} struct port a;`);
  const other = compile('struct port { __u32 other; }; struct port a;');
  t.throws(() => readLayout(header, [one, other]), { message: /struct port differs between the objects/ });
});

test('refuses padding that is not explicit, bit fields and pointers', (t) => {
  const refuses = (fields: string, message: RegExp): void => {
    const header = `struct port {\n${fields}\n};\n`;
    t.throws(() => readLayout(header, [compile(`${header} struct port a;`)]), { message });
  };
  refuses('__u8 a; __u32 b;', /struct port, b: 3 bytes of padding before it/);
  refuses('__u32 a; __u8 b;', /struct port: 3 bytes of padding at its end/);
  refuses('__u32 a : 3; __u32 b : 29;', /bit fields are not allowed/);
  refuses('void *a;', /has no shape here/);
});

test('refuses a file that is not an object', (t) => {
  t.throws(() => readLayout(HEADER, [new Uint8Array(128)]), { message: /not an ELF file/ });
});

test('takes no name out of a comment or a function', (t) => {
  const header = '/* struct no { */\n// enum no {\nstruct yes {\n};\nstruct yes *f(struct yes *a);\n#define F(x) 1\n';
  t.deepEqual(headerNames(header), { structs: ['yes'], enums: [], defines: [] });
});
