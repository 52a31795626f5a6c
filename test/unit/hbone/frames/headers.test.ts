import { Buffer } from 'node:buffer';
import test from 'ava';
import { Breach } from '../../../../src/hbone/frames/breach.ts';
import { ControlBuffer } from '../../../../src/hbone/frames/control-buffer.ts';
import { HeaderDecoder } from '../../../../src/hbone/frames/header-decoder.ts';
import { HeaderEncoder } from '../../../../src/hbone/frames/header-encoder.ts';
import { CODE_LENGTHS, decodeHuffman } from '../../../../src/hbone/frames/huffman.ts';
import { areTrailers, readAnswer, readRequest } from '../../../../src/hbone/frames/message.ts';
import { CONTINUATION, END_HEADERS, END_STREAM, HEADERS } from '../../../../src/hbone/frames/wire.ts';
import type { HeaderFields } from '../../../../src/hbone/index.ts';
import { block } from './raw-peer.ts';

const LIMIT = 65_536;

function decode(decoder: HeaderDecoder, hex: string): HeaderFields {
  const bytes = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  return decoder.decode(bytes, 0, bytes.length).fields;
}

function lines(...fields: string[]): HeaderFields {
  return fields.map((line) => {
    const at = line.indexOf(': ', 1);
    return [line.slice(0, at), line.slice(at + 2)] as const;
  });
}

test('decodes single fields (RFC 7541, C.2)', (t) => {
  const cases: Array<[hex: string, line: string]> = [
    ['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', 'custom-key: custom-header'],
    ['040c 2f73 616d 706c 652f 7061 7468', ':path: /sample/path'],
    ['1008 7061 7373 776f 7264 0673 6563 7265 74', 'password: secret'],
    ['82', ':method: GET'],
  ];
  for (const [hex, line] of cases) t.deepEqual(decode(new HeaderDecoder(LIMIT), hex), lines(line));
});

const REQUESTS = [
  lines(':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'),
  lines(':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com', 'cache-control: no-cache'),
  lines(
    ':method: GET',
    ':scheme: https',
    ':path: /index.html',
    ':authority: www.example.com',
    'custom-key: custom-value',
  ),
];

test('decodes requests one after the other, with the table of those before (RFC 7541, C.3 and C.4)', (t) => {
  const plain = [
    '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
    '8286 84be 5808 6e6f 2d63 6163 6865',
    '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
  ];
  const huffman = [
    '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
    '8286 84be 5886 a8eb 1064 9cbf',
    '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
  ];
  for (const blocks of [plain, huffman]) {
    const decoder = new HeaderDecoder(LIMIT);
    t.deepEqual(
      blocks.map((hex) => decode(decoder, hex)),
      REQUESTS,
    );
  }
});

const DATE_21 = 'date: Mon, 21 Oct 2013 20:13:21 GMT';
const DATE_22 = 'date: Mon, 21 Oct 2013 20:13:22 GMT';
const PRIVATE = 'cache-control: private';
const LOCATION = 'location: https://www.example.com';
const COOKIE = 'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1';
const RESPONSES = [
  lines(':status: 302', PRIVATE, DATE_21, LOCATION),
  lines(':status: 307', PRIVATE, DATE_21, LOCATION),
  lines(':status: 200', PRIVATE, DATE_22, LOCATION, 'content-encoding: gzip', COOKIE),
];

test('decodes answers with a table of 256 bytes, entries evicted (RFC 7541, C.5 and C.6)', (t) => {
  const plain = [
    `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
     2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
    '4803 3330 37c1 c0bf',
    `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
     54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
     5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`,
  ];
  const huffman = [
    `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
     2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3`,
    '4883 640e ffc1 c0bf',
    `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
     77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
  ];
  for (const blocks of [plain, huffman]) {
    const decoder = new HeaderDecoder(LIMIT);
    decode(decoder, '3fe1 01'); // The table's size: 256.
    const decoded = blocks.map((hex) => decode(decoder, hex.replace(/\s+/g, '')));
    t.deepEqual(decoded, RESPONSES);
  }
});

/** Huffman, the other way round: for what peers send and we do not. */
function huffman(bytes: Buffer): Buffer {
  const order = [...CODE_LENGTHS.entries()].toSorted(([a, m], [b, n]) => m - n || a - b);
  const codes: string[] = [];
  let code = 0n;
  let before = 0;
  for (const [symbol, length] of order) {
    code <<= BigInt(length - before);
    before = length;
    codes[symbol] = code.toString(2).padStart(length, '0');
    code += 1n;
  }
  const bits = [...bytes].map((byte) => codes[byte] ?? '').join('');
  const padded = bits.padEnd(Math.ceil(bits.length / 8) * 8, '1');
  return Buffer.from((padded.match(/.{8}/g) ?? []).map((each) => Number.parseInt(each, 2)));
}

