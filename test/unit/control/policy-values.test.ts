/** How policies write what they compare with (wire contract, section 5.5). */
import test from 'ava';
import {
  readAccount,
  readBlock,
  readPort,
  readPrincipal,
  readString,
} from '../../../src/control/build/policy-values.ts';

const STRING = 'must be a text, with one * at most, at its beginning or at its end';
for (const [text, expected] of [
  ['a', { kind: 'exact', value: 'a' }],
  ['td/ns/a/sa/b', { kind: 'exact', value: 'td/ns/a/sa/b' }],
  ['*', { kind: 'presence' }],
  ['a*', { kind: 'prefix', value: 'a' }],
  ['*a', { kind: 'suffix', value: 'a' }],
  ['td/ns/a/*', { kind: 'prefix', value: 'td/ns/a/' }],
  ['*/sa/b', { kind: 'suffix', value: '/sa/b' }],
  ['', STRING],
  ['**', STRING],
  ['*a*', STRING],
  ['a*b', STRING],
  ['x'.repeat(2049), STRING],
] as const) {
  const outcome = typeof expected === 'string' ? { wrong: expected } : { value: expected };
  test(`a text to compare with: ${text.slice(0, 20)}`, (t) => t.deepEqual(readString(text), outcome));
  test(`a principal to compare with: ${text.slice(0, 20)}`, (t) => t.deepEqual(readPrincipal(text), outcome));
}

for (const text of ['spiffe://td/ns/a/sa/b', 'spiffe://td/*'])
  test(`a principal that would never be found is not understood: ${text}`, (t) =>
    t.deepEqual(readPrincipal(text), { wrong: 'must be written without spiffe://' }));

const ACCOUNT = 'must be a service account, or namespace/account, without *';
for (const [text, expected] of [
  ['cart', { namespace: 'shop', serviceAccount: 'cart' }],
  ['other/cart', { namespace: 'other', serviceAccount: 'cart' }],
  ['other/cart.v1', { namespace: 'other', serviceAccount: 'cart.v1' }],
  ['', ACCOUNT],
  ['/cart', ACCOUNT],
  ['other/', ACCOUNT],
  ['a/b/c', ACCOUNT],
  ['*', ACCOUNT],
  ['other/*', ACCOUNT],
  ['Other/cart', ACCOUNT],
] as const)
  test(`a service account: ${JSON.stringify(text)}`, (t) =>
    t.deepEqual(readAccount(text, 'shop'), typeof expected === 'string' ? { wrong: expected } : { value: expected }));

for (const [text, block] of [
  ['10.0.0.1', '10.0.0.1/32'],
  ['10.0.0.0/8', '10.0.0.0/8'],
  ['10.1.2.3/8', '10.0.0.0/8'],
  ['10.255.255.255/9', '10.128.0.0/9'],
  ['10.1.2.3/0', '0.0.0.0/0'],
  ['10.1.2.3/32', '10.1.2.3/32'],
  ['fd00::1', 'fd00::1/128'],
  ['FD00:0::1/64', 'fd00::/64'],
  ['fd00:ffff::1/19', 'fd00:e000::/19'],
  ['::/0', '::/0'],
  ['::ffff:10.1.2.3', '10.1.2.3/32'],
  ['::ffff:10.1.2.3/104', '10.0.0.0/8'],
  ['::ffff:10.1.2.3/90', undefined],
  ['10.0.0.0/33', undefined],
  ['fd00::/129', undefined],
  ['10.0.0.0/08', undefined],
  ['10.0.0.0/', undefined],
  ['10.0.0', undefined],
  ['10', undefined],
  ['fe80::1%eth0', undefined],
  ['web', undefined],
  ['', undefined],
] as const)
  test(`an address block: ${JSON.stringify(text)}`, (t) =>
    t.deepEqual(
      readBlock(text) as unknown,
      block === undefined ? { wrong: 'is neither an IP address nor a CIDR block' } : { value: block },
    ));

for (const [text, port] of [
  ['1', 1],
  ['80', 80],
  ['65535', 65_535],
  ['0', undefined],
  ['65536', undefined],
  ['080', undefined],
  ['8e1', undefined],
  ['-1', undefined],
  ['80-90', undefined],
  ['*', undefined],
  ['', undefined],
  ['http', undefined],
] as const)
  test(`a port: ${JSON.stringify(text)}`, (t) =>
    t.deepEqual(readPort(text), port === undefined ? { wrong: 'must be a port number, 1 to 65535' } : { value: port }));
