import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { ControlError, type ManifestSourceOptions } from '../../../src/control/index.ts';
import { ManifestSource } from '../../../src/control/manifests/source.ts';
import { type MeshUpdate, policyName } from '../../../src/mesh/index.ts';
import { FakeLog } from '../../contract/fakes/log.ts';
import { ManifestDirectory } from './folder.ts';
import { authorizationPolicy, pod, service } from './objects.ts';

/** A source that follows a folder, and what it has told. */
class Followed {
  readonly directory: ManifestDirectory;
  readonly log = new FakeLog();
  readonly source: ManifestSource;
  readonly updates: MeshUpdate[] = [];
  #seen = 0;
  #warned = 0;
  #more = Promise.withResolvers<void>();

  constructor(t: ExecutionContext, options: Partial<ManifestSourceOptions> = {}) {
    this.directory = new ManifestDirectory(t);
    this.source = new ManifestSource({ log: this.log.log }, { directory: this.directory.path, ...options });
    this.source.onUpdate((update) => {
      this.updates.push(update);
      this.#more.resolve();
      this.#more = Promise.withResolvers<void>();
    });
    // The source does not keep the process alive.
    const alive = setInterval(() => undefined, 1000);
    t.teardown(() => {
      clearInterval(alive);
      this.source.close();
    });
  }

  /** The next update, in words: `+` what is there, `-` what is gone. */
  async next(): Promise<string[]> {
    while (this.updates.length === this.#seen) await this.#more.promise;
    const update = this.updates[this.#seen];
    this.#seen += 1;
    const { workloads = [], services = [], removed = [], policies = [], removedPolicies = [] } = update ?? {};
    return [
      ...[...workloads, ...services].map(({ name }) => `+${name}`),
      ...policies.map((policy) => `+${policyName(policy)}`),
      ...[...removed, ...removedPolicies].map((key) => `-${key}`),
    ].toSorted();
  }

  /** The next thing that the log says is wrong. */
  async warned(): Promise<string> {
    for (;;) {
      const found = this.log.entries.filter(({ level }) => level === 'warn')[this.#warned];
      if (found === undefined) await setTimeout(5);
      else {
        this.#warned += 1;
        return found.message;
      }
    }
  }
}

const WEB = '-shop/web.shop.svc.cluster.local';
const POD = '-Kubernetes//Pod/shop/web-1';

test('the first update is complete, the next ones say what has changed', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('web.yaml', service());
  followed.directory.write('below/deep/pod.yml', pod());
  followed.directory.write('notes.txt', 'nothing');
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web', '+web-1']);
  followed.directory.write('web.yaml', service().replace('80,', '81,'));
  t.deepEqual(await followed.next(), ['+web', '+web-1']);
  t.deepEqual(
    followed.updates.map(({ complete, settings }) => [complete, settings !== undefined]),
    [
      [true, true],
      [false, false],
    ],
  );
});

test('whoever listens later gets a complete update at once', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('web.yaml', service());
  await followed.source.start();
  await followed.next();
  const late: MeshUpdate[] = [];
  followed.source.onUpdate((update) => late.push(update));
  t.like(late, [{ complete: true, services: [{ name: 'web' }] }]);
});

test('an empty folder is an empty mesh', async (t) => {
  const followed = new Followed(t);
  await followed.source.start();
  t.deepEqual(await followed.next(), []);
  t.true(followed.updates[0]?.complete);
});

/** How a file or folder may come, change and go. */
for (const [title, edit, expected] of [
  ['a new file', (d: ManifestDirectory) => void d.write('pod.yaml', pod()), ['+web-1']],
  [
    'a new file of JSON',
    (d: ManifestDirectory) =>
      void d.write(
        'pod.json',
        JSON.stringify({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: 'j', namespace: 'shop' },
          spec: {},
          status: { podIP: '10.0.0.1' },
        }),
      ),
    ['+j'],
  ],
  ['a new folder', (d: ManifestDirectory) => void d.write('new/below/pod.yaml', pod()), ['+web-1']],
  [
    'a folder moved in',
    (d: ManifestDirectory) => {
      d.write('.elsewhere/pod.yaml', pod());
      renameSync(d.file('.elsewhere'), d.file('there'));
    },
    ['+web-1'],
  ],
  [
    'a file replaced by another',
    (d: ManifestDirectory) => d.replace('web.yaml', service({ name: 'next' })),
    ['+next', WEB],
  ],
  [
    'a file renamed',
    (d: ManifestDirectory) => {
      renameSync(d.file('web.yaml'), d.file('.gone'));
    },
    [WEB],
  ],
  ['a file deleted', (d: ManifestDirectory) => d.delete('web.yaml'), [WEB]],
  ['a folder deleted', (d: ManifestDirectory) => d.delete('below'), ['-shop/deep.shop.svc.cluster.local']],
  [
    'a file in a folder',
    (d: ManifestDirectory) => void d.write('below/deep.yaml', service({ name: 'deeper' })),
    ['+deeper', '-shop/deep.shop.svc.cluster.local'],
  ],
] as const)
  test(`${title} is followed`, async (t) => {
    const followed = new Followed(t);
    followed.directory.write('web.yaml', service());
    followed.directory.write('below/deep.yaml', service({ name: 'deep' }));
    await followed.source.start();
    t.deepEqual(await followed.next(), ['+deep', '+web']);
    edit(followed.directory);
    t.deepEqual(await followed.next(), [...expected]);
  });

