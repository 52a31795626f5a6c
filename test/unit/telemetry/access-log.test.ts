import test from 'ava';
import type { Address, FlowRecord, NetnsCookie, PolicyName } from '../../../src/mesh/index.ts';
import { AccessLog, type AccessLogOptions } from '../../../src/telemetry/index.ts';
import { flowRecord, party } from './flow-records.ts';

function logTo(options: AccessLogOptions = {}) {
  const lines: string[] = [];
  const counts = () => ({ written: lines.length, dropped: 0, failed: 0 });
  const log = new AccessLog({ writer: { write: (line) => void lines.push(line), counts } }, options);
  return { log, lines, read: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

const denied = {
  ended: 'policy-denied',
  error: 'connection closed due to policy rejection',
  stage: 'addressed',
  decision: { allowed: false, reason: 'denied', policy: 'store/no-web' as PolicyName, text: 'denied by store/no-web' },
} satisfies Partial<FlowRecord>;

test('a line has the fields of the contract in its order, then our own', (t) => {
  const { log, lines, read } = logTo();
  log.add([flowRecord()]);
  t.true(lines[0]?.endsWith('\n'));
  t.deepEqual(Object.entries(read()[0] ?? {}), [
    ['level', 'info'],
    ['time', '2026-01-02T03:04:05.678000Z'],
    ['scope', 'access'],
    ['message', 'connection complete'],
    ['src.addr', '10.0.0.1:40000'],
    ['src.workload', 'web-1'],
    ['src.namespace', 'shop'],
    ['src.identity', 'spiffe://cluster.local/ns/shop/sa/web'],
    ['src.cluster', 'Kubernetes'],
    ['dst.addr', '10.0.1.1:15008'],
    ['dst.hbone_addr', '10.0.1.1:8080'],
    ['dst.service', 'cart.store.svc.cluster.local'],
    ['dst.workload', 'cart-1'],
    ['dst.namespace', 'store'],
    ['dst.identity', 'spiffe://cluster.local/ns/store/sa/cart'],
    ['dst.cluster', 'Kubernetes'],
    ['direction', 'outbound'],
    ['bytes_sent', 100],
    ['bytes_recv', 2000],
    ['duration', '12ms'],
    ['path', 'tunnel'],
    ['flow_id', '0123456789abcdef0123456789abcdef'],
    ['round_trip_us', 250],
    ['retransmits', 0],
  ]);
});

test('bytes are those that the reporting pod has sent and received', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ direction: 'inbound' })]);
  t.like(read()[0], { direction: 'inbound', bytes_sent: 2000, bytes_recv: 100 });
});

test('a connection that fails after it is known where it goes is complete, at level error, with text, reason and policy', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord(denied)]);
  t.like(read()[0], {
    level: 'error',
    message: 'connection complete',
    error: 'connection closed due to policy rejection',
    reason: 'policy-denied',
    policy: 'store/no-web',
    response_flags: 'DENY',
  });
});

test('where nobody wrote a text the reason is the error', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ ended: 'reset-by-server' })]);
  t.like(read()[0], { level: 'error', error: 'reset-by-server', reason: 'reset-by-server', response_flags: 'CONNECT' });
});

test('a policy is only named where it has ended the connection', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ ...denied, ended: 'dial-refused', error: undefined })]);
  t.false('policy' in (read()[0] ?? {}));
});

test('an early end is a warning with four fields of the contract, and says no more than is known', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ stage: 'early', ended: 'no-endpoint', error: 'no healthy upstream: cart' })]);
  t.deepEqual(Object.entries(read()[0] ?? {}).slice(3), [
    ['message', 'connection failed'],
    ['src.addr', '10.0.0.1:40000'],
    ['dst.addr', '10.0.1.1:15008'],
    ['direction', 'outbound'],
    ['error', 'no healthy upstream: cart'],
    ['reason', 'no-endpoint'],
    ['flow_id', '0123456789abcdef0123456789abcdef'],
  ]);
  t.is(read()[0]?.level, 'warn');
});

