import test from 'ava';
import type { FlowGroup, RecentFlowsAnswer, StatusReply } from '../../../src/agent/index.ts';
import { main } from '../../../src/cli/main.ts';
import { readManifests } from '../../../src/control/index.ts';
import { capture } from './capture.ts';
import { serveAgent } from './fake-agent.ts';
import { podYaml, policyYaml, shop } from './policy-manifests.ts';

type Lasting = Parameters<typeof shop>[0];

const web = 'spiffe://cluster.local/ns/shop/sa/web';
const other = 'spiffe://cluster.local/ns/other/sa/x';

function flow(changes: Partial<FlowGroup> = {}): FlowGroup {
  return {
    direction: 'inbound',
    identity: web,
    sourceAddress: '10.0.0.1',
    destination: { address: '10.0.0.2', port: 5432 },
    workload: 'Kubernetes//Pod/shop/db-0',
    throughWaypoint: false,
    count: 3,
    refused: 0,
    last: '2026-01-01T00:00:00.000Z',
    ...changes,
  };
}

function plaintext(changes: Partial<FlowGroup> = {}): FlowGroup {
  const { identity: _, ...rest } = flow(changes);
  return { ...rest, sourceAddress: '10.0.0.9' };
}

/** In force: what these manifests say; seen: the flows, at db-0. */
async function recent(t: Lasting, policies: string, flows: readonly FlowGroup[]): Promise<RecentFlowsAnswer> {
  const directory = shop(t);
  directory.write('policies.yaml', policies);
  const { mesh } = await readManifests([directory.path]);
  return {
    flows: [...flows],
    workloads: mesh.workloads.map(({ uid, namespace, name, protocol, authorizationPolicies }) => ({
      uid,
      namespace,
      name,
      protocol,
      authorizationPolicies: [...authorizationPolicies],
    })),
    policies: [...mesh.policies],
    rootNamespace: 'istio-system',
    outsideMesh: 0,
  };
}

const status: StatusReply = {
  agent: { version: '1', pid: 7, state: 'serving', startedAt: '2026-01-01T00:00:00.000Z' },
  pods: [],
  unclaimed: [],
  workers: [],
  totals: { accepted: 0, closed: 0, failed: 0, unattributed: 0, bytesFromClients: 0, bytesFromServers: 0 },
  ended: {},
  paths: { outbound: { tunnel: 0, plain: 0, passthrough: 0 }, inbound: { tunnel: 0, plain: 0 } },
  sessions: { open: 0, opened: 0, handshakesFailed: 0 },
  descriptors: { open: 0, limit: 0 },
  mesh: null,
  kernelPath: null,
  node: null,
};

function podStatus(uid: string): StatusReply['pods'][number] {
  const names = { uid, name: uid, namespace: 'shop', netns: '/n', addresses: [], kernelEvents: {}, uncaptured: {} };
  return { ...names, path: 'enrolled', openConnections: 0 };
}

interface Replay {
  /** In force. */
  readonly now?: string;
  readonly flows: readonly FlowGroup[];
  readonly proposed: string;
  /** The manifests of the pods are given too. */
  readonly labels?: boolean;
}

async function replay(t: Lasting, { now = '', flows, proposed, labels = false }: Replay) {
  const answer = await recent(t, now, flows);
  const run = await serveAgent(t, (request) =>
    request.method === 'status'
      ? { ok: true, status: { ...status, pods: [podStatus('a')] } }
      : { ok: true, recent: answer },
  );
  const mesh = shop(t);
  mesh.write('policies.yaml', now);
  const file = shop(t).write('proposed.yaml', proposed);
  const { written, output } = capture();
  const more = labels ? ['--manifests', mesh.path] : [];
  const code = await main(['policy', 'replay', file, '--run', run, '--json', ...more], output);
  if (written.error !== '') throw new Error(written.error);
  return { code, report: JSON.parse(written.out) };
}

const all = (spec: string) => policyYaml('AuthorizationPolicy', 'shop/it', spec);
const forDb = (rest: string) => all(`{selector: {matchLabels: {app: db}}, ${rest}}`);
const mtls = (spec: string) => policyYaml('PeerAuthentication', 'shop/mtls', spec);
const onlyWeb = 'rules: [{from: [{source: {serviceAccounts: [web]}}]}]';
const strict = mtls('{mtls: {mode: STRICT}}');

/** Connections by what would become of them. */
type Counts = Partial<Record<'refused' | 'allowed' | 'unsure' | 'stillRefused' | 'stillAllowed', number>>;

