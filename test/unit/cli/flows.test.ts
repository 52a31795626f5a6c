import test from 'ava';
import { AgentError, type Request } from '../../../src/agent/index.ts';
import { main } from '../../../src/cli/main.ts';
import type { PolicyName } from '../../../src/mesh/index.ts';
import type { Explanation, FlowView } from '../../../src/telemetry/index.ts';
import { flowId, flowRecord } from '../../contract/fakes/flows.ts';
import { capture } from './capture.ts';
import { serveAgent } from './fake-agent.ts';

function view(changes: Partial<FlowView> = {}): FlowView {
  const { pod: _, ...record } = flowRecord();
  return { ...record, sequence: 1, podUid: 'u', podName: 'web-0', podNamespace: 'shop', ...changes };
}

const refused = { allowed: false, reason: 'denied', policy: 'shop/no' as PolicyName, text: 'no' };

test('flows are shown as a table that tells who, whom, how it ended and how much', async (t) => {
  const flows = [
    view(),
    view({
      ended: 'policy-denied',
      decision: refused,
      stage: 'addressed',
      bytesSent: 0,
      bytesReceived: 0,
      durationMs: 1,
    }),
    view({
      path: 'passthrough',
      direction: 'outbound',
      security: 'none',
      service: undefined,
      destination: undefined,
      durationMs: 75_000,
    }),
    view({
      dryRun: [{ policy: 'shop/new' as PolicyName, would: 'deny' }],
      source: undefined,
      durationMs: 7_300_000,
      id: flowId(9),
    }),
  ];
  const run = await serveAgent(t, () => ({ ok: true, page: { flows, next: 4, missed: 0 } }));
  const { written, output } = capture();
  t.is(await main(['flows', '--run', run], output), 0);
  const [head, ...lines] = written.out.trimEnd().split('\n');
  t.regex(head ?? '', /^TIME +FROM +TO +VERDICT +PATH +SECURED +BYTES +DURATION +ID$/);
  t.regex(
    lines[0] ?? '',
    /^\d\d:\d\d:20\.123 +shop\/buyer-0 +shop\/web:8080 +ok +tunnel< +mtls +4\.7G\/77B +13ms +0000000100000001$/,
  );
  t.regex(lines[1] ?? '', /policy-denied \(shop\/no\) +tunnel< +mtls +0B\/0B +1\.0ms/);
  t.regex(lines[2] ?? '', /shop\/buyer-0 +10\.0\.0\.1:8080 +ok +passthrough> +no +4\.7G\/77B +1min/);
  t.regex(lines[3] ?? '', /10\.0\.0\.9 +shop\/web:8080 +ok \(dry run: denied\) .* 2\.0h +0000000900000009$/);
});

