import { X509Certificate } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { chooseSigningRoot } from '../../../src/identity/ca/built-in-ca.ts';
import { addRoot, BuiltInCa, type BuiltInCaOptions, IdentityError } from '../../../src/identity/index.ts';
import { FakeClock } from '../../contract/fakes/clock.ts';
import { makeAuthority, makeCsr } from '../../pki.ts';
import { CART, Hints, openssl, recordedLog, STRANGER, temporaryDirectory, WEB } from './fixture.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NODE = 'node-a';

async function openCa(t: ExecutionContext, directory: string, options: BuiltInCaOptions = {}, clock = new FakeClock()) {
  const hints = new Hints();
  const { log, lines } = recordedLog();
  const identities = { isOnNode: (node: string, identity: string) => node === NODE && identity !== STRANGER };
  const ca = await BuiltInCa.open(directory, { identities, clock, directories: hints, log }, options);
  t.teardown(() => ca.close());
  const bundles: (readonly string[])[] = [];
  let told: (() => void) | undefined;
  ca.onRoots((roots) => {
    bundles.push(roots);
    told?.();
  });
  /** Resolves when the bundle has changed after what `act` does and the hint that follows. */
  const change = async (act: () => unknown) => {
    const heard = new Promise<void>((resolve) => {
      told = resolve;
    });
    await act();
    hints.hint();
    clock.advance(100);
    await heard;
  };
  const said = (level: string) => lines.filter((line) => line.level === level).map(({ message }) => message);
  return { ca, clock, hints, bundles, change, said, lines };
}

async function sign(ca: BuiltInCa, identity = WEB, validitySeconds = 86_400) {
  const { csr } = await makeCsr({ identity });
  const { chain, roots } = await ca.sign(NODE, { identity, csr, validitySeconds });
  const [leaf, intermediate] = chain.map((pem) => new X509Certificate(pem));
  if (leaf === undefined || intermediate === undefined) throw new Error('the chain is too short');
  return { leaf, intermediate, chain, roots };
}

function isUnder(intermediate: X509Certificate, root: string | undefined): boolean {
  return root !== undefined && intermediate.verify(new X509Certificate(root).publicKey);
}

async function refusesToOpen(t: ExecutionContext, directory: string, message: RegExp) {
  const error = await t.throwsAsync(openCa(t, directory), { instanceOf: IdentityError, message });
  t.is(error.code, 'CA_UNUSABLE');
}

// --- the first start ----------------------------------------------------------------------------------------------------

test('makes directory and root at the first start, for nobody else to read', async (t) => {
  const directory = join(temporaryDirectory(t), 'deep', 'ca');
  const { ca } = await openCa(t, directory);
  t.is(statSync(directory).mode & 0o777, 0o700);
  const files = readdirSync(directory);
  t.is(files.length, 1);
  t.is(statSync(join(directory, files[0] ?? '')).mode & 0o777, 0o600);
  t.is(ca.roots().length, 1);
});

test('goes on with the root that is there', async (t) => {
  const directory = temporaryDirectory(t);
  const first = await openCa(t, directory);
  const second = await openCa(t, directory);
  t.deepEqual(second.ca.roots(), first.ca.roots());
  t.is(readdirSync(directory).length, 1);
});

test('two that start at the same time trust each other’s roots', async (t) => {
  const directory = temporaryDirectory(t);
  const [one, other] = await Promise.all([openCa(t, directory), openCa(t, directory)]);
  await Promise.all([one.ca.check(), other.ca.check()]);
  t.deepEqual(one.ca.roots(), other.ca.roots());
});

test('the root lives ten years and may sign', async (t) => {
  const { ca, clock } = await openCa(t, temporaryDirectory(t));
  const [root = ''] = ca.roots();
  const { validToDate, ca: mayish } = new X509Certificate(root);
  t.true(mayish);
  t.true(Math.abs(validToDate.getTime() - clock.now() - 3650 * DAY) < DAY);
});

// --- the directory ------------------------------------------------------------------------------------------------------

/** A directory with one good root. @returns its path and the root's file */
async function madeDirectory(t: ExecutionContext) {
  const directory = temporaryDirectory(t);
  return { directory, file: await addRoot(directory) };
}

