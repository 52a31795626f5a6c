import test from 'ava';
import {
  type Address,
  type Cidr,
  decodeAddress,
  encodeAddress,
  encodeCidr,
  familyOf,
  formatEndpoint,
  parseAddress,
  parseCidr,
} from '../../../src/mesh/index.ts';

for (const [text, canonical] of [
  ['10.0.0.1', '10.0.0.1'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['::ffff:a00:1', '10.0.0.1'],
  ['FD00:0:0::1', 'fd00::1'],
  ['::', '::'],
  ['0.0.0.0', '0.0.0.0'],
] as const)
  test(`${text} is the address ${canonical}`, (t) => t.is(parseAddress(text), canonical as Address));

for (const text of [
  '',
  '10.0.0',
  '10.0.0.256',
  '010.0.0.1',
  '0x0a000001',
  '167772161',
  'fe80::1%eth0',
  '[fd00::1]',
  'localhost',
  ' 10.0.0.1',
  '10.0.0.1/8',
])
  test(`${JSON.stringify(text)} is no address`, (t) => t.is(parseAddress(text), undefined));

for (const text of ['10.0.0.1', 'fd00::1', '::', '255.255.255.255', '::1'])
  test(`${text} survives 16 bytes`, (t) => {
    const bytes = encodeAddress(text as Address);
    t.is(bytes.byteLength, 16);
    t.is(decodeAddress(bytes), text as Address);
  });

test('IPv4 lies in its v4-mapped form', (t) => {
  t.is(Buffer.from(encodeAddress('10.0.0.1' as Address)).toString('hex'), '00000000000000000000ffff0a000001');
});

for (const [text, canonical] of [
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['0.0.0.0/0', '0.0.0.0/0'],
  ['10.0.0.1/32', '10.0.0.1/32'],
  ['FD00::/8', 'fd00::/8'],
  ['::/0', '::/0'],
] as const)
  test(`${text} is the block ${canonical}`, (t) => t.is(parseCidr(text), canonical as Cidr));

for (const text of [
  '',
  '10.0.0.0',
  '10.0.0.1/8',
  '10.0.0.0/33',
  'fd00::1/64',
  'fd00::/129',
  '10.0.0.0/-1',
  '10.0.0.0/',
  'fe80::%eth0/64',
  '10.0/8',
])
  test(`${JSON.stringify(text)} is no block`, (t) => t.is(parseCidr(text), undefined));

test('a block counts its bits in 128', (t) => {
  t.is(encodeCidr('10.0.0.0/8' as Cidr).bits, 104);
  t.is(encodeCidr('fd00::/8' as Cidr).bits, 8);
});

test('a block says its family, so that ::/0 is not taken for one that has IPv4 in it', (t) => {
  t.is(encodeCidr('0.0.0.0/0' as Cidr).family, 4);
  t.is(encodeCidr('::/0' as Cidr).family, 6);
});

test('a block of v4-mapped addresses is a block of IPv4', (t) => {
  t.is(parseCidr('::ffff:10.0.0.0/104'), '10.0.0.0/8' as Cidr);
  t.is(parseCidr('::ffff:0.0.0.0/96'), '0.0.0.0/0' as Cidr);
  t.is(parseCidr('::ffff:0:0/95'), undefined);
});

test('endpoints are written as in a URL', (t) => {
  t.is(formatEndpoint({ address: '10.0.0.1' as Address, port: 80 }), '10.0.0.1:80');
  t.is(formatEndpoint({ address: 'fd00::1' as Address, port: 80 }), '[fd00::1]:80');
  t.is(familyOf('fd00::1' as Address), 6);
  t.is(familyOf('10.0.0.1' as Address), 4);
});