test('how it ended is coloured, and the columns stay where they are', async (t) => {
  const flows = [view(), view({ ended: 'policy-denied', decision: refused }), view({ ended: 'reset-by-server' })];
  const run = await serveAgent(t, () => ({ ok: true, page: { flows, next: 3, missed: 0 } }));
  const { written, output } = capture(true);
  await main(['flows', '--run', run], output);
  const lines = written.out.trimEnd().split('\n');
  const colour = (code: number) => `\u001b[${code}m`;
  t.true(lines[1]?.includes(`${colour(32)}ok `));
  t.true(lines[2]?.includes(`${colour(31)}policy-denied (shop/no)`));
  t.true(lines[3]?.includes(`${colour(33)}reset-by-server `));
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const widths = lines.map((line) => line.replaceAll(/\u001b\[\d+m/g, '').indexOf('tunnel<'));
  t.is(new Set(widths.slice(1)).size, 1);
});

test('for machines each flow is a line of JSON', async (t) => {
  const run = await serveAgent(t, () => ({ ok: true, page: { flows: [view(), view()], next: 2, missed: 0 } }));
  const { written, output } = capture();
  t.is(await main(['flows', '--json', '--run', run], output), 0);
  const lines = written.out.trimEnd().split('\n');
  t.deepEqual(
    lines.map((line) => JSON.parse(line).id),
    [flowId(1), flowId(1)],
  );
});

test('what is asked for is passed on', async (t) => {
  const asked: Request[] = [];
  const run = await serveAgent(t, (request) => {
    asked.push(request);
    return { ok: true, page: { flows: [], next: 0, missed: 0 } };
  });
  const { written, output } = capture();
  const options = ['--pod', 'a', '--from', 'b', '--to', 'c', '--verdict', 'denied', '--limit', '7', '--run', run];
  t.is(await main(['flows', ...options], output), 0);
  t.deepEqual(asked, [
    { method: 'flows', pod: 'a', from: 'b', to: 'c', verdict: 'denied', after: 0, limit: 7, waitMs: 0 },
  ]);
  t.is(written.out, '');
  t.regex(written.error, /no connection that has ended matches/);
});

test('--follow goes on from where it was, tells what it missed, and ends well when it is interrupted', async (t) => {
  const asked: Request[] = [];
  const run = await serveAgent(t, (request) => {
    asked.push(request);
    if (asked.length === 3) process.emit('SIGINT');
    const missed = asked.length === 2 ? 5 : 0;
    return { ok: true, page: { flows: [view({ sequence: asked.length })], next: asked.length * 10, missed } };
  });
  const { written, output } = capture();
  t.is(await main(['flows', '--follow', '--run', run], output), 0);
  t.deepEqual(
    asked.map((request) => request.method === 'flows' && [request.after, request.waitMs]),
    [
      [0, 0],
      [10, 20_000],
      [20, 20_000],
    ],
  );
  t.is(written.error, '5 flows were gone before they could be shown\n');
  t.is(written.out.trimEnd().split('\n').length, 3);
});

for (const wrong of [['--limit', '0'], ['--limit', '1001'], ['--nonsense'], ['surplus']])
  test(`flows ${wrong.join(' ')} is a usage error`, async (t) => {
    t.is(await main(['flows', ...wrong], capture().output), 2);
  });

const explanation: Explanation = {
  connects: false,
  steps: [
    { topic: 'source', state: 'good', text: 'shop/web-0 is enrolled on this node.', details: [] },
    {
      topic: 'policy',
      state: 'bad',
      text: `Policy ${'does not let it in, '.repeat(10)}at all.`,
      details: ['one', '  deeper'],
    },
    { topic: 'policy', state: 'unknown', text: 'And who knows\u0007.', details: [] },
  ],
  conclusion: 'shop/web-0 would not connect to shop/db: policy shop/no of shop/db-0 denies it.',
};

test('an explanation is told step by step and ends with one sentence', async (t) => {
  const asked: Request[] = [];
  const run = await serveAgent(t, (request) => {
    asked.push(request);
    return { ok: true, explanation };
  });
  const { written, output } = capture();
  t.is(await main(['explain', 'shop/web-0', 'shop/db:80', '--run', run], output), 1);
  t.deepEqual(asked, [{ method: 'explain', from: 'shop/web-0', to: 'shop/db:80' }]);
  const lines = written.out.split('\n');
  t.is(lines[0], 'source  ok shop/web-0 is enrolled on this node.');
  t.regex(lines[1] ?? '', /^policy {2}NO Policy does not/);
  t.regex(lines[2] ?? '', /^ {11}does not|^ {11}\S/);
  t.true(lines.every((line) => line.length <= 110));
  t.true(lines.includes('           - one'));
  t.true(lines.includes('             - deeper'));
  t.true(lines.includes('        ?  And who knows?.'));
  t.is(lines.at(-2), explanation.conclusion);
});

test('explain: 0 it would connect, 1 it would not, 2 a name is not known', async (t) => {
  const yes = await serveAgent(t, () => ({ ok: true, explanation: { ...explanation, connects: true } }));
  const { written, output } = capture();
  t.is(await main(['explain', '--flow', 'abcd', '--json', '--run', yes], output), 0);
  t.deepEqual(JSON.parse(written.out), { ...explanation, connects: true });
  const unknown = await serveAgent(t, () => {
    throw new AgentError('BAD_REQUEST', 'to: the mesh knows no pod');
  });
  t.is(await main(['explain', 'a', 'b', '--run', unknown], output), 2);
  t.regex(written.error, /to: the mesh knows no pod/);
});

for (const wrong of [[], ['a'], ['a', 'b', 'c'], ['a', '--flow', 'x'], ['a', 'b', '--flow', 'x']])
  test(`explain ${wrong.join(' ') || '(nothing)'} is a usage error`, async (t) => {
    t.is(await main(['explain', ...wrong], capture().output), 2);
  });

test('what the other end answered is told', async (t) => {
  const flows = [view({ ended: 'tunnel-refused', error: 'http status: 503 Service Unavailable', stage: 'addressed' })];
  const run = await serveAgent(t, () => ({ ok: true, page: { flows, next: 1, missed: 0 } }));
  const { written, output } = capture();
  await main(['flows', '--run', run], output);
  t.regex(written.out, / tunnel-refused \(503\) /);
});