test('refuses a root that others can read', async (t) => {
  const { directory, file } = await madeDirectory(t);
  chmodSync(file, 0o640);
  await refusesToOpen(t, directory, /root-.*\.pem can be read by others; make its mode 0600/);
});

(process.geteuid?.() === 0 ? test : test.skip)('refuses a root that belongs to somebody else', async (t) => {
  const { directory, file } = await madeDirectory(t);
  chownSync(file, 65_534, 65_534);
  await refusesToOpen(t, directory, /belongs to user 65534/);
});

test('refuses a directory that others can write', async (t) => {
  const { directory } = await madeDirectory(t);
  chmodSync(directory, 0o770);
  await refusesToOpen(t, directory, /can be written by others/);
});

test('refuses a directory that is a file', async (t) => {
  const { file } = await madeDirectory(t);
  await refusesToOpen(t, file, /cannot use/);
});

const certificateOf = (text: string) => text.slice(0, text.indexOf('-----BEGIN PRIVATE KEY'));
const keyOf = (text: string) => text.slice(text.indexOf('-----BEGIN PRIVATE KEY'));
const badFiles: Record<string, { make: (good: string, other: string) => string | Promise<string>; message: RegExp }> = {
  'that is empty': { make: () => '', message: /exactly one certificate/ },
  'with two certificates': {
    make: (good, other) => good + certificateOf(other),
    message: /exactly one certificate/,
  },
  'with a broken certificate': {
    make: () => '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
    message: /not understood/,
  },
  'with the key of another': {
    make: (good, other) => certificateOf(good) + keyOf(other),
    message: /key that is not the certificate/,
  },
  'that is no root': {
    make: async () => (await makeAuthority()).intermediates.join(''),
    message: /not a root/,
  },
  'that is too long': { make: (good) => good + ' '.repeat(100_000), message: /longer than/ },
};
for (const [title, { make, message }] of Object.entries(badFiles)) {
  test(`refuses a file ${title}`, async (t) => {
    const { directory, file } = await madeDirectory(t);
    const other = readFileSync(await addRoot(directory), 'utf8');
    writeFileSync(file, await make(readFileSync(file, 'utf8'), other));
    await refusesToOpen(t, directory, message);
  });
}

test('refuses a name that leads to no file', async (t) => {
  const { directory } = await madeDirectory(t);
  mkdirSync(join(directory, 'folder.pem'), 0o700);
  await refusesToOpen(t, directory, /not a file/);
});

test('takes no notice of other names', async (t) => {
  const { directory, file } = await madeDirectory(t);
  for (const name of ['README', '.hidden.pem', 'root.pem.new']) writeFileSync(join(directory, name), 'anything');
  const { ca } = await openCa(t, directory);
  t.deepEqual(
    ca.status().map((root) => root.file),
    [file],
  );
});

test('reads a root through a link, as a mounted secret has it', async (t) => {
  const { file } = await madeDirectory(t);
  const directory = temporaryDirectory(t);
  symlinkSync(file, join(directory, 'root.pem'));
  const { ca } = await openCa(t, directory);
  t.is(ca.roots().length, 1);
});