test('decodes every byte there is', (t) => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
  const coded = huffman(bytes);
  const out = Buffer.alloc(1024);
  const end = decodeHuffman(coded, 0, coded.length, out);
  t.deepEqual(out.subarray(0, end), bytes);
});

test('takes no Huffman string with a wrong end', (t) => {
  const out = Buffer.alloc(64);
  const wrong = {
    'a padding of zeros': [0x18],
    'a padding of eight ones': [0x1f, 0xff],
    EOS: [0xff, 0xff, 0xff, 0xff],
    'half a code': [0xff, 0xe0],
  };
  for (const [what, bytes] of Object.entries(wrong))
    t.throws(() => decodeHuffman(Buffer.from(bytes), 0, bytes.length, out), { instanceOf: Breach }, what);
  t.is(decodeHuffman(Buffer.of(0x1f), 0, 1, out), 1);
  t.is(out[0], 0x61);
});

test('takes no block that cannot be', (t) => {
  const wrong: Record<string, string> = {
    'index 0': '80',
    'an index beyond the tables': 'be',
    'a name beyond the tables': '7e 01 61',
    'an integer without an end': 'ff ff ff',
    'an integer of too many bytes': 'ff 80 80 80 80 80 80 80 80 01',
    'an integer beyond the bound': 'ff ff ff ff ff 7f',
    'a string that ends too early': '00 05 61 62',
    'no value': '00 01 61',
    'a length without an end': '00 7f',
    'a table beyond what was announced': '3f e2 1f',
    'a table size after a field': '82 20',
  };
  for (const [what, hex] of Object.entries(wrong)) {
    const error = t.throws(() => decode(new HeaderDecoder(LIMIT), hex), { instanceOf: Breach }, what);
    t.is(error?.h2Code, 9, what);
  }
});

test('forgets entries when the table shrinks, and takes new ones when it grows again', (t) => {
  const decoder = new HeaderDecoder(LIMIT);
  decode(decoder, '4001 6101 62');
  t.deepEqual(decode(decoder, 'be'), lines('a: b'));
  decode(decoder, '20 3fe11f');
  t.throws(() => decode(decoder, 'be'), { instanceOf: Breach });
  decode(decoder, '4001 6101 63');
  t.deepEqual(decode(decoder, 'be'), lines('a: c'));
});

test('an entry larger than the table empties it', (t) => {
  const decoder = new HeaderDecoder(LIMIT);
  decode(decoder, '4001 6101 62');
  const large = Buffer.concat([Buffer.of(0x40, 1, 0x61, 0x7f, 0x81, 0x1f), Buffer.alloc(127 + 1 + 31 * 128, 0x78)]);
  t.is(decoder.decode(large, 0, large.length).fields.length, 1);
  t.throws(() => decode(decoder, 'be'), { instanceOf: Breach });
});

test('keeps the table right over thousands of insertions', (t) => {
  const decoder = new HeaderDecoder(LIMIT);
  for (let each = 0; each < 5000; each += 1) {
    const value = `value-${each}`.padEnd(each % 90, '.');
    const bytes = block([`name-${each % 7}`, value]);
    bytes[0] = 0x40;
    decoder.decode(bytes, 0, bytes.length);
    const newest = decoder.decode(Buffer.of(0xbe), 0, 1).fields;
    t.deepEqual(newest, [[`name-${each % 7}`, value]]);
  }
});

test('keeps of a bomb no more than the bound', (t) => {
  const decoder = new HeaderDecoder(16_384);
  const seed = block(['x', 'y'.repeat(3000)]);
  seed[0] = 0x40;
  decoder.decode(seed, 0, seed.length);
  const bomb = Buffer.alloc(16_000, 0xbe);
  const { fields, tooLong } = decoder.decode(bomb, 0, bomb.length);
  t.true(tooLong);
  t.is(fields.length, 5);
  // The table is still the peer's.
  t.is(decoder.decode(Buffer.of(0xbe), 0, 1).fields[0]?.[0], 'x');
});

