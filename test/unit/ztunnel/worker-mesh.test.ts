import { closeSync, fstatSync, openSync } from 'node:fs';
import test from 'ava';
import { HBONE_ERROR_CODES, HboneError, type HboneErrorCode } from '../../../src/hbone/index.ts';
import { type Certificate, DEFAULT_SETTINGS, type NetnsCookie, type SpiffeId } from '../../../src/mesh/index.ts';
import { WorkerCertificates } from '../../../src/ztunnel/certificates.ts';
import { type EndReason, failureOfTunnel, ZtunnelError } from '../../../src/ztunnel/errors.ts';
import { Namespaces } from '../../../src/ztunnel/namespaces.ts';
import { NodeView } from '../../../src/ztunnel/node-view.ts';
import { type LogLine, WorkerLog } from '../../../src/ztunnel/worker-log.ts';
import { workload } from './mesh.ts';

const identity = 'spiffe://cluster.local/ns/shop/sa/cart' as SpiffeId;
const certificate = { identity } as Certificate;

function certificates(options: { waitMs?: number; unavailableMs?: number } = {}): {
  wanted: SpiffeId[];
  it: WorkerCertificates;
} {
  const wanted: SpiffeId[] = [];
  const want = (of: SpiffeId): void => void wanted.push(of);
  return { wanted, it: new WorkerCertificates({ want }, options) };
}

test('a certificate that is there is given without asking', async (t) => {
  const { wanted, it } = certificates();
  it.apply({ kind: 'issued', certificate });
  t.is(await it.certificate(identity), certificate);
  t.deepEqual(wanted, []);
});

test('all who wait for a certificate ask once, and get it together', async (t) => {
  const { wanted, it } = certificates();
  const waiting = [it.certificate(identity), it.certificate(identity)];
  t.deepEqual(wanted, [identity]);
  it.apply({ kind: 'issued', certificate });
  t.deepEqual(await Promise.all(waiting), [certificate, certificate]);
});

for (const change of [
  { kind: 'unavailable', identity, reason: 'the CA says no' },
  { kind: 'forgotten', identity },
] as const)
  test(`whoever waits for a certificate learns at once that it is ${change.kind}`, async (t) => {
    const { wanted, it } = certificates({ unavailableMs: 0 });
    it.apply({ kind: 'issued', certificate });
    it.apply(change);
    const waiting = it.certificate(identity);
    it.apply(change);
    await t.throwsAsync(waiting, { instanceOf: HboneError, code: 'IDENTITY_UNAVAILABLE' });
    t.is(wanted.length, 1);
  });

test('a certificate that could not be had a moment ago is not asked for again, unless it has been had since', async (t) => {
  const { wanted, it } = certificates({ unavailableMs: 1_000_000 });
  const waiting = it.certificate(identity);
  it.apply({ kind: 'unavailable', identity, reason: 'the CA says no' });
  await t.throwsAsync(waiting, { message: /the CA says no/ });
  await t.throwsAsync(it.certificate(identity), { code: 'IDENTITY_UNAVAILABLE', message: /the CA says no/ });
  t.is(wanted.length, 1);
  it.apply({ kind: 'issued', certificate });
  t.is(await it.certificate(identity), certificate);
  it.apply({ kind: 'forgotten', identity });
  const again = it.certificate(identity);
  t.is(wanted.length, 2);
  it.apply({ kind: 'issued', certificate });
  t.is(await again, certificate);
});

test('nobody waits for a certificate for ever', async (t) => {
  // The wait itself keeps no process alive.
  const alive = setInterval(() => undefined, 1000);
  t.teardown(() => clearInterval(alive));
  const { wanted, it } = certificates({ waitMs: 1 });
  await t.throwsAsync(it.certificate(identity), { code: 'IDENTITY_UNAVAILABLE' });
  await t.throwsAsync(it.certificate(identity), { code: 'IDENTITY_UNAVAILABLE' });
  t.is(wanted.length, 2);
});

const update = {
  complete: false,
  workloads: [],
  services: [],
  removed: [],
  policies: [],
  removedPolicies: [],
  settings: DEFAULT_SETTINGS,
};
const cart = workload('cart', { addresses: ['10.1.0.1'], node: 'n1' });

test("a pod's workload is known only when all of the mesh is", (t) => {
  const view = new NodeView('n1');
  const found: string[] = [];
  view.whenKnown(cart, ({ uid }) => found.push(uid));
  view.apply({ ...update, workloads: [cart] });
  t.is(view.workloadOf(cart), undefined);
  t.deepEqual(found, []);
  view.apply({ ...update, complete: true, workloads: [cart] });
  t.is(view.workloadOf(cart)?.uid, cart.uid);
  t.deepEqual(found, [cart.uid]);
});

