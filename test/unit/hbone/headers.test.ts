import test from 'ava';
import {
  type Authority,
  baggageOf,
  connectHeaders,
  type Forwarded,
  forwardedOf,
  headerValues,
  newTraceparent,
  parseAuthority,
  parseBaggage,
  parseForwarded,
  traceIdOf,
} from '../../../src/hbone/index.ts';
import type { Address, Endpoint, Workload } from '../../../src/mesh/index.ts';
import { workload } from '../../contract/fakes/mesh.ts';

const at = (address: string, port: number): Endpoint => ({ address: address as Address, port });

const CART: Partial<Workload> = {
  workloadName: 'cart-v1',
  canonicalName: 'cart',
  canonicalRevision: 'v1',
  locality: { region: 'region-a', zone: 'zone-b', subzone: 'rack-c' },
};

const BAGGAGE: ReadonlyArray<readonly [title: string, workload: Partial<Workload>, text: string]> = [
  [
    'everything, in the order of the contract',
    {},
    'k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=cart-v1,service.name=cart,service.version=v1,' +
      'cloud.region=region-a,cloud.availability_zone=zone-b',
  ],
  [
    'the kind of workload in the key',
    { workloadType: 'deployment', clusterId: '', canonicalName: '', canonicalRevision: '' },
    'k8s.namespace.name=shop,k8s.deployment.name=cart-v1,cloud.region=region-a,cloud.availability_zone=zone-b',
  ],
  [
    'nothing of what is empty',
    { clusterId: '', workloadName: '', canonicalRevision: '', locality: { region: '', zone: '', subzone: 'rack-1' } },
    'k8s.namespace.name=shop,service.name=cart',
  ],
  [
    'nothing of what cannot be sent',
    { clusterId: 'a,service.name=admin', canonicalName: 'a\r\nx: y', canonicalRevision: 'ä', workloadName: 'a b' },
    'k8s.namespace.name=shop,cloud.region=region-a,cloud.availability_zone=zone-b',
  ],
  [
    'nothing at all, if nothing is known',
    {
      clusterId: '',
      namespace: '',
      workloadName: '',
      canonicalName: '',
      canonicalRevision: '',
      locality: { region: '', zone: '', subzone: '' },
    },
    '',
  ],
];

for (const [title, changes, text] of BAGGAGE)
  test(`baggage says ${title}`, (t) => {
    const of = workload({ ...CART, ...changes });
    t.is(baggageOf(of), text);
    t.is(baggageOf(of), text, 'and the same when asked again');
  });

const PARSED_BAGGAGE: ReadonlyArray<readonly [title: string, values: readonly string[], baggage: object]> = [
  [
    'what was written',
    [baggageOf(workload(CART))],
    {
      clusterId: 'Kubernetes',
      namespace: 'shop',
      workloadType: 'pod',
      workloadName: 'cart-v1',
      canonicalName: 'cart',
      canonicalRevision: 'v1',
      region: 'region-a',
      zone: 'zone-b',
    },
  ],
  ['several lines', ['k8s.namespace.name=a', 'service.name=b'], { namespace: 'a', canonicalName: 'b' }],
  [
    'the last of several kinds of workload',
    ['k8s.deployment.name=a,k8s.job.name=b,k8s.cronjob.name=c'],
    { workloadType: 'cronjob', workloadName: 'c' },
  ],
  ['what lies between the first two equals signs', ['service.name=a=b=c'], { canonicalName: 'a' }],
  ['nothing of unknown keys', ['k8s.node.name=a,,=,x,service.name,=b'], {}],
  ['nothing of empty values', ['service.name=,service.version=v1'], { canonicalRevision: 'v1' }],
  ['nothing of endless values', [`service.name=${'a'.repeat(300)}`], {}],
  ['nothing beyond its bound', [`${','.repeat(9000)}service.name=a`, 'service.name=b'], {}],
  ['nothing of nothing', [], {}],
  ['no property that is none of its own', ['__proto__=a,constructor=b'], {}],
];

for (const [title, values, baggage] of PARSED_BAGGAGE)
  test(`of baggage is read: ${title}`, (t) => t.deepEqual(parseBaggage(values), baggage));

test('forwarded quotes the client and not the service', (t) => {
  t.is(forwardedOf(at('10.0.0.1', 1234)), 'for="10.0.0.1:1234"');
  t.is(forwardedOf(at('fd00::1', 1), 'cart.shop.svc'), 'for="[fd00::1]:1";host=cart.shop.svc');
  t.is(forwardedOf(at('10.0.0.1', 1), 'a\r\nb'), 'for="10.0.0.1:1"');
});

const FORWARDED: ReadonlyArray<readonly [text: string, forwarded: Forwarded]> = [
  ['for="10.0.0.1:1234"', { for: at('10.0.0.1', 1234) }],
  ['for="[fd00::1]:80";host=cart.shop.svc', { for: at('fd00::1', 80), host: 'cart.shop.svc' }],
  ['host=Cart.Shop.svc;for="10.0.0.1:1"', { for: at('10.0.0.1', 1), host: 'cart.shop.svc' }],
  ['For=10.0.0.1 ; HOST="a.b"', { host: 'a.b' }],
  ['by=x;proto=https;host=a', { host: 'a' }],
  ['for="10.0.0.1:1", for="10.0.0.2:2";host=b', { for: at('10.0.0.1', 1) }],
  ['host=a;host=b', { host: 'a' }],
  ['for="10.0.0.1:\\1"', { for: at('10.0.0.1', 1) }],
  ['for="10.0.0.1:0"', {}],
  ['for=unknown;host=', {}],
  ['for="_hidden:12";host=a', { host: 'a' }],
  ['host=a b', {}],
  ['for="10.0.0.1:1', {}],
  ['', {}],
  [';;;', {}],
  [`host=${'a'.repeat(2000)}`, {}],
  [`for="${'\\'.repeat(1000)}`, {}],
];