test('what is not known is left out', (t) => {
  const { log, read } = logTo();
  const unknown = { source: undefined, sourceIdentity: undefined, client: undefined, service: undefined };
  log.add([flowRecord({ ...unknown, authority: undefined, roundTripUs: undefined })]);
  const [line = {}] = read();
  for (const name of [
    'src.addr',
    'src.workload',
    'src.identity',
    'dst.service',
    'dst.hbone_addr',
    'round_trip_us',
    'error',
  ])
    t.false(name in line, name);
});

test('more is said where there is more to say', (t) => {
  const { log, read } = logTo();
  log.add([
    flowRecord({
      waypoint: 'shop/gate',
      attempts: 3,
      kind: 'local',
      dryRun: [
        { policy: 'store/try' as PolicyName, would: 'deny' },
        { policy: 'store/open' as PolicyName, would: 'allow' },
      ],
    }),
  ]);
  t.like(read()[0], { waypoint: 'shop/gate', attempts: 3, flow: 'local', dry_run: 'store/try deny' });
});

test('a text that a peer chooses is cut', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ authority: 'a'.repeat(5000), source: { ...party('web'), workload: 'w'.repeat(5000) } })]);
  t.is(`${read()[0]?.['dst.hbone_addr']}`.length, 512);
  t.is(`${read()[0]?.['src.workload']}`.length, 512);
});

test('text is the line of the contract: tabs, then fields, texts quoted and addresses not', (t) => {
  const { log, lines } = logTo({ format: 'text' });
  log.add([
    flowRecord({ ended: 'reset-by-server', error: 'say "no"\n', roundTripUs: undefined, retransmits: undefined }),
  ]);
  t.deepEqual(lines, [
    '2026-01-02T03:04:05.678000Z\terror\taccess\tconnection complete\t' +
      'src.addr=10.0.0.1:40000 src.workload="web-1" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="Kubernetes" ' +
      'dst.addr=10.0.1.1:15008 dst.hbone_addr=10.0.1.1:8080 dst.service="cart.store.svc.cluster.local" dst.workload="cart-1" dst.namespace="store" ' +
      'dst.identity="spiffe://cluster.local/ns/store/sa/cart" dst.cluster="Kubernetes" direction="outbound" bytes_sent=100 bytes_recv=2000 duration="12ms" ' +
      'error="say \\"no\\"\\n" path="tunnel" reason="reset-by-server" flow_id="0123456789abcdef0123456789abcdef" response_flags="CONNECT"\n',
  ]);
});

test('a mode says which connections have a line, and a namespace may have another', (t) => {
  const pods = { shop: flowRecord(), store: flowRecord({ direction: 'inbound' }) };
  const failed = { ...pods.shop, ended: 'reset-by-client' };
  const said = (options: AccessLogOptions): number => {
    const { log, lines } = logTo(options);
    log.add([pods.shop, pods.store, failed]);
    return lines.length;
  };
  t.is(said({}), 3);
  t.is(said({ mode: 'errors' }), 1);
  t.is(said({ mode: 'off' }), 0);
  t.is(said({ namespaces: new Map([['shop', 'off']]) }), 1, 'of shop there are two');
  t.is(said({ mode: 'off', namespaces: new Map([['store', 'all']]) }), 1);
});

test('of clean ends a share is said, the same ones by both agents, and the rest is counted', (t) => {
  const { log, read } = logTo({ sample: 0.25 });
  const other = logTo({ sample: 0.25 });
  const ids = Array.from({ length: 4000 }, (_, index) => index.toString(16).padStart(32, '0'));
  log.add(ids.map((id) => flowRecord({ id })));
  other.log.add(ids.map((id) => flowRecord({ id, direction: 'inbound' })));
  const said = read().map(({ flow_id }) => flow_id);
  t.true(said.length > 800 && said.length < 1200, `${said.length}`);
  t.deepEqual(
    other.read().map(({ flow_id }) => flow_id),
    said,
  );
  t.is(log.counts()['sampled-out'], 4000 - said.length);
});