test('files of a mounted ConfigMap are followed as it is swapped, and read once', async (t) => {
  const followed = new Followed(t);
  const { path } = followed.directory;
  const fill = (version: string, name: string) => {
    mkdirSync(join(path, version));
    writeFileSync(join(path, version, 'web.yaml'), service({ name }));
  };
  fill('..1', 'one');
  symlinkSync('..1', join(path, '..data'));
  symlinkSync('..data/web.yaml', join(path, 'web.yaml'));
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+one']);
  fill('..2', 'two');
  symlinkSync('..2', join(path, '..data_tmp'));
  renameSync(join(path, '..data_tmp'), join(path, '..data'));
  rmSync(join(path, '..1'), { recursive: true });
  t.deepEqual(await followed.next(), ['+two', '-shop/one.shop.svc.cluster.local']);
  t.deepEqual(followed.source.problems(), []);
});

test('links that lead round in a circle end', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('below/web.yaml', service());
  symlinkSync('..', followed.directory.file('below/up'));
  symlinkSync('.', followed.directory.file('here'));
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web']);
  followed.directory.write('below/pod.yaml', pod());
  t.deepEqual(await followed.next(), ['+web-1']);
  t.deepEqual(followed.source.problems(), []);
});

test('a broken file is reported with file, line and field; its last good state and all other files stay in force', async (t) => {
  const followed = new Followed(t);
  const file = followed.directory.write('web.yaml', service());
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web']);
  followed.directory.write('web.yaml', `${service({ name: 'new' })}\n---\n${service({ spec: ['ports: [{}]'] })}`);
  t.is(await followed.warned(), `${file}:21:11: Service shop/web: spec.ports[0].port is missing.`);
  t.like(followed.source.problems(), [
    { reason: 'field', object: 'Service shop/web', field: 'spec.ports[0].port', place: { file, line: 21, column: 11 } },
  ]);
  followed.directory.write('pod.yaml', pod());
  t.deepEqual(await followed.next(), ['+web-1']);
  t.deepEqual(
    followed.updates.at(-1)?.workloads.map(({ services }) => Object.keys(services)),
    [['shop/web.shop.svc.cluster.local']],
  );
  followed.directory.write('web.yaml', service({ name: 'new' }));
  t.deepEqual(await followed.next(), ['+new', '+web-1', WEB]);
  t.deepEqual(followed.source.problems(), []);
  t.is((await followed.log.next('nothing is wrong with the manifests any more')).level, 'info');
});

const WAITS =
  'no agent is told of the mesh, each keeps what it knows, until what is wrong with the manifests has been mended';