test('a workload of another node, or of another service account, is not the pod', (t) => {
  const view = new NodeView('n2');
  view.apply({ ...update, complete: true, workloads: [cart] });
  t.is(view.workloadOf(cart), undefined);
  const here = new NodeView('n1');
  here.apply({ ...update, complete: true, workloads: [cart] });
  t.is(here.workloadOf({ ...cart, serviceAccount: 'other' }), undefined);
});

test('whoever no longer waits for a workload is not told', (t) => {
  const view = new NodeView('n1');
  const forget = view.whenKnown(cart, () => t.fail());
  forget();
  view.apply({ ...update, complete: true, workloads: [cart] });
  t.pass();
});

test('a worker says one kind of thing ten times a second, and then how often it did not', (t) => {
  const lines: LogLine[] = [];
  const log = new WorkerLog((line) => lines.push(line));
  for (let at = 0; at < 13; at += 1) log.warn('peer refused', { at });
  log.warn('connection failed', { error: 'x'.repeat(1000), 'dst.hbone_addr': undefined });
  t.is(lines.length, 11);
  t.deepEqual(lines[10]?.fields, { error: 'x'.repeat(512) });
  log.nextSecond();
  t.deepEqual(lines.slice(11), [{ level: 'warn', message: 'peer refused: more of them', fields: { count: 3 } }]);
  log.nextSecond();
  log.warn('peer refused', { at: 1 });
  t.is(lines.length, 13);
});

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    return false;
  }
}

test('a namespace is open while it is wanted or used, by whomever', (t) => {
  const namespaces = new Namespaces(() => openSync('/dev/null', 'r'));
  const cookie = 1n as NetnsCookie;
  const fd = namespaces.want(cookie, 0);
  t.is(namespaces.want(cookie, 0), fd);
  namespaces.use(cookie, 0);
  namespaces.use(cookie, 1);
  namespaces.leave(cookie, 0);
  namespaces.leave(cookie, 1);
  t.true(isOpen(fd));
  namespaces.use(cookie, 1);
  namespaces.forget(cookie);
  t.true(isOpen(fd));
  t.is(namespaces.want(cookie, 0), fd);
  namespaces.leave(cookie, 1);
  t.true(isOpen(fd));
  namespaces.forget(cookie);
  t.false(isOpen(fd));
  namespaces.forget(cookie);
  namespaces.leave(cookie, 1);
});

test('a namespace that cannot be duplicated is a want of descriptors', (t) => {
  const namespaces = new Namespaces(() => closeSync(-1) as never);
  t.throws(() => namespaces.want(1n as NetnsCookie, 0), { instanceOf: ZtunnelError, code: 'NO_DESCRIPTORS' });
});

/** What a failed attempt counts as, and whether another endpoint may be tried. */
const failures: ReadonlyArray<readonly [code: HboneErrorCode, reason: EndReason, another: boolean]> = [
  ['IDENTITY_UNAVAILABLE', 'tunnel-identity', false],
  ['CONNECT_FAILED', 'tunnel-unreachable', true],
  ['CONNECT_TIMED_OUT', 'tunnel-timed-out', true],
  ['TLS_FAILED', 'tunnel-tls', false],
  ['PEER_IDENTITY', 'tunnel-peer-identity', false],
  ['PEER_TRUST_DOMAIN', 'tunnel-peer-identity', false],
  ['PROTOCOL', 'tunnel-lost', false],
  ['EXCESS', 'tunnel-lost', false],
  ['STATUS', 'tunnel-refused', false],
  ['STREAM_RESET', 'tunnel-refused', false],
  ['STREAM_REFUSED', 'tunnel-refused', true],
  ['SESSION_LOST', 'tunnel-lost', true],
  ['PEER_SILENT', 'peer-silent', true],
  ['ANSWER_TIMED_OUT', 'tunnel-timed-out', true],
  ['CLOSED', 'tunnel-lost', false],
];

test('every code of hbone has a reason', (t) => {
  t.deepEqual(failures.map(([code]) => code).sort(), [...HBONE_ERROR_CODES].sort());
});

for (const [code, reason, another] of failures)
  test(`a tunnel that fails with ${code} counts as ${reason}${another ? ', and another endpoint may be tried' : ''}`, (t) => {
    t.like(failureOfTunnel(new HboneError(code, 'text')), { reason, isWorthAnother: another, text: 'text' });
  });

test('503 is of the endpoint, 401 of the request', (t) => {
  t.true(failureOfTunnel(new HboneError('STATUS', 'http status: 503', { status: 503 })).isWorthAnother);
  t.false(failureOfTunnel(new HboneError('STATUS', 'http status: 401', { status: 401 })).isWorthAnother);
});

test('a tunnel that cannot be opened for want of descriptors counts as that', (t) => {
  const cause = Object.assign(new Error('too many'), { code: 'EMFILE', syscall: 'socket' });
  t.like(failureOfTunnel(new HboneError('CONNECT_FAILED', 'text', { cause })), {
    reason: 'no-descriptors',
    isWorthAnother: false,
  });
});