test('encodes what it decodes', (t) => {
  const control = new ControlBuffer();
  const encoder = new HeaderEncoder();
  const decoder = new HeaderDecoder(LIMIT);
  const fields = lines('baggage: k8s.cluster.name=Kubernetes', `long: ${'x'.repeat(300)}`, 'latin: \xe9\xff');
  encoder.request(control, 1, '[fd00::1]:80', fields, 16_384);
  const request = control.take();
  t.deepEqual([...request.subarray(3, 9)], [HEADERS, END_HEADERS, 0, 0, 0, 1]);
  t.is(request[9], 0x20);
  t.deepEqual(decoder.decode(request, 9, request.length).fields, [
    [':method', 'CONNECT'],
    [':authority', '[fd00::1]:80'],
    ...fields,
  ]);
  for (const status of [200, 400, 401, 503]) {
    encoder.response(control, 3, status, [], status !== 200, 16_384);
    const response = control.take();
    t.is(response[4], status === 200 ? END_HEADERS : END_HEADERS | END_STREAM);
    t.deepEqual(decoder.decode(response, 9, response.length).fields, [[':status', String(status)]]);
  }
});

test('says by no means more than one line in a field', (t) => {
  const control = new ControlBuffer();
  new HeaderEncoder().request(control, 1, 'a:1\r\nx', [['name', 'value\u010a\0\n']], 16_384);
  const bytes = control.take();
  const { fields } = new HeaderDecoder(LIMIT).decode(bytes, 9, bytes.length);
  t.deepEqual(fields.slice(1), [
    [':authority', 'a:1??x'],
    ['name', 'value???'],
  ]);
});

test('splits a block that is longer than the peer allows', (t) => {
  const control = new ControlBuffer();
  new HeaderEncoder().request(control, 5, 'a:1', [['name', 'v'.repeat(40_000)]], 16_384);
  const bytes = control.take();
  const parts: Buffer[] = [];
  const heads: number[][] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = bytes.readUIntBE(at, 3);
    t.true(length <= 16_384);
    heads.push([bytes[at + 3] ?? -1, bytes[at + 4] ?? -1, bytes.readUInt32BE(at + 5)]);
    parts.push(bytes.subarray(at + 9, at + 9 + length));
    at += 9 + length;
  }
  t.deepEqual(heads, [
    [HEADERS, 0, 5],
    [CONTINUATION, 0, 5],
    [CONTINUATION, END_HEADERS, 5],
  ]);
  const whole = Buffer.concat(parts);
  const { fields } = new HeaderDecoder(LIMIT).decode(whole, 0, whole.length);
  t.is(fields.at(-1)?.[1].length, 40_000);
});

test('takes requests that a server can answer, malformed ones not', (t) => {
  const good: Array<[HeaderFields, method: string, authority: string | undefined]> = [
    [lines(':method: CONNECT', ':authority: a:1'), 'CONNECT', 'a:1'],
    [lines(':authority: a:1', ':method: CONNECT', 'te: trailers'), 'CONNECT', 'a:1'],
    [lines(':method: CONNECT'), 'CONNECT', undefined],
    [lines(':method: GET', ':scheme: https', ':path: /', ':authority: a'), 'GET', 'a'],
    [lines('baggage: x'), '', undefined],
    [[], '', undefined],
  ];
  for (const [list, method, authority] of good) {
    t.is(readRequest(list)?.method, method);
    t.is(readRequest(list)?.authority, authority);
  }
  const bad: Record<string, HeaderFields> = {
    'upper case': lines(':method: CONNECT', 'Baggage: x'),
    'a name with a space': lines(':method: CONNECT', 'bag gage: x'),
    'an empty name': [['', 'x']],
    'a pseudo field after others': lines(':method: CONNECT', 'a: b', ':authority: a:1'),
    'a pseudo field twice': lines(':method: CONNECT', ':method: CONNECT'),
    'a pseudo field that is unknown': lines(':method: CONNECT', ':protocol: websocket'),
    "an answer's pseudo field": lines(':method: CONNECT', ':status: 200'),
    'a path with CONNECT': lines(':method: CONNECT', ':path: /'),
    'a scheme with CONNECT': lines(':method: CONNECT', ':scheme: https'),
    connection: lines(':method: CONNECT', 'connection: close'),
    'transfer-encoding': lines(':method: CONNECT', 'transfer-encoding: chunked'),
    te: lines(':method: CONNECT', 'te: gzip'),
    'a line break': lines(':method: CONNECT', 'a: b\nc'),
    'a zero byte': lines(':method: CONNECT', 'a: b\0'),
    'a space at the end': lines(':method: CONNECT', 'a: b '),
  };
  for (const [what, list] of Object.entries(bad)) t.is(readRequest(list), undefined, what);
});

test('takes answers with one status, and trailers without any', (t) => {
  t.is(readAnswer(lines(':status: 200', 'a: b'))?.status, 200);
  for (const list of [
    lines('a: b'),
    lines(':status: 20'),
    lines(':status: 2000'),
    lines(':status: 200', ':status: 200'),
  ])
    t.is(readAnswer(list), undefined);
  t.true(areTrailers(lines('a: b')));
  t.false(areTrailers(lines(':status: 200')));
});