for (const [text, forwarded] of FORWARDED)
  test(`forwarded is read: ${text.slice(0, 60)}`, (t) => t.deepEqual(parseForwarded(text), forwarded));

const AUTHORITIES: ReadonlyArray<readonly [text: string, authority: Authority | undefined]> = [
  ['10.0.0.1:80', { kind: 'address', endpoint: at('10.0.0.1', 80) }],
  ['[fd00::1]:65535', { kind: 'address', endpoint: at('fd00::1', 65535) }],
  ['[::ffff:10.0.0.1]:80', { kind: 'address', endpoint: at('10.0.0.1', 80) }],
  ['cart.shop.svc.cluster.local:80', { kind: 'hostname', hostname: 'cart.shop.svc.cluster.local', port: 80 }],
  ['Cart:80', { kind: 'hostname', hostname: 'cart', port: 80 }],
  [`${'a'.repeat(63)}.b:1`, { kind: 'hostname', hostname: `${'a'.repeat(63)}.b`, port: 1 }],
  ['10.0.0.1', undefined],
  ['cart', undefined],
  ['cart:', undefined],
  [':80', undefined],
  ['', undefined],
  [':', undefined],
  ['cart:0', undefined],
  ['cart:65536', undefined],
  ['cart:080', undefined],
  ['cart:+80', undefined],
  ['cart:80 ', undefined],
  ['cart:8e1', undefined],
  ['fd00::1:80', undefined],
  ['fd00::1', undefined],
  ['[fd00::1]', undefined],
  ['[fd00::1]80', undefined],
  ['[fd00::1:80', undefined],
  ['fd00::1]:80', undefined],
  ['[fe80::1%eth0]:80', undefined],
  ['[10.0.0.1]:80', undefined],
  ['[]:80', undefined],
  ['[[::1]]:80', undefined],
  ['300.0.0.1:80', undefined],
  ['10.0.0:80', undefined],
  ['0x7f000001:80', { kind: 'hostname', hostname: '0x7f000001', port: 80 }],
  ['user@cart:80', undefined],
  ['cart..shop:80', undefined],
  ['cart.:80', undefined],
  ['.cart:80', undefined],
  ['ca rt:80', undefined],
  ['cärt:80', undefined],
  ['cart\0:80', undefined],
  ['http://cart:80', undefined],
  ['*.shop:80', undefined],
  [`${'a'.repeat(64)}:80`, undefined],
  [`${'a.'.repeat(126)}aa:80`, undefined],
  [`${'a'.repeat(1_000_000)}:80`, undefined],
];

for (const [text, authority] of AUTHORITIES)
  test(`authority is read: ${JSON.stringify(text.slice(0, 70))}`, (t) => t.deepEqual(parseAuthority(text), authority));

test('a traceparent is well formed and never the same', (t) => {
  const many = Array.from({ length: 1000 }, newTraceparent);
  t.is(new Set(many).size, many.length);
  for (const each of many) t.regex(each, /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
});

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';

for (const [text, want] of [
  [`00-${TRACE}-00f067aa0ba902b7-01`, TRACE],
  [`01-${TRACE}-00f067aa0ba902b7-01-what-is-yet-to-come`, TRACE],
  [`ff-${TRACE}-00f067aa0ba902b7-01`, undefined],
  [`00-${TRACE.toUpperCase()}-00f067aa0ba902b7-01`, undefined],
  [`00-${'0'.repeat(32)}-00f067aa0ba902b7-01`, undefined],
  [`00-${TRACE.slice(1)}-00f067aa0ba902b7-01`, undefined],
  ['', undefined],
] as const)
  test(`the trace id of ${JSON.stringify(text)}`, (t) => t.is(traceIdOf(text), want));

test('a CONNECT is known by the name that it is given', (t) => {
  const traceparent = newTraceparent();
  const headers = connectHeaders({ source: workload(CART), client: at('10.0.0.1', 9), traceparent });
  t.deepEqual(headerValues(headers, 'traceparent'), [traceparent]);
});

test('a CONNECT says whose it is, whom it is for, and nothing else', (t) => {
  const source = workload(CART);
  const headers = connectHeaders({ source, client: at('10.0.0.1', 9), serviceHostname: 'cart.shop.svc' });
  t.deepEqual(
    headers.map(([name]) => name),
    ['baggage', 'forwarded', 'traceparent'],
  );
  t.deepEqual(headerValues(headers, 'baggage'), [baggageOf(source)]);
  t.deepEqual(headerValues(headers, 'forwarded'), ['for="10.0.0.1:9";host=cart.shop.svc']);
  t.deepEqual(headerValues(headers, 'x-istio-source'), []);
});

test('no mutation of an input makes a parser throw or give what is out of bounds', (t) => {
  const samples = [...AUTHORITIES, ...FORWARDED].map(([text]) => text.slice(0, 200)).concat(baggageOf(workload(CART)));
  const alphabet = '\0\t "%,-.:;=[\\]09afAFz\u00e4\ud83d';
  let state = 1;
  const random = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * below);
  };
  for (let time = 0; time < 20_000; time += 1) {
    const sample = samples[random(samples.length)] ?? '';
    const at = random(sample.length + 1);
    const text = sample.slice(0, at) + alphabet.charAt(random(alphabet.length)) + sample.slice(at + random(3));
    const authority = parseAuthority(text);
    const port = authority?.kind === 'address' ? authority.endpoint.port : authority?.port;
    if (port !== undefined && !(port >= 1 && port <= 65535)) t.fail(text);
    parseForwarded(text);
    parseBaggage([text, text]);
  }
  t.pass();
});
