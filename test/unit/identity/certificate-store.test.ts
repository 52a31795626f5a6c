import { createPrivateKey, X509Certificate } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { CertificateStore, type CertificateStoreOptions, IdentityError } from '../../../src/identity/index.ts';
import type { CertificateChange, SpiffeId } from '../../../src/mesh/index.ts';
import { FakeAuthority } from '../../contract/fakes/certificate-authority.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';
import { makeAuthority } from '../../pki.ts';
import { CART, Changes, recordedLog, STRANGER, WEB } from './fixture.ts';

const SECOND = 1000;
const DAY = 86_400 * SECOND;

const unreachable = (more = '') => new IdentityError('CA_UNREACHABLE', `nobody answers${more}`);

async function setUp(t: ExecutionContext, options: CertificateStoreOptions = {}) {
  // Certificates know whole seconds only.
  const clock = new FakeClock(Math.floor(Date.now() / SECOND) * SECOND);
  const validity = { notBefore: clock.now() - DAY, notAfter: clock.now() + 100 * DAY };
  const makeIssuer = () => makeAuthority(validity);
  const authority = new FakeAuthority(await makeIssuer(), () => clock.now());
  const { log, lines } = recordedLog();
  const store = new CertificateStore({ authority, clock, log, random: () => 0.5 }, options);
  t.teardown(() => store.close());
  const changes = new Changes();
  store.onChange(changes.listener);
  const said = (level: string) => lines.filter((line) => line.level === level).map(({ message }) => message);
  return { clock, authority, store, changes, said, makeIssuer };
}

type Subject = Awaited<ReturnType<typeof setUp>>;

/** A store that has a certificate for WEB. */
async function withCertificate(t: ExecutionContext, options: CertificateStoreOptions = {}) {
  const subject = await setUp(t, options);
  subject.store.want(new Set([WEB]));
  return { ...subject, first: certificateIn(t, await subject.changes.next()) };
}

function certificateIn(t: ExecutionContext, change: CertificateChange) {
  if (change.kind !== 'issued') return t.fail(`${change.kind} instead of issued`) as never;
  return change.certificate;
}

/** The state of the only identity. */
function stateOf({ store }: Pick<Subject, 'store'>) {
  return store.status()[0]?.state;
}

/** Fails the next attempt, and waits until the store has taken notice. */
async function failOnce(subject: Subject, advanceMs: number, error: Error = unreachable()) {
  const { authority, clock, store } = subject;
  const before = authority.requests.length;
  authority.fail(error);
  clock.advance(advanceMs);
  await authority.asked(before + 1);
  while (store.status()[0]?.lastError !== error.message) await new Promise(setImmediate);
}

// --- asking -------------------------------------------------------------------------------------------------------------

test('asks for a certificate for every identity that is wanted, and announces it with its key and roots', async (t) => {
  const { authority, store, changes } = await setUp(t);
  store.want(new Set([WEB, CART]));
  t.is(stateOf({ store }), 'initializing');
  const certificates = [await changes.next(), await changes.next()].map((change) => certificateIn(t, change));
  t.deepEqual(certificates.map(({ identity }) => identity).sort(), [CART, WEB]);
  for (const { chain, key, roots } of certificates) {
    t.true(new X509Certificate(chain).checkPrivateKey(createPrivateKey(key)));
    t.is(chain.match(/BEGIN CERTIFICATE/g)?.length, 2);
    t.deepEqual(roots, [`${authority.issuer.root}\n`]);
  }
  t.deepEqual(
    authority.requests.map(({ validitySeconds }) => validitySeconds),
    [86_400, 86_400],
  );
});

test('asks once, however often an identity is wanted', async (t) => {
  const { authority, store, changes } = await setUp(t);
  store.want(new Set([WEB]));
  store.want(new Set([WEB]));
  await changes.next();
  store.want(new Set([WEB]));
  t.is(authority.requests.length, 1);
});

test('has no more than eight requests in flight', async (t) => {
  const { authority, store, changes } = await setUp(t);
  const release = authority.hold();
  store.want(new Set(Array.from({ length: 20 }, (_, at) => `spiffe://cluster.local/ns/shop/sa/s${at}` as SpiffeId)));
  await authority.asked(8);
  for (let turn = 0; turn < 20; turn += 1) await new Promise(setImmediate);
  t.is(authority.requests.length, 8);
  release();
  for (let at = 0; at < 20; at += 1) await changes.next();
  t.is(authority.requests.length, 20);
});