test('a root of another maker signs, whatever its curve', async (t) => {
  const directory = temporaryDirectory(t);
  const file = join(directory, 'own.pem');
  const pem = await openssl([
    ...['req', '-x509', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-384', '-nodes', '-days', '400'],
    ...['-subj', '/O=shop/CN=our own', '-keyout', '-', '-out', '-', '-addext', 'basicConstraints=critical,CA:true'],
  ]);
  writeFileSync(file, pem, { mode: 0o600 });
  const { ca } = await openCa(t, directory, {}, new FakeClock(Date.now() + 1000));
  const { intermediate } = await sign(ca);
  t.true(isUnder(intermediate, ca.roots()[0]));
});

test('a root without its key is trusted and does not sign', async (t) => {
  const { directory, file } = await madeDirectory(t);
  const own = readFileSync(file, 'utf8');
  writeFileSync(join(directory, 'foreign.pem'), (await makeAuthority()).root, { mode: 0o600 });
  const { ca } = await openCa(t, directory, { overlapMs: 0 });
  t.is(ca.roots().length, 2);
  t.true(isUnder((await sign(ca)).intermediate, own));
  rmSync(file);
  await refusesToOpen(t, directory, /no root that is valid now and has its key/);
});

// --- signing ------------------------------------------------------------------------------------------------------------

test('signs only for the node that the identity is on, and says whom it refused', async (t) => {
  const { ca, lines } = await openCa(t, temporaryDirectory(t));
  const { csr } = await makeCsr({ identity: WEB });
  for (const [node, identity] of [
    ['node-b', WEB],
    [NODE, STRANGER],
  ] as const) {
    const error = await t.throwsAsync(ca.sign(node, { identity, csr, validitySeconds: 60 }), {
      instanceOf: IdentityError,
      message: 'request impersonation authentication failure',
    });
    t.is(error.code, 'REFUSED');
    t.like(lines.at(-1), { level: 'warn', node, identity });
  }
});

test('dates leaves back a little, and never by more than a tenth of a short life', async (t) => {
  const { ca, clock } = await openCa(t, temporaryDirectory(t));
  const backdated = async (validity: number) =>
    Math.round((clock.now() - (await sign(ca, WEB, validity)).leaf.validFromDate.getTime()) / 1000);
  t.true(Math.abs((await backdated(86_400)) - 120) <= 1);
  t.true((await backdated(10)) <= 2);
});

for (const asked of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
  test(`gives a day when ${asked} seconds are asked for`, async (t) => {
    const { ca, clock } = await openCa(t, temporaryDirectory(t));
    const { leaf } = await sign(ca, WEB, asked);
    t.true(Math.abs(leaf.validToDate.getTime() - clock.now() - DAY) <= 1000);
  });
}

test('signs with one intermediate, renewed when half of its life is over', async (t) => {
  const { ca, clock } = await openCa(t, temporaryDirectory(t));
  const [one, same] = await Promise.all([sign(ca), sign(ca, CART)]);
  t.is(one.intermediate.fingerprint256, same.intermediate.fingerprint256);
  clock.advance(183 * DAY);
  const [next, also] = await Promise.all([sign(ca, WEB, 90 * 86_400), sign(ca)]);
  t.not(next.intermediate.fingerprint256, one.intermediate.fingerprint256);
  t.is(next.intermediate.fingerprint256, also.intermediate.fingerprint256);
  t.true(next.leaf.validToDate <= next.intermediate.validToDate);
});

test('a leaf lives no longer than the root', async (t) => {
  const { ca, clock } = await openCa(t, temporaryDirectory(t));
  clock.advance(3640 * DAY);
  const { leaf, roots } = await sign(ca, WEB, 90 * 86_400);
  t.true(leaf.validToDate <= new X509Certificate(roots[0] ?? '').validToDate);
});

test('keeps the intermediate’s key to itself', async (t) => {
  const directory = temporaryDirectory(t);
  const { ca } = await openCa(t, directory);
  const { intermediate } = await sign(ca);
  t.is(readdirSync(directory).length, 1);
  t.not(intermediate.fingerprint256, (await sign((await openCa(t, directory)).ca)).intermediate.fingerprint256);
});

// --- rotating the root --------------------------------------------------------------------------------------------------

test('a new root is trusted at once, signs after the overlap, and the old one is forgotten when it is deleted', async (t) => {
  const { directory, file } = await madeDirectory(t);
  const { ca, clock, change, bundles } = await openCa(t, directory, { overlapMs: HOUR }, new FakeClock());
  const [old] = ca.roots();
  clock.advance(DAY);

  await change(() => addRoot(directory, clock.now()));
  const [first, added] = ca.roots();
  t.is(first, old);
  t.not(added, undefined);
  t.deepEqual(bundles, [[old, added]]);
  t.true(isUnder((await sign(ca)).intermediate, old));
  t.deepEqual((await sign(ca)).roots, [old, added]);

  clock.advance(HOUR - 101);
  t.true(isUnder((await sign(ca)).intermediate, old));
  clock.advance(101);
  t.true(isUnder((await sign(ca)).intermediate, added));
  t.deepEqual(
    ca.status().map(({ signs }) => signs),
    [false, true],
  );

  await change(() => rmSync(file));
  t.deepEqual(ca.roots(), [added]);
  t.true(isUnder((await sign(ca)).intermediate, added));
});

test('without an overlap a new root signs at once', async (t) => {
  const { directory } = await madeDirectory(t);
  const { ca, change, clock } = await openCa(t, directory, { overlapMs: 0 });
  await change(() => addRoot(directory, clock.now() + 60_000));
  t.true(isUnder((await sign(ca)).intermediate, ca.roots()[1]));
});

test('when the root that signs is deleted, the other signs at once', async (t) => {
  const { directory, file } = await madeDirectory(t);
  const { ca, change } = await openCa(t, directory);
  await sign(ca);
  await change(() => addRoot(directory));
  await change(() => rmSync(file));
  t.true(isUnder((await sign(ca)).intermediate, ca.roots()[0]));
});

test('an old root that is copied in is new here', async (t) => {
  const { directory } = await madeDirectory(t);
  const elsewhere = await madeDirectory(t);
  const { ca, clock, change } = await openCa(t, directory);
  clock.advance(10 * DAY);
  const [own] = ca.roots();
  await change(() => copyFileSync(elsewhere.file, join(directory, 'other.pem')));
  t.is(ca.status().find(({ signs }) => signs)?.fingerprint, new X509Certificate(own ?? '').fingerprint256);
});

test('a change that nothing tells of is found by looking', async (t) => {
  const { directory } = await madeDirectory(t);
  const { ca, clock } = await openCa(t, directory, { checkIntervalMs: 10_000 });
  const changed = new Promise<readonly string[]>((resolve) => ca.onRoots(resolve));
  await addRoot(directory);
  clock.advance(10_000);
  t.is((await changed).length, 2);
});

test('a directory that cannot be used any more leaves what was, says so once, and is used again when it can be', async (t) => {
  const { directory, file } = await madeDirectory(t);
  const { ca, said, change } = await openCa(t, directory);
  const before = ca.roots();
  const text = readFileSync(file);
  rmSync(file);
  await ca.check();
  await ca.check();
  t.deepEqual(ca.roots(), before);
  t.deepEqual(said('error'), ['the roots cannot be read; those before stay in use']);
  writeFileSync(file, text, { mode: 0o600 });
  await change(() => addRoot(directory));
  t.is(ca.roots().length, 2);
});

test('says once that a root is near its end', async (t) => {
  const { directory } = await madeDirectory(t);
  const { said, change } = await openCa(t, directory, {}, new FakeClock(Date.now() + 3600 * DAY));
  await change(() => addRoot(directory, Date.now() + 3600 * DAY));
  t.deepEqual(said('warn'), ['a root expires soon; add another with: culvert ca rotate']);
});

test('a closed CA watches nothing and holds no timer', async (t) => {
  const { ca, clock, hints } = await openCa(t, temporaryDirectory(t));
  hints.hint();
  ca.close();
  ca.close();
  t.is(clock.timers, 0);
  t.false(hints.watching);
});

test('never logs a key', async (t) => {
  const { ca, lines } = await openCa(t, temporaryDirectory(t));
  await sign(ca);
  t.notRegex(JSON.stringify(lines), /PRIVATE KEY/);
});

// --- which root signs ---------------------------------------------------------------------------------------------------

const root = (name: string, changes: Partial<Parameters<typeof chooseSigningRoot>[0][number]> = {}) => ({
  file: name,
  certificate: '',
  fingerprint: name,
  notBefore: 0,
  notAfter: 1000,
  key: {} as CryptoKey,
  since: 0,
  ...changes,
});
const choices: Record<string, [Parameters<typeof chooseSigningRoot>[0], string | undefined]> = {
  'the only one, however new': [[root('a', { since: 500 })], 'a'],
  'the newest of those that are old enough': [
    [root('a'), root('b', { notBefore: 5 }), root('c', { notBefore: 9, since: 450 })],
    'b',
  ],
  'the one that has been there longest, if none is old enough': [
    [root('a', { since: 480 }), root('b', { since: 470 })],
    'b',
  ],
  'none that has expired': [[root('a'), root('b', { notBefore: 5, notAfter: 500 })], 'a'],
  'none that is not valid yet': [[root('a'), root('b', { notBefore: 501 })], 'a'],
  'none without its key': [[root('a'), root('b', { notBefore: 5, key: undefined })], 'a'],
  nothing: [[], undefined],
};
for (const [title, [roots, chosen]] of Object.entries(choices)) {
  test(`signs under ${title}`, (t) => {
    t.is(chooseSigningRoot(roots, 500, 100)?.file, chosen);
  });
}
