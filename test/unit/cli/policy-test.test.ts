import test from 'ava';
import { main } from '../../../src/cli/main.ts';
import { capture } from './capture.ts';
import { serveAgent } from './fake-agent.ts';
import { podYaml, policyYaml, shop } from './policy-manifests.ts';

const dbClients = policyYaml(
  'AuthorizationPolicy',
  'shop/db-clients',
  '{selector: {matchLabels: {app: db}}, rules: [{from: [{source: {serviceAccounts: [web]}}], to: [{operation: {ports: ["5432"]}}]}]}',
);
const strict = policyYaml('PeerAuthentication', 'shop/default', '{mtls: {mode: STRICT}}');

async function run(args: readonly string[], colors = false) {
  const { written, output } = capture(colors);
  const code = await main(['policy', 'test', ...args], output);
  return { code, ...written };
}

for (const [from, to, code, sentence] of [
  ['shop/web-0', 'shop/db-0:5432', 0, /^allowed: policy shop\/db-clients, rule 1, lets it in$/m],
  ['shop/web', '10.0.0.2:5432', 0, /^allowed: /],
  ['spiffe://cluster.local/ns/shop/sa/web', 'shop/db-0:5432', 0, /^allowed: /],
  ['shop/web-0', 'shop/db-0:22', 1, /^denied: ALLOW policies apply, and none of them matches; .*: shop\/db-clients$/m],
  ['shop/db-0', 'shop/web-0:80', 0, /^allowed: no DENY policy matches, and no ALLOW policy applies$/m],
  ['none', 'shop/web-0:80', 1, /^denied: .*a PeerAuthentication says STRICT, and nobody has proven an identity$/m],
  ['10.0.0.1', 'shop/web-0:80', 1, /note: 10\.0\.0\.1 is shop\/web-0, which is in the mesh/],
  ['none', 'shop/web-9:80', 2, /^cannot tell: no pod shop\/web-9 is known; .*shop\/db-0, shop\/web-0$/m],
] as ReadonlyArray<[string, string, 0 | 1 | 2, RegExp]>)
  test(`manifests answer: ${from} to ${to} ends with ${code}`, async (t) => {
    const directory = shop(t);
    directory.write('policies.yaml', dbClients + strict);
    const found = await run(['--from', from, '--to', to, '--manifests', directory.path]);
    t.is(found.code, code);
    t.regex(found.out, sentence);
    t.is(found.error, '');
  });

test('the parties are shown, and every rule if that is asked for', async (t) => {
  const directory = shop(t);
  directory.write('policies.yaml', dbClients);
  const args = ['--from', 'shop/web-0', '--to', 'shop/db-0:22', '--manifests', directory.path];
  const short = await run(args);
  t.is(
    short.out,
    'denied: ALLOW policies apply, and none of them matches; one of these would have to: shop/db-clients\n' +
      '  from  shop/web-0: spiffe://cluster.local/ns/shop/sa/web, at 10.0.0.1\n' +
      '  to    shop/db-0, port 22, at 10.0.0.2\n',
  );
  t.regex((await run([...args, '--explain'])).out, /shop\/db-clients.*\n.*rule 1 does not match\n.*22/);
});

test('machines get the whole answer', async (t) => {
  const directory = shop(t);
  directory.write('policies.yaml', dbClients);
  const { code, out } = await run([
    '--from',
    'shop/web',
    '--to',
    'shop/db-0:5432',
    '--manifests',
    directory.path,
    '--json',
  ]);
  t.is(code, 0);
  t.like(JSON.parse(out), { verdict: 'allowed', reason: 'allowed', policy: 'shop/db-clients', rule: 0 });
});

test('manifests that are wrong answer nothing', async (t) => {
  const directory = shop(t);
  directory.write('policies.yaml', 'kind: [');
  const { code, out, error } = await run(['--from', 'none', '--to', 'shop/db-0:1', '--manifests', directory.path]);
  t.is(code, 2);
  t.is(out, '');
  t.regex(error, /^culvert: .*policies\.yaml:1: .* culvert policy check .* lists everything\n$/);
});

for (const [title, args, sentence] of [
  ['a source that is none', ['--from', 'web', '--to', 'a/b:1'], /^culvert: from: "web" is none of/],
  ['a target without port', ['--from', 'none', '--to', 'a/b'], /^culvert: to: "a\/b" has no port/],
  ['no source', ['--to', 'a/b:1'], /required option '--from <id>'/],
  [
    'agent and manifests at once',
    ['--from', 'none', '--to', 'a/b:1', '--run', '/x', '--manifests', 'y'],
    /cannot be used/,
  ],
  ['no agent', ['--from', 'none', '--to', 'a/b:1', '--run', '/nowhere'], /^culvert: no agent answers at \/nowhere/],
] as ReadonlyArray<[string, string[], RegExp]>)
  test(`${title} is no "denied"`, async (t) => {
    const { code, error } = await run(args);
    t.is(code, 2);
    t.regex(error, sentence);
  });

test('the agent answers if it is not said otherwise', async (t) => {
  const asked: unknown[] = [];
  const run1 = await serveAgent(t, (request) => {
    asked.push(request);
    return {
      ok: true,
      answer: {
        verdict: 'denied',
        reason: 'denied',
        text: 'policy shop/x, rule 1, refuses it',
        source: { addresses: ['10.0.0.9'] },
        destination: { pod: 'shop/db-0', addresses: ['10.0.0.2'], port: 80 },
        policy: 'shop/x',
        rule: 0,
        candidates: [],
        dryRun: [{ policy: 'shop/y', would: 'not-allow' }],
        notes: ['a \u001b[31mnote'],
        explanation: [],
      },
    };
  });
  const { code, out } = await run(['--from', '10.0.0.9', '--to', 'shop/db-0:80', '--run', run1]);
  t.is(code, 1);
  t.deepEqual(asked, [{ method: 'policy-test', from: '10.0.0.9', to: 'shop/db-0:80', explain: false }]);
  t.is(
    out,
    'denied: policy shop/x, rule 1, refuses it\n' +
      '  from  nobody who proves an identity (plaintext), at 10.0.0.9\n' +
      '  to    shop/db-0, port 80, at 10.0.0.2\n' +
      '  dry run: shop/y would not allow it, and no other ALLOW policy does\n' +
      '  note: a ?[31mnote\n',
  );
});

test('a service account with many pods is not listed at length', async (t) => {
  const directory = shop(t);
  const pods = Array.from({ length: 5 }, (_, n) => podYaml(`web-${n + 1}`, { ip: `10.0.1.${n}`, app: 'web' }));
  directory.write('more.yaml', pods.join(''));
  const { out } = await run(['--from', 'shop/web', '--to', 'shop/db-0:1', '--manifests', directory.path]);
  t.regex(out, /sa\/web, at 10\.0\.\d\.\d, 10\.0\.\d\.\d, 10\.0\.\d\.\d and 3 more$/m);
});