test('what a connection waits for goes first', async (t) => {
  const { authority, store } = await setUp(t, { maxInFlight: 1 });
  const release = authority.hold();
  store.want(new Set([STRANGER, CART, WEB]));
  await authority.asked(1);
  store.request(WEB);
  release();
  await authority.asked(3);
  t.deepEqual(
    authority.requests.map(({ identity }) => identity),
    [STRANGER, WEB, CART],
  );
});

test('answers a request at once when the outcome is known', async (t) => {
  const subject = await withCertificate(t);
  const { store, changes, first, authority } = subject;
  store.request(WEB);
  t.deepEqual(await changes.next(), { kind: 'issued', certificate: first });
  store.request(STRANGER);
  t.deepEqual(await changes.next(), { kind: 'forgotten', identity: STRANGER });
  authority.fail(unreachable());
  store.want(new Set([CART]));
  t.deepEqual(await changes.next(), { kind: 'forgotten', identity: WEB });
  const unavailable = { kind: 'unavailable', identity: CART, reason: 'nobody answers' } as const;
  t.deepEqual(await changes.next(), unavailable);
  store.request(CART);
  t.deepEqual(await changes.next(), unavailable);
});

test('tells a newcomer what is there and what is not', async (t) => {
  const { store, changes, authority, first } = await withCertificate(t);
  authority.refused.add(STRANGER);
  const release = authority.hold();
  store.want(new Set([WEB, STRANGER, CART]));
  t.deepEqual(store.current(), [{ kind: 'issued', certificate: first }]);
  release();
  await changes.next();
  await changes.next();
  t.deepEqual(
    store
      .current()
      .map(({ kind }) => kind)
      .sort(),
    ['issued', 'issued', 'unavailable'],
  );
});

// --- forgetting ---------------------------------------------------------------------------------------------------------

test('forgets what is wanted no longer, with all its timers', async (t) => {
  const { clock, store, changes } = await withCertificate(t);
  store.want(new Set());
  t.deepEqual(await changes.next(), { kind: 'forgotten', identity: WEB });
  t.deepEqual(store.status(), []);
  t.is(clock.timers, 0);
});

test('an answer for a forgotten identity changes nothing', async (t) => {
  const { authority, store, changes } = await setUp(t);
  const release = authority.hold();
  store.want(new Set([WEB]));
  await authority.asked(1);
  store.want(new Set());
  store.want(new Set([WEB]));
  release();
  t.is((await changes.next()).kind, 'forgotten');
  await changes.next();
  t.is(authority.requests.length, 2);
  t.is(changes.left, 0);
});

test('a closed store asks for nothing and holds no timer', async (t) => {
  const { clock, store, authority } = await withCertificate(t);
  store.close();
  store.close();
  t.is(clock.timers, 0);
  clock.advance(DAY);
  t.is(authority.requests.length, 1);
  t.deepEqual(store.current(), []);
});

// --- renewing -----------------------------------------------------------------------------------------------------------

test('renews at half of the life, with a new key, and serves the old one meanwhile', async (t) => {
  const subject = await withCertificate(t);
  const { clock, authority, store, changes, first } = subject;
  clock.advance(DAY / 2 - 1);
  t.is(stateOf(subject), 'available');
  const release = authority.hold();
  clock.advance(1);
  t.is(stateOf(subject), 'renewing');
  t.deepEqual(store.current(), [{ kind: 'issued', certificate: first }]);
  release();
  const second = certificateIn(t, await changes.next());
  t.not(second.key, first.key);
  t.is(second.notAfter, first.notAfter + DAY / 2);
  t.is(stateOf(subject), 'available');
});

test('goes on renewing for as long as it is wanted', async (t) => {
  const { clock, changes } = await withCertificate(t);
  for (let day = 0; day < 10; day += 1) {
    clock.advance(DAY / 2);
    t.is((await changes.next()).kind, 'issued');
  }
});

test('a renewal that fails leaves the certificate in service, and is tried again', async (t) => {
  const subject = await withCertificate(t);
  const { clock, store, changes, first } = subject;
  await failOnce(subject, DAY / 2);
  t.is(stateOf(subject), 'renewing');
  t.deepEqual(store.current(), [{ kind: 'issued', certificate: first }]);
  clock.advance(SECOND);
  t.is((await changes.next()).kind, 'issued');
  t.is(store.status()[0]?.lastError, undefined);
  t.is(changes.left, 0);
});

