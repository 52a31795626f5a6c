import test from 'ava';
import { AgentError } from '../../../src/agent/errors.ts';
import { parseQuestionSource, parseQuestionTarget } from '../../../src/agent/policy-question.ts';

for (const [text, source] of [
  ['none', { kind: 'none' }],
  ['spiffe://td/ns/shop/sa/web', { kind: 'identity', identity: 'spiffe://td/ns/shop/sa/web' }],
  ['shop/web', { kind: 'name', namespace: 'shop', name: 'web' }],
  ['shop/web-0.a', { kind: 'name', namespace: 'shop', name: 'web-0.a' }],
  ['10.0.0.1', { kind: 'address', address: '10.0.0.1' }],
  ['fd00:0::1', { kind: 'address', address: 'fd00::1' }],
  ['[fd00::1]', { kind: 'address', address: 'fd00::1' }],
  ['::ffff:10.0.0.1', { kind: 'address', address: '10.0.0.1' }],
] as const)
  test(`a source may be ${text}`, (t) => {
    t.deepEqual(parseQuestionSource(text), source as unknown as typeof undefined);
  });

for (const [text, message] of [
  ['', /is none of: NAMESPACE\/POD/],
  ['web', /is none of/],
  ['Shop/web', /is none of/],
  ['shop/web/0', /is none of/],
  ['shop/', /is none of/],
  ['None', /is none of/],
  ['10.0.0', /is none of/],
  ['10.0.0.0/8', /is none of/],
  ['spiffe://td/ns/shop', /is not a SPIFFE id of the form/],
  ['spiffe://td/ns/shop/sa/', /is not a SPIFFE id of the form/],
] as const)
  test(`a source may not be "${text}"`, (t) => {
    const error = t.throws(() => parseQuestionSource(text), { instanceOf: AgentError, message });
    t.is(error?.code, 'BAD_REQUEST');
    t.regex(error?.message ?? '', /^from: /);
  });

for (const [text, target] of [
  ['shop/web-0:8080', { pod: { kind: 'name', namespace: 'shop', name: 'web-0' }, port: 8080 }],
  ['10.0.0.7:1', { pod: { kind: 'address', address: '10.0.0.7' }, port: 1 }],
  ['[fd00::7]:65535', { pod: { kind: 'address', address: 'fd00::7' }, port: 65_535 }],
  ['[10.0.0.7]:80', { pod: { kind: 'address', address: '10.0.0.7' }, port: 80 }],
] as const)
  test(`a target may be ${text}`, (t) => {
    t.deepEqual(parseQuestionTarget(text), target as unknown as typeof undefined);
  });

for (const [text, message] of [
  ['', /has no port; write POD:PORT/],
  ['shop/web-0', /has no port/],
  ['10.0.0.7', /has no port/],
  ['shop/web-0:', /"" is not a port/],
  ['shop/web-0:0', /"0" is not a port/],
  ['shop/web-0:65536', /"65536" is not a port/],
  ['shop/web-0:http', /"http" is not a port/],
  ['fd00::7', /in brackets/],
  ['fd00::7:8080', /in brackets/],
  ['web-0:80', /neither NAMESPACE\/POD nor an IP address/],
  ['[shop/web-0]:80', /neither NAMESPACE\/POD nor an IP address/],
  ['[fd00::7:80', /in brackets/],
] as const)
  test(`a target may not be "${text}"`, (t) => {
    const error = t.throws(() => parseQuestionTarget(text), { instanceOf: AgentError, message });
    t.is(error?.code, 'BAD_REQUEST');
    t.regex(error?.message ?? '', /^to: /);
  });