/** What may be wrong at the start, and how it is mended. */
for (const [title, harm, mend] of [
  [
    'a file that is broken',
    (d: ManifestDirectory) => void d.write('a.yaml', 'kind: ['),
    (d: ManifestDirectory) => d.delete('a.yaml'),
  ],
  [
    'a file that lacks a field',
    (d: ManifestDirectory) => void d.write('a.yaml', service({ spec: ['ports: [{}]'] })),
    (d: ManifestDirectory) => void d.write('a.yaml', pod()),
  ],
  [
    'a file that cannot be read',
    (d: ManifestDirectory) => symlinkSync('a.yaml', d.file('a.yaml')),
    (d: ManifestDirectory) => d.replace('a.yaml', pod()),
  ],
  [
    'a folder that cannot be read',
    (d: ManifestDirectory) => {
      mkdirSync(d.file('x'));
      chmodSync(d.file('x'), 0);
    },
    (d: ManifestDirectory) => d.delete('x'),
  ],
] as const)
  test(`${title} at the start keeps everything from being told until it is mended`, async (t) => {
    if (title.startsWith('a folder') && process.geteuid?.() === 0) {
      t.log('root reads every folder');
      t.pass();
      return;
    }
    const followed = new Followed(t, { lookMs: 20 });
    harm(followed.directory);
    followed.directory.write('web.yaml', service());
    await followed.source.start();
    t.like(await followed.log.next(WAITS), { level: 'error', fields: { problems: 1 } });
    const [{ place } = { place: undefined }] = followed.source.problems();
    t.deepEqual(
      followed.log.entries.filter(({ fields }) => fields.reason !== undefined).map(({ level }) => level),
      ['error'],
    );
    t.true(title.startsWith('a folder') || place?.file === followed.directory.file('a.yaml'));
    t.deepEqual(followed.updates, []);
    mend(followed.directory);
    t.true((await followed.next()).includes('+web'));
    t.true(followed.updates[0]?.complete);
    t.is(followed.log.entries.filter(({ message }) => message === WAITS).length, 1);
  });

test('a good file that changes does not begin what a broken one holds up', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('broken.yaml', 'kind: [');
  followed.directory.write('web.yaml', service());
  await followed.source.start();
  await followed.log.next(WAITS);
  followed.directory.write('web.yaml', 'kind: [');
  // Both are known to be broken, so both have been read.
  while (followed.source.problems().length < 2) await setTimeout(5);
  followed.directory.write('web.yaml', service({ name: 'next' }));
  while (followed.source.problems().length > 1) await setTimeout(5);
  t.deepEqual(followed.updates, []);
  followed.directory.delete('broken.yaml');
  t.deepEqual(await followed.next(), ['+next']);
});

test('a file that is being written at the start is waited for', async (t) => {
  const followed = new Followed(t, { debounceMs: 100 });
  const whole = `${service()}\n---\n${pod()}`;
  followed.directory.write('web.yaml', service());
  await followed.source.start();
  t.deepEqual(followed.updates, []);
  followed.directory.write('web.yaml', whole);
  t.deepEqual(await followed.next(), ['+web', '+web-1']);
});

test('of two objects of one name the first in the order of paths counts, and it is said', async (t) => {
  const followed = new Followed(t);
  const spec = ['ports: [{port: 1}]'];
  const second = followed.directory.write('b.yaml', service({ spec }));
  const first = followed.directory.write('a.yaml', `${pod()}\n---\n${service()}`);
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web', '+web-1']);
  t.is(followed.updates[0]?.services[0]?.ports[0]?.servicePort, 80);
  t.is(await followed.warned(), `${second}:1:1: Service shop/web is in ${first} already; that one counts.`);
  followed.directory.delete('a.yaml');
  t.deepEqual(await followed.next(), ['+web', POD]);
  t.is(followed.updates.at(-1)?.services[0]?.ports[0]?.servicePort, 1);
  t.deepEqual(followed.source.problems(), []);
});

test('two objects of one name in one file are reported too', async (t) => {
  const followed = new Followed(t);
  const file = followed.directory.write('a.yaml', `${pod()}\n---\n${pod()}`);
  await followed.source.start();
  t.is(await followed.warned(), `${file}:14:1: Pod shop/web-1 is in this file already; that one counts.`);
});