test('clean ends have so many lines in a second and no more, and the rest is counted', (t) => {
  const { log, lines } = logTo({ rate: 3 });
  log.add(Array.from({ length: 5 }, () => flowRecord()));
  t.is(lines.length, 3);
  t.is(log.counts()['rate-limited'], 2);
  log.sweep();
  log.add([flowRecord()]);
  t.is(lines.length, 4);
});

test('failures are never sampled', (t) => {
  const { log, lines } = logTo({ sample: 0 });
  log.add([flowRecord({ ended: 'dial-refused' })]);
  t.is(lines.length, 1);
});

test('a failure that repeats is said once, then once a second with how many it stands for', (t) => {
  const { log, read } = logTo();
  const refused = flowRecord({ ended: 'dial-refused' });
  log.add(Array.from({ length: 10 }, () => refused));
  t.is(read().length, 1);
  log.sweep(performance.now() + 1001);
  t.is(read().length, 2);
  t.is(read()[1]?.repeated, 8);
  t.like(log.counts(), { written: 2, 'rate-limited': 8 });
});

test('failures of another pod, client, destination or reason are said apart', (t) => {
  const { log, read } = logTo();
  const refused = flowRecord({ ended: 'dial-refused' });
  log.add([
    refused,
    { ...refused, pod: 8n as NetnsCookie },
    { ...refused, asked: { address: '10.96.0.2' as Address, port: 80 } },
    { ...refused, ended: 'dial-timed-out' },
    { ...refused, source: party('batch') },
    { ...refused, source: undefined },
    { ...refused, client: undefined, source: undefined },
  ]);
  t.is(read().length, 7);
});

test('what was kept back is said at the end', (t) => {
  const { log, read } = logTo();
  log.add([flowRecord({ ended: 'dial-refused' }), flowRecord({ ended: 'dial-refused' })]);
  log.flush();
  t.is(read().length, 2);
  t.false('repeated' in (read()[1] ?? {}), 'it stands for itself');
});

test('kinds of failures are bounded: beyond, they are said as one', (t) => {
  const { log, read } = logTo();
  const record = (port: number): FlowRecord =>
    flowRecord({ ended: 'dial-refused', asked: { address: '10.96.0.2' as Address, port } });
  log.add(Array.from({ length: 10_000 }, (_, port) => record(port)));
  t.is(read().length, 257);
  t.is(log.counts()['rate-limited'], 0);
  log.flush();
  t.is(log.counts()['rate-limited'] + read().length, 10_000);
});

test('a pod that fails everywhere hides neither the failures of others nor its own of another reason', (t) => {
  const { log, read } = logTo();
  const record = (port: number, changes: Partial<FlowRecord> = {}): FlowRecord =>
    flowRecord({ ended: 'dial-refused', asked: { address: '10.96.0.2' as Address, port }, ...changes });
  log.add(Array.from({ length: 10_000 }, (_, port) => record(port)));
  const before = read().length;
  const other = 8n as NetnsCookie;
  log.add([record(1, { pod: other }), record(2, { pod: other }), record(1, denied)]);
  t.is(read().length, before + 3);
  t.is(read().at(-1)?.reason, 'policy-denied');
});

test('what has stopped failing makes room', (t) => {
  const { log, read } = logTo();
  const record = (port: number): FlowRecord =>
    flowRecord({ ended: 'dial-refused', asked: { address: '10.96.0.2' as Address, port } });
  for (const round of [0, 1]) {
    log.add(Array.from({ length: 256 }, (_, index) => record(round * 256 + index)));
    log.sweep(performance.now() + 1001);
  }
  t.is(read().length, 512);
  t.is(log.counts()['rate-limited'], 0);
});

test('an opening is said at level debug, up to the direction', (t) => {
  const { log, read } = logTo();
  log.opened(flowRecord(), 'abc', 0);
  const [line = {}] = read();
  t.like(line, { level: 'debug', message: 'connection opened', direction: 'outbound', path: 'tunnel', flow_id: 'abc' });
  for (const name of ['bytes_sent', 'duration', 'error']) t.false(name in line, name);
});