test('waits longer after each failure, up to 150 s, and begins anew after a success', async (t) => {
  const subject = await withCertificate(t);
  const { clock, changes, authority } = subject;
  await failOnce(subject, DAY / 2);
  let wait = SECOND;
  for (let failures = 2; failures <= 10; failures += 1) {
    const asked = authority.requests.length;
    clock.advance(wait - 1);
    t.is(authority.requests.length, asked);
    await failOnce(subject, 1, new IdentityError('CA_UNREACHABLE', `failure ${failures}`));
    wait = Math.min(wait * 2, 150 * SECOND);
  }
  t.is(wait, 150 * SECOND);
  clock.advance(wait);
  certificateIn(t, await changes.next());
  await failOnce(subject, DAY / 2);
  clock.advance(SECOND);
  t.is((await changes.next()).kind, 'issued');
});

test('tries once more at the latest when the certificate expires', async (t) => {
  const subject = await withCertificate(t, { validitySeconds: 10 });
  const { clock, authority, changes } = subject;
  // Failures at 5, 6 and 8 s; the next wait, 4 s, would end at 12 s.
  for (const wait of [5, 1, 2])
    await failOnce(subject, wait * SECOND, new IdentityError('CA_UNREACHABLE', `after ${wait}`));
  clock.advance(2 * SECOND);
  await authority.asked(5);
  t.is((await changes.next()).kind, 'unavailable');
  t.is((await changes.next()).kind, 'issued');
});

test('says nothing alarming while there is time, warns once in the last quarter, and cries when it is over', async (t) => {
  const subject = await withCertificate(t);
  const { clock, authority, changes, said, first } = subject;
  authority.fail(...Array.from({ length: 2000 }, unreachable));
  // Steps longer than any wait, so that each has an attempt; it fails within the turn in which it asked.
  const pass = async (ms: number) => {
    for (let step = 1; step * 200 * SECOND <= ms; step += 1) {
      const asked = authority.requests.length;
      clock.advance(200 * SECOND);
      if (clock.now() < first.notBefore + DAY / 2) continue;
      await authority.asked(asked + 1);
      await new Promise(setImmediate);
    }
  };
  await pass(DAY * 0.7);
  t.deepEqual(said('warn'), []);
  await pass(DAY * 0.2);
  t.deepEqual(said('warn'), ['a certificate is about to expire and cannot be renewed']);
  t.deepEqual(said('error'), []);
  await pass(DAY * 0.11);
  t.deepEqual(said('error'), ['a certificate has expired']);
  const change = await changes.next();
  t.is(change.kind, 'unavailable');
  t.regex(change.kind === 'unavailable' ? change.reason : '', /expired at .* could not be renewed: nobody answers/);
  t.is(stateOf(subject), 'unavailable');
});

test('a certificate that expires while the CA is silent is served no longer', async (t) => {
  const subject = await withCertificate(t, { validitySeconds: 10, signTimeoutMs: 60 * SECOND });
  const { clock, authority, changes } = subject;
  const release = authority.hold();
  clock.advance(10 * SECOND);
  t.is((await changes.next()).kind, 'unavailable');
  t.is(stateOf(subject), 'unavailable');
  await authority.asked(2);
  release();
  t.is((await changes.next()).kind, 'issued');
});

// --- failing ------------------------------------------------------------------------------------------------------------

test('without a certificate a failure is announced at once, and tried again in the background', async (t) => {
  const subject = await setUp(t);
  const { clock, authority, store, changes } = subject;
  authority.fail(unreachable(), unreachable());
  store.want(new Set([WEB]));
  for (const wait of [1, 2]) {
    t.deepEqual(await changes.next(), { kind: 'unavailable', identity: WEB, reason: 'nobody answers' });
    t.is(stateOf(subject), 'unavailable');
    clock.advance(wait * SECOND);
  }
  t.is((await changes.next()).kind, 'issued');
  t.is(stateOf(subject), 'available');
});

