import test from 'ava';
import { AgentError, type AgentErrorCode } from '../../../src/agent/errors.ts';
import {
  encodeError,
  encodePod,
  encodeReply,
  MAX_REQUEST_BYTES,
  parsePod,
  parseReply,
  parseRequest,
} from '../../../src/agent/protocol.ts';
import { pod, wirePod } from '../../contract/fakes/pods.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const line = (value: unknown): Uint8Array => bytes(JSON.stringify(value));
const enrol = (changes: Record<string, unknown>): Uint8Array =>
  line({ method: 'enrol', pod: { ...wirePod(), ...changes } });

const bad: Array<[title: string, request: Uint8Array, code: AgentErrorCode, message: RegExp]> = [
  ['nothing', bytes(''), 'NOT_JSON', /is not JSON/],
  ['half an object', bytes('{"method":'), 'NOT_JSON', /is not JSON/],
  ['two objects', bytes('{}{}'), 'NOT_JSON', /one JSON object per line/],
  ['invalid UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 'NOT_JSON', /UTF-8/],
  ['a byte order mark', bytes('\uFEFF{"method":"status"}'), 'NOT_JSON', /is not JSON/],
  ['junk', new Uint8Array(1024 * 1024).fill(0x78), 'TOO_LARGE', /longer than 65536 bytes/],
  ['an array', line([]), 'BAD_REQUEST', /expected object|one of/],
  ['null', line(null), 'BAD_REQUEST', /./],
  ['no method', line({}), 'BAD_REQUEST', /method: must be one of "enrol"/],
  ['an unknown method', line({ method: 'destroy' }), 'BAD_REQUEST', /method: must be one of/],
  [
    'an unknown field beside the method',
    line({ method: 'status', verbose: true }),
    'BAD_REQUEST',
    /unknown field "verbose"/,
  ],
  ['an unknown field of the pod', enrol({ labels: {} }), 'BAD_REQUEST', /^pod: unknown field "labels"; remove it/],
  ['a prototype', bytes('{"method":"status","__proto__":{}}'), 'BAD_REQUEST', /unknown field "__proto__"/],
  ['no pod', line({ method: 'enrol' }), 'BAD_REQUEST', /^pod: /],
  ['a pod without uid', enrol({ uid: undefined }), 'BAD_REQUEST', /^pod\.uid: /],
  ['an empty uid', enrol({ uid: '' }), 'BAD_REQUEST', /^pod\.uid: /],
  ['a uid with a slash', enrol({ uid: '../x' }), 'BAD_REQUEST', /^pod\.uid: must consist of/],
  ['a name with capitals', enrol({ name: 'Web' }), 'BAD_REQUEST', /^pod\.name: must be a Kubernetes name/],
  ['a namespace with a dot', enrol({ namespace: 'a.b' }), 'BAD_REQUEST', /^pod\.namespace: /],
  ['a relative netns', enrol({ netns: 'netns/a' }), 'BAD_REQUEST', /^pod\.netns: must be an absolute path/],
  ['a netns that climbs', enrol({ netns: '/run/netns/../../etc' }), 'BAD_REQUEST', /^pod\.netns: /],
  ['a netns with a zero', enrol({ netns: '/run/netns/a\0b' }), 'BAD_REQUEST', /^pod\.netns: /],
  ['a netns that is a number', enrol({ netns: 4 }), 'BAD_REQUEST', /^pod\.netns: /],
  ['no address', enrol({ addresses: [] }), 'BAD_REQUEST', /^pod\.addresses: /],
  [
    'five addresses',
    enrol({ addresses: [1, 2, 3, 4, 5].map((n) => `10.0.0.${n}`) }),
    'BAD_REQUEST',
    /^pod\.addresses: /,
  ],
  [
    'an address twice',
    enrol({ addresses: ['10.0.0.1', '::ffff:10.0.0.1'] }),
    'BAD_REQUEST',
    /^pod\.addresses: names an address twice/,
  ],
  [
    'a name for an address',
    enrol({ addresses: ['10.0.0.1', 'web'] }),
    'BAD_REQUEST',
    /^pod\.addresses\[1\]: "web" is not an IPv4 or IPv6 address/,
  ],
  ['an address with a zone', enrol({ addresses: ['fe80::1%eth0'] }), 'BAD_REQUEST', /^pod\.addresses\[0\]: /],
  ...(
    [
      '0.0.0.0',
      '0.1.2.3',
      '127.0.0.1',
      '224.0.0.1',
      '255.255.255.255',
      '::',
      '::1',
      '::ffff:127.0.0.1',
      'ff02::1',
      'fe80::1',
    ] as const
  ).map((text): [string, Uint8Array, AgentErrorCode, RegExp] => [
    `${text} as a pod's address`,
    enrol({ addresses: ['10.0.0.1', text] }),
    'BAD_REQUEST',
    /^pod\.addresses\[1\]: ".*" is no address that others can reach a pod at/,
  ]),
  ['port 0', enrol({ excludeOutboundPorts: [0] }), 'BAD_REQUEST', /^pod\.excludeOutboundPorts\[0\]: /],
  ['port 65536', enrol({ excludeInboundPorts: [80, 65536] }), 'BAD_REQUEST', /^pod\.excludeInboundPorts\[1\]: /],
  ['half a port', enrol({ excludeInboundPorts: [80.5] }), 'BAD_REQUEST', /^pod\.excludeInboundPorts\[0\]: /],
  [
    'a block with host bits',
    enrol({ excludeOutboundCidrs: ['10.0.0.1/8'] }),
    'BAD_REQUEST',
    /^pod\.excludeOutboundCidrs\[0\]: "10\.0\.0\.1\/8" is not/,
  ],
  [
    'a block without length',
    enrol({ excludeInboundCidrs: ['10.0.0.0'] }),
    'BAD_REQUEST',
    /^pod\.excludeInboundCidrs\[0\]: /,
  ],
  ['a withdrawal without uid', line({ method: 'withdraw' }), 'BAD_REQUEST', /^uid: /],
  ['a question without source', line({ method: 'policy-test', to: 'a/b:1' }), 'BAD_REQUEST', /^from: /],
  ['a question without target', line({ method: 'policy-test', from: 'none' }), 'BAD_REQUEST', /^to: /],
  [
    'a question that never ends',
    line({ method: 'policy-test', from: 'x'.repeat(2_201), to: 'a/b:1' }),
    'BAD_REQUEST',
    /^from: /,
  ],
  ['flows of nobody', line({ method: 'recent-flows' }), 'BAD_REQUEST', /^uid: /],
  ['a level that is no text', line({ method: 'log-level', level: 5 }), 'BAD_REQUEST', /^level: /],
  ['a level without end', line({ method: 'log-level', level: 'x'.repeat(2000) }), 'BAD_REQUEST', /^level: /],
  ['a dump of something', line({ method: 'config-dump', of: 'x' }), 'BAD_REQUEST', /unknown field "of"/],
];

for (const [title, request, code, message] of bad) {
  test(`refuses ${title} and says what is wrong`, (t) => {
    const error = t.throws(() => parseRequest(request), { instanceOf: AgentError });
    t.is(error?.code, code);
    t.regex(error?.message ?? '', message);
    t.true((error?.message.length ?? 0) < 400);
  });
}

test('reads a pod and leaves out what is not given', (t) => {
  t.deepEqual(parseRequest(enrol({})), { method: 'enrol', pod: pod() });
  t.deepEqual(pod().exclusions, { outboundPorts: [], outboundCidrs: [], inboundPorts: [], inboundCidrs: [] });
});

test('reads addresses into their canonical form', (t) => {
  t.deepEqual(pod({ addresses: ['::ffff:10.0.0.1', 'FD00:0::1'] }).addresses.map(String), ['10.0.0.1', 'fd00::1']);
});

test('reads exclusions as sets', (t) => {
  t.deepEqual(pod({ excludeOutboundPorts: [443, 25, 443] }), pod({ excludeOutboundPorts: [25, 443] }));
});

test('a pod survives its wire form', (t) => {
  const full = pod({
    addresses: ['10.0.0.1', 'fd00::1'],
    excludeOutboundPorts: [25],
    excludeOutboundCidrs: ['10.1.0.0/16', 'fd01::/64'],
    excludeInboundPorts: [9090],
    excludeInboundCidrs: ['192.0.2.0/24'],
  });
  t.deepEqual(parsePod(JSON.parse(JSON.stringify(encodePod(full)))), full);
});

test('a question asks for no explanation unless it says so', (t) => {
  const question = { method: 'policy-test', from: 'none', to: 'a/b:1' } as const;
  t.deepEqual(parseRequest(line(question)), { ...question, explain: false });
});

test('accepts a request of exactly the longest length', (t) => {
  const request = JSON.stringify({ method: 'status' });
  t.deepEqual(parseRequest(bytes(request.padEnd(MAX_REQUEST_BYTES))), { method: 'status' });
  t.throws(() => parseRequest(bytes(request.padEnd(MAX_REQUEST_BYTES + 1))), { message: /longer than/ });
});

test('an error reply carries its code, message, and the code of its cause', (t) => {
  const cause = Object.assign(new Error('no netns'), { code: 'NOT_A_NETNS' });
  const reply = encodeError(new AgentError('ENROL_FAILED', 'enrol a: prepare: no netns', { cause }));
  t.deepEqual(JSON.parse(reply), {
    ok: false,
    error: { code: 'ENROL_FAILED', message: 'enrol a: prepare: no netns', cause: 'NOT_A_NETNS' },
  });
  t.true(reply.endsWith('\n'));
});

test('an error that nobody foresaw is INTERNAL', (t) => {
  t.is(JSON.parse(encodeError(new TypeError('oops'))).error.code, 'INTERNAL');
  t.is(JSON.parse(encodeError('thrown text')).error.message, 'thrown text');
});

test('a caller gets the reply, or the very error', (t) => {
  const reply = encodeReply({ ok: true, result: 'enrolled', netnsCookie: '7' });
  t.deepEqual(parseReply('enrol', bytes(reply)), { ok: true, result: 'enrolled', netnsCookie: '7' });
  const refused = bytes(encodeError(new AgentError('NETNS_TAKEN', 'taken')));
  t.like(
    t.throws(() => parseReply('enrol', refused)),
    { code: 'NETNS_TAKEN', message: 'taken' },
  );
  t.like(
    t.throws(() => parseReply('enrol', bytes('{"ok":true}'))),
    { code: 'BAD_REPLY' },
  );
  t.like(
    t.throws(() => parseReply('enrol', bytes('hello'))),
    { code: 'BAD_REPLY' },
  );
});