for (const [title, given, code, counts, by] of [
  [
    'an ALLOW that does not match refuses',
    { flows: [flow(), flow({ identity: other, count: 2 })], proposed: all(`{${onlyWeb}}`) },
    1,
    { refused: 2, stillAllowed: 3 },
    'no rule of shop/it',
  ],
  [
    'a DENY that matches refuses',
    { flows: [flow()], proposed: all('{action: DENY, rules: [{}, {to: [{operation: {ports: ["5432"]}}]}]}') },
    1,
    { refused: 3 },
    'shop/it, rule 1',
  ],
  [
    'a wider ALLOW of the same name lets in',
    { now: all(`{${onlyWeb}}`), flows: [flow({ identity: other, refused: 3 })], proposed: all('{rules: [{}]}') },
    0,
    { allowed: 3 },
    'shop/it, rule 1',
  ],
  [
    'what was refused and would be is no change',
    { now: all(`{${onlyWeb}}`), flows: [flow({ identity: other })], proposed: all('{}') },
    0,
    { stillRefused: 3 },
    undefined,
  ],
  [
    'a dry run refuses nobody',
    {
      flows: [flow()],
      proposed: policyYaml('AuthorizationPolicy', 'shop/it', '{action: DENY, rules: [{}]}', 'istio.io/dry-run: "true"'),
    },
    0,
    { stillAllowed: 3 },
    undefined,
  ],
  [
    'a policy of another namespace changes nothing',
    { flows: [flow()], proposed: policyYaml('AuthorizationPolicy', 'other/it', '{}') },
    0,
    { stillAllowed: 3 },
    undefined,
  ],
  [
    'STRICT refuses plaintext, and only that',
    { flows: [flow(), plaintext({ count: 7 })], proposed: strict },
    1,
    { refused: 7, stillAllowed: 3 },
    'istio-system/istio_converted_static_strict, rule 1',
  ],
  [
    'STRICT that holds already changes nothing',
    { now: strict, flows: [plaintext()], proposed: strict },
    0,
    { stillRefused: 3 },
    undefined,
  ],
  [
    'STRICT for labels that nobody knows cannot be told for plaintext',
    {
      flows: [flow(), plaintext({ count: 7 })],
      proposed: mtls('{selector: {matchLabels: {app: db}}, mtls: {mode: STRICT}}'),
    },
    2,
    { unsure: 7, stillAllowed: 3 },
    'PeerAuthentication shop/mtls: the labels of shop/db-0 are not known',
  ],
  [
    'STRICT for labels that are known is',
    {
      flows: [plaintext({ count: 7 })],
      proposed: mtls('{selector: {matchLabels: {app: db}}, mtls: {mode: STRICT}}'),
      labels: true,
    },
    1,
    { refused: 7 },
    'istio-system/istio_converted_static_strict, rule 1',
  ],
  [
    'PERMISSIVE in place of STRICT cannot be told without the others',
    { now: strict, flows: [plaintext()], proposed: mtls('{mtls: {mode: PERMISSIVE}}') },
    2,
    { unsure: 3 },
    'PeerAuthentication shop/mtls: the labels of shop/db-0 are not known',
  ],
  [
    'PERMISSIVE in place of STRICT lets plaintext in',
    { now: strict, flows: [plaintext()], proposed: mtls('{mtls: {mode: PERMISSIVE}}'), labels: true },
    0,
    { allowed: 3 },
    'no policy',
  ],
  [
    'a selector of labels that nobody knows cannot be told',
    { flows: [flow({ identity: other })], proposed: forDb(onlyWeb) },
    2,
    { unsure: 3 },
    'AuthorizationPolicy shop/it: the labels of shop/db-0 are not known',
  ],
  [
    'a selector that makes no difference either way is no doubt',
    { flows: [flow()], proposed: forDb(onlyWeb) },
    0,
    { stillAllowed: 3 },
    undefined,
  ],
  [
    'a selector of labels that are known is told',
    { flows: [flow({ identity: other })], proposed: forDb(onlyWeb), labels: true },
    1,
    { refused: 3 },
    'no rule of shop/it',
  ],
  [
    'a selector that does not select changes nothing',
    {
      flows: [flow({ identity: other })],
      proposed: all(`{selector: {matchLabels: {app: web}}, ${onlyWeb}}`),
      labels: true,
    },
    0,
    { stillAllowed: 3 },
    undefined,
  ],
  [
    'a selector policy of a known name is for those that name it',
    { now: forDb('rules: [{}]'), flows: [flow({ identity: other })], proposed: forDb(onlyWeb) },
    1,
    { refused: 3 },
    'no rule of shop/it',
  ],
  [
    'labels beside the policy are known, too',
    {
      flows: [flow({ identity: other })],
      proposed: forDb(onlyWeb) + podYaml('db-0', { ip: '10.0.0.2', app: 'db' }),
    },
    1,
    { refused: 3 },
    'no rule of shop/it',
  ],
  [
    'a client whose address is not known cannot be told where addresses matter',
    {
      flows: [{ ...flow(), sourceAddress: undefined } as unknown as FlowGroup],
      proposed: all('{rules: [{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]}'),
    },
    2,
    { unsure: 3 },
    "a policy looks at the client's address, which is not known",
  ],
  [
    'where both ends tell of the same connections they count once',
    { flows: [flow({ count: 5 }), flow({ direction: 'outbound', count: 4 })], proposed: all('{}') },
    1,
    { refused: 5 },
    'no rule of shop/it',
  ],
  [
    'the addresses of one identity count together',
    { flows: [flow(), flow({ sourceAddress: '10.0.0.8', count: 4 })], proposed: all('{}') },
    1,
    { refused: 7 },
    'no rule of shop/it',
  ],
  [
    'what a waypoint lets through is left to it',
    {
      flows: [flow({ throughWaypoint: true })],
      proposed: all('{action: DENY, rules: [{to: [{operation: {ports: ["5432"], methods: [POST]}}]}]}'),
    },
    0,
    { stillAllowed: 3 },
    undefined,
  ],
] as ReadonlyArray<[string, Replay, 0 | 1 | 2, Counts, string | undefined]>)
  test(`a replay tells that ${title}`, async (t) => {
    const found = await replay(t, given);
    const none = { refused: 0, allowed: 0, unsure: 0, stillRefused: 0, stillAllowed: 0, outsideMesh: 0 };
    const { changes, ...rest } = found.report;
    t.deepEqual(rest, { ...none, ...counts });
    t.is(changes[0]?.by, by);
    t.is(found.code, code);
  });