test('an attempt that the CA does not answer ends, and frees its place', async (t) => {
  const { clock, authority, store, changes } = await setUp(t, { maxInFlight: 1, signTimeoutMs: 5 * SECOND });
  const release = authority.hold();
  store.want(new Set([WEB, CART]));
  await authority.asked(1);
  clock.advance(5 * SECOND);
  const change = await changes.next();
  t.is(change.kind === 'unavailable' ? change.reason : '', 'the CA did not answer within 5000 ms');
  await authority.asked(2);
  t.is(authority.requests[1]?.identity, CART);
  release();
  t.is((await changes.next()).kind, 'issued');
});

test('an error of another room is a CA that cannot be asked', async (t) => {
  const { authority, store, changes } = await setUp(t);
  authority.fail(new Error('the pipe broke'));
  store.want(new Set([WEB]));
  const change = await changes.next();
  t.is(change.kind === 'unavailable' ? change.reason : '', 'the CA could not be asked: the pipe broke');
});

// --- what the CA answers ------------------------------------------------------------------------------------------------

const badAnswers: Record<string, { spoil: (subject: Subject) => Promise<void> | void; reason: RegExp }> = {
  'for another identity': {
    spoil: ({ authority }) => {
      authority.leaf = { names: [{ type: 'url', value: CART }] };
    },
    reason: /is for .*cart instead of .*web/,
  },
  'for a second identity too': {
    spoil: ({ authority }) => {
      authority.leaf = { names: [WEB, CART].map((value) => ({ type: 'url', value })) };
    },
    reason: /instead of/,
  },
  'for a second identity, in a name that is quoted': {
    spoil: ({ authority }) => {
      authority.leaf = { names: [WEB, `${CART},x`].map((value) => ({ type: 'url', value })) };
    },
    reason: /instead of/,
  },
  'for a name of another kind that looks like a URI': {
    spoil: ({ authority }) => {
      authority.leaf = { names: [{ type: 'dns', value: `a, URI:${WEB}` }] };
    },
    reason: /no SPIFFE id/,
  },
  'for nobody': {
    spoil: ({ authority }) => {
      authority.leaf = { names: [] };
    },
    reason: /no SPIFFE id/,
  },
  'that may not call': {
    spoil: ({ authority }) => {
      authority.leaf = { usages: ['server'] };
    },
    reason: /both to serve and to call/,
  },
  'that has expired': {
    spoil: ({ authority, clock }) => {
      authority.leaf = { notBefore: clock.now() - 2 * SECOND, notAfter: clock.now() - SECOND };
    },
    reason: /expired at/,
  },
  'that is not valid yet': {
    spoil: ({ authority, clock }) => {
      authority.leaf = { notBefore: clock.now() + SECOND };
    },
    reason: /not valid before .* clock/,
  },
  'under another root than it gives': {
    spoil: async ({ authority, makeIssuer }) => {
      authority.roots = [(await makeIssuer()).root];
    },
    reason: /trusted root/,
  },
  'without a root': {
    spoil: ({ authority }) => {
      authority.roots = [];
    },
    reason: /no root/,
  },
  'with a chain whose links do not fit': {
    spoil: async ({ authority, makeIssuer }) => {
      authority.issuer = { ...authority.issuer, intermediates: (await makeIssuer()).intermediates };
    },
    reason: /links do not fit/,
  },
  'without its intermediate': {
    spoil: ({ authority }) => {
      authority.issuer = { ...authority.issuer, intermediates: [] };
    },
    reason: /trusted root/,
  },
  'that is no certificate': {
    spoil: ({ authority }) => {
      authority.issuer = { ...authority.issuer, certify: async () => 'nonsense', intermediates: [] };
    },
    reason: /no certificate/,
  },
  'that is a broken certificate': {
    spoil: ({ authority }) => {
      const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----';
      authority.issuer = { ...authority.issuer, certify: async () => broken };
    },
    reason: /not understood/,
  },
  'with an endless chain': {
    spoil: ({ authority }) => {
      authority.issuer = { ...authority.issuer, intermediates: Array(100).fill(authority.issuer.root) };
    },
    reason: /chain of more than/,
  },
  'for another key': {
    spoil: async ({ authority, makeIssuer }) => {
      const other = await makeIssuer();
      const { chain, roots } = await other.issue({ identity: WEB });
      const issuer = { ...other, certify: async () => chain, intermediates: [] };
      Object.assign(authority, { issuer, roots });
    },
    reason: /another key/,
  },
};