test('what does not fit the other objects is reported where the object stands', async (t) => {
  const followed = new Followed(t);
  const file = followed.directory.write(
    'web.yaml',
    `${pod()}\n---\n${service({ labels: '{istio.io/use-waypoint: w}' })}`,
  );
  await followed.source.start();
  t.is(await followed.warned(), `${file}:14:1: Service shop/web: There is no Gateway shop/w.`);
  t.like(followed.source.problems(), [
    { reason: 'WaypointIsNotReady', field: 'metadata.labels["istio.io/use-waypoint"]' },
  ]);
});

test('a policy is followed', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('web.yaml', pod());
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web-1']);
  const spec = ['selector: {matchLabels: {app: web}}'];
  followed.directory.write('policy.yaml', authorizationPolicy({ spec }));
  t.deepEqual(await followed.next(), ['+shop/only', '+web-1']);
  followed.directory.delete('policy.yaml');
  t.deepEqual(await followed.next(), ['+web-1', '-shop/only']);
});

/** Texts that say to whom, or how, something applies in a way that is not understood; the field and its place. */
for (const [title, spec, field, text] of [
  ['an action that is none', ['action: DNEY'], 'spec.action', 'must be "ALLOW" or "DENY" or "AUDIT" or "CUSTOM"'],
  ['a selector that is none', ['selecter: {matchLabels: {app: web}}'], 'spec.selecter', 'is not a known field'],
  ['rules that are no list', ['rules: {from: []}'], 'spec.rules', 'must be a list, not a map'],
  ['sources that are not there', ['rules: [{from: }]'], 'spec.rules[0].from', 'must be a list, not null'],
] as const)
  test(`a policy with ${title} leaves the last good one in force`, async (t) => {
    const followed = new Followed(t);
    const file = followed.directory.write(
      'policy.yaml',
      authorizationPolicy({ spec: ['action: DENY', 'rules: [{}]'] }),
    );
    await followed.source.start();
    t.deepEqual(await followed.next(), ['+shop/only']);
    followed.directory.write('policy.yaml', authorizationPolicy({ spec }));
    t.regex(await followed.warned(), new RegExp(`^${file}:\\d+:\\d+: AuthorizationPolicy shop/only: `));
    t.like(followed.source.problems(), [{ reason: 'field', field, text: `${field} ${text}.` }]);
    followed.directory.write('pod.yaml', pod());
    t.deepEqual(await followed.next(), ['+web-1']);
    t.is(followed.updates.length, 2);
    followed.directory.write('policy.yaml', authorizationPolicy());
    t.deepEqual(await followed.next(), ['+shop/only']);
    t.deepEqual(followed.source.problems(), []);
  });

const port = (text: string) => authorizationPolicy({ spec: [`rules: [{to: [{operation: {ports: [${text}]}}]}]`] });

test('what of a policy is not enforced is said once, and again when it changes or goes', async (t) => {
  const followed = new Followed(t);
  const file = followed.directory.write('policy.yaml', port('http'));
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+shop/only']);
  const said = (value: string) =>
    `${file}:1:1: AuthorizationPolicy shop/only: No rule is left, so it allows nothing: spec.rules[0].to[0].operation.ports[${value}] must be a port number, 1 to 65535.`;
  t.is(await followed.warned(), said('0'));
  t.like(followed.source.problems(), [
    {
      reason: 'UnsupportedValue',
      object: 'AuthorizationPolicy shop/only',
      field: 'spec.rules[0].to[0].operation.ports[0]',
      place: { file, line: 1, column: 1 },
      condition: { type: 'ZtunnelAccepted', status: 'False', reason: 'UnsupportedValue' },
    },
  ]);
  t.like(
    followed.log.entries.find(({ level }) => level === 'warn'),
    { fields: { condition: 'ZtunnelAccepted', status: 'False', reason: 'UnsupportedValue' } },
  );
  followed.directory.write('pod.yaml', pod());
  t.deepEqual(await followed.next(), ['+web-1']);
  followed.directory.write('policy.yaml', port('"80", http'));
  t.is(await followed.warned(), said('1'));
  t.is(followed.log.entries.filter(({ level }) => level === 'warn').length, 2);
  followed.directory.write('policy.yaml', port('"80"'));
  t.deepEqual(await followed.next(), ['+shop/only']);
  const text = 'AuthorizationPolicy shop/only: nothing of it is left out any more.';
  t.is((await followed.log.next(text)).level, 'info');
  t.deepEqual(followed.source.problems(), []);
});