test('the table names source, destination, count, last time and policy', async (t) => {
  const last = '2026-01-02T00:00:00.000Z';
  const answer = await recent(t, '', [flow(), flow({ sourceAddress: '10.0.0.8', last }), plaintext()]);
  const asked: string[] = [];
  const run = await serveAgent(t, (request) => {
    if (request.method === 'status') return { ok: true, status: { ...status, pods: ['a', 'b'].map(podStatus) } };
    asked.push(request.method === 'recent-flows' ? request.uid : request.method);
    return { ok: true, recent: asked.length === 1 ? answer : { ...answer, flows: [], outsideMesh: 4 } };
  });
  const file = shop(t).write('proposed.yaml', all('{}'));
  const { written, output } = capture();
  t.is(await main(['policy', 'replay', file, '--run', run], output), 1);
  t.deepEqual(asked, ['a', 'b']);
  t.regex(written.out, /^would be refused:\nSOURCE +DESTINATION +CONNECTIONS +LAST +BY$/m);
  t.regex(written.out, new RegExp(`^${web} +shop/db-0:5432 +6 +${last} +no rule of shop/it$`, 'm'));
  t.regex(written.out, /^10\.0\.0\.9 +shop\/db-0:5432 +3 /m);
  t.regex(written.out, /^recorded connections: 9 would be refused, 0 .*; 4 were to what is not in the mesh$/m);
});

test('an agent that has seen nothing says so', async (t) => {
  const run = await serveAgent(t, () => ({ ok: true, status }));
  const file = shop(t).write('proposed.yaml', all('{}'));
  const { written, output } = capture();
  t.is(await main(['policy', 'replay', file, '--run', run], output), 0);
  t.regex(written.out, /has recorded no connection yet/);
});

for (const [title, text, sentence] of [
  ['a broken file', 'kind: [', /^culvert: .*proposed\.yaml:1: /],
  [
    'a file without policies',
    podYaml('x', { ip: '10.0.0.1' }),
    /there is no AuthorizationPolicy and no PeerAuthentication in/,
  ],
] as const)
  test(`${title} cannot be replayed`, async (t) => {
    const run = await serveAgent(t, () => ({ ok: true, status }));
    const file = shop(t).write('proposed.yaml', text);
    const { written, output } = capture();
    t.is(await main(['policy', 'replay', file, '--run', run], output), 2);
    t.regex(written.error, sentence);
  });