for (const [title, { spoil, reason }] of Object.entries(badAnswers)) {
  test(`refuses an answer ${title}`, async (t) => {
    const subject = await setUp(t);
    await spoil(subject);
    subject.store.want(new Set([WEB]));
    const change = await subject.changes.next();
    t.regex(change.kind === 'unavailable' ? change.reason : change.kind, reason);
  });
}

test('accepts names that are no SPIFFE ids beside the identity', async (t) => {
  const { authority, store, changes } = await setUp(t);
  const others = [
    { type: 'dns', value: 'web.shop, svc' },
    { type: 'url', value: 'https://example.com/a,b' },
  ] as const;
  authority.leaf = { names: [...others, { type: 'url', value: WEB }] };
  store.want(new Set([WEB]));
  t.is(certificateIn(t, await changes.next()).identity, WEB);
});

test('takes the root out of a chain that holds it', async (t) => {
  const { authority, store, changes } = await setUp(t);
  const { intermediates, root } = authority.issuer;
  authority.issuer = { ...authority.issuer, intermediates: [...intermediates, `${root}\n`] };
  store.want(new Set([WEB]));
  t.is(certificateIn(t, await changes.next()).chain.match(/BEGIN CERTIFICATE/g)?.length, 2);
});

test('takes several roots in one text apart', async (t) => {
  const { authority, store, changes, makeIssuer } = await setUp(t);
  authority.roots = [`${authority.issuer.root}\n${(await makeIssuer()).root}\n`];
  store.want(new Set([WEB]));
  t.is(certificateIn(t, await changes.next()).roots.length, 2);
});

// --- trust --------------------------------------------------------------------------------------------------------------

test('a new root reaches every certificate without a new request', async (t) => {
  const { authority, store, changes, first, makeIssuer } = await withCertificate(t);
  const other = await makeIssuer();
  store.trust([authority.issuer.root, other.root]);
  const again = certificateIn(t, await changes.next());
  t.is(again.roots.length, 2);
  t.deepEqual({ ...again, roots: [] }, { ...first, roots: [] });
  t.is(authority.requests.length, 1);
});

test('the same bundle in another order is no change', async (t) => {
  const { authority, store, changes, makeIssuer } = await withCertificate(t);
  const other = await makeIssuer();
  store.trust([authority.issuer.root, other.root]);
  await changes.next();
  store.trust([other.root, `\n${authority.issuer.root}\n`]);
  t.is(changes.left, 0);
});

test('a new bundle does not put off a renewal', async (t) => {
  const { authority, clock, store, changes, makeIssuer } = await withCertificate(t);
  clock.advance(DAY / 4);
  store.trust([authority.issuer.root, (await makeIssuer()).root]);
  await changes.next();
  clock.advance(DAY / 4);
  t.is((await changes.next()).kind, 'issued');
  t.is(authority.requests.length, 2);
});

test('a certificate whose root is trusted no longer is served until it is renewed, at once', async (t) => {
  const subject = await withCertificate(t);
  const { authority, store, changes, first, makeIssuer } = subject;
  authority.issuer = await makeIssuer();
  store.trust([authority.issuer.root]);
  t.is(certificateIn(t, await changes.next()).key, first.key);
  t.is(stateOf(subject), 'renewing');
  const second = certificateIn(t, await changes.next());
  t.not(second.key, first.key);
  t.deepEqual(second.roots, [`${authority.issuer.root}\n`]);
});

test('a renewal that waits after failures does not wait any longer when the root is trusted no longer', async (t) => {
  const subject = await withCertificate(t);
  const { authority, clock, store, changes, makeIssuer } = subject;
  await failOnce(subject, DAY / 2);
  for (const wait of [1, 2, 4, 8, 16, 32, 64, 128])
    await failOnce(subject, wait * SECOND, unreachable(` for ${wait} s`));
  const before = { time: clock.now(), asked: authority.requests.length };
  authority.issuer = await makeIssuer();
  store.trust([authority.issuer.root]);
  await changes.next();
  await authority.asked(before.asked + 1);
  t.deepEqual(certificateIn(t, await changes.next()).roots, [`${authority.issuer.root}\n`]);
  t.is(clock.now(), before.time);
  t.is(authority.requests.length, before.asked + 1);
});