test('what a policy does more strictly than it says is no warning', async (t) => {
  const followed = new Followed(t);
  const spec = ['action: DENY', 'rules: [{to: [{operation: {paths: [/a]}}]}]'];
  const file = followed.directory.write('policy.yaml', authorizationPolicy({ spec }));
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+shop/only']);
  const text = `${file}:1:1: AuthorizationPolicy shop/only: What cannot be looked at is left out, so it denies more, unless a waypoint asks: spec.rules[0].to[0].operation.paths needs a waypoint.`;
  t.like(await followed.log.next(text), { level: 'info', fields: { condition: 'ZtunnelAccepted', status: 'True' } });
});

test('a problem is logged once', async (t) => {
  const followed = new Followed(t);
  await followed.source.start();
  await followed.next();
  const file = followed.directory.write('broken.yaml', 'kind: [');
  t.true((await followed.warned()).startsWith(file));
  followed.directory.write('web.yaml', service());
  t.deepEqual(await followed.next(), ['+web']);
  t.is(followed.log.entries.filter(({ level }) => level === 'warn').length, 1);
});

test('a kind that the mesh is not built of is only a matter of debugging', async (t) => {
  const followed = new Followed(t);
  followed.directory.write('a.yaml', 'apiVersion: apps/v1\nkind: Deployment\n');
  await followed.source.start();
  await followed.next();
  t.deepEqual(followed.source.problems(), []);
  t.deepEqual(
    followed.log.entries.filter(({ fields }) => fields.kind === 'apps/v1 Deployment').map(({ level }) => level),
    ['debug'],
  );
});

for (const [title, directory, text] of [
  ['is missing', '/nowhere/manifests', /no such file or directory.*\/nowhere\/manifests/],
  ['is none', new URL(import.meta.url).pathname, /is not a directory; give one that has manifests in it$/],
] as const)
  test(`a folder that ${title} is an error with a clear sentence`, async (t) => {
    const source = new ManifestSource({ log: new FakeLog().log }, { directory });
    const error = await t.throwsAsync(source.start(), { instanceOf: ControlError, message: text });
    t.is(error.code, 'MANIFESTS_UNREADABLE');
  });

test('when the whole folder is away, what was read stays, and it is said; when it is back, it is followed again', async (t) => {
  const followed = new Followed(t, { lookMs: 20 });
  followed.directory.write('web.yaml', service());
  await followed.source.start();
  t.deepEqual(await followed.next(), ['+web']);
  renameSync(followed.directory.path, `${followed.directory.path}-away`);
  t.regex(await followed.warned(), /what was read before stays/);
  t.like(followed.source.problems(), [{ reason: 'unreadable', place: undefined }]);
  mkdirSync(followed.directory.path);
  rmSync(`${followed.directory.path}-away`, { recursive: true });
  followed.directory.write('web.yaml', service({ name: 'next' }));
  t.deepEqual(await followed.next(), ['+next', WEB]);
  t.deepEqual(followed.source.problems(), []);
});

test('a closed source tells nothing more', async (t) => {
  const followed = new Followed(t, { lookMs: 5 });
  await followed.source.start();
  await followed.next();
  followed.source.close();
  followed.source.close();
  followed.directory.write('web.yaml', service());
  const other = new Followed(t);
  await other.source.start();
  other.directory.write('web.yaml', service());
  await other.next();
  t.deepEqual(await other.next(), ['+web']);
  t.is(followed.updates.length, 1);
});