test('a renewal under way when its root goes is answered first, and soon tried again', async (t) => {
  const subject = await withCertificate(t);
  const { authority, clock, store, changes, makeIssuer } = subject;
  await failOnce(subject, DAY / 2);
  for (const wait of [1, 2, 4, 8]) await failOnce(subject, wait * SECOND, unreachable(` for ${wait} s`));
  const release = authority.hold();
  clock.advance(16 * SECOND);
  await authority.asked(7);
  const next = await makeIssuer();
  store.trust([next.root]);
  await changes.next();
  t.is(authority.requests.length, 7);
  release();
  while (!store.status()[0]?.lastError?.includes('trusted root')) await new Promise(setImmediate);
  authority.issuer = next;
  clock.advance(SECOND);
  t.is((await changes.next()).kind, 'issued');
  t.is(authority.requests.length, 8);
});

test('a bundle told while another is being announced is the last word for every certificate', async (t) => {
  const { authority, store, changes, makeIssuer } = await setUp(t);
  store.want(new Set([WEB, CART]));
  for (let at = 0; at < 2; at += 1) await changes.next();
  const [old, one, two] = [authority.issuer.root, (await makeIssuer()).root, (await makeIssuer()).root];
  const stop = store.onChange(() => {
    stop();
    store.trust([old, two]);
  });
  store.trust([old, one]);
  const last = new Map(
    changes.seen.flatMap((change) =>
      change.kind === 'issued' ? [[change.certificate.identity, change.certificate.roots] as const] : [],
    ),
  );
  t.deepEqual(
    [...last.values()].map((roots) => roots.includes(`${two}\n`)),
    [true, true],
  );
});

test('a bundle that was told is not replaced by what comes with a certificate', async (t) => {
  const { authority, store, changes, makeIssuer } = await setUp(t);
  const other = await makeIssuer();
  store.trust([authority.issuer.root, other.root]);
  store.want(new Set([WEB]));
  t.is(certificateIn(t, await changes.next()).roots.length, 2);
});

test('a certificate under a root that was not told is refused, until it is', async (t) => {
  const { authority, clock, store, changes, makeIssuer } = await setUp(t);
  const old = authority.issuer.root;
  store.trust([old]);
  authority.issuer = await makeIssuer();
  store.want(new Set([WEB]));
  t.is((await changes.next()).kind, 'unavailable');
  store.trust([old, authority.issuer.root]);
  clock.advance(SECOND);
  t.is((await changes.next()).kind, 'issued');
});

test('where no bundle is told, the one of the last certificate counts for all', async (t) => {
  const { authority, store, changes, makeIssuer } = await withCertificate(t);
  authority.roots = [authority.issuer.root, (await makeIssuer()).root];
  store.want(new Set([WEB, CART]));
  const changed = [await changes.next(), await changes.next()].map((change) => certificateIn(t, change));
  t.deepEqual(
    changed.map(({ identity, roots }) => [identity, roots.length]),
    [
      [CART, 2],
      [WEB, 2],
    ],
  );
});

for (const [title, roots] of [
  ['empty', []],
  ['not understood', ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----']],
] as const) {
  test(`a bundle that is ${title} changes nothing, and is said`, async (t) => {
    const { store, changes, said } = await withCertificate(t);
    store.trust(roots);
    t.is(changes.left, 0);
    t.deepEqual(said('error'), ['the trust bundle cannot be used; the one before stays']);
  });
}

test('a listener that tells of another bundle meanwhile does not stop renewals', async (t) => {
  const { authority, store, changes, makeIssuer } = await setUp(t);
  const next = await makeIssuer();
  const stop = store.onChange(() => {
    stop();
    authority.issuer = next;
    store.trust([next.root]);
  });
  store.want(new Set([WEB]));
  for (let change = 0; change < 2; change += 1) await changes.next();
  t.deepEqual(certificateIn(t, await changes.next()).roots, [`${next.root}\n`]);
  t.is(authority.requests.length, 2);
});

test('never logs a key', async (t) => {
  const { clock, authority, store, changes } = await setUp(t);
  const { log, lines } = recordedLog();
  const other = new CertificateStore({ authority, clock, log });
  other.onChange(changes.listener);
  other.want(new Set([WEB]));
  await changes.next();
  other.trust([]);
  other.close();
  store.close();
  t.notRegex(JSON.stringify(lines), /PRIVATE KEY/);
});
