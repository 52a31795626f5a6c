/** What `culvert explain` and `culvert flows` say on real nodes, held against what was done. */
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import test from 'ava';
import type { FlowPage, FlowView } from '../../src/telemetry/index.ts';
import {
  authorizationPolicyManifest,
  type LabNode,
  type Outcome,
  peerAuthenticationManifest,
  serviceManifest,
} from '../lab/index.ts';
import { settled } from './inspect.ts';
import { changed, forServer, hangMs, pods } from './policy-bed.ts';
import { assertLetIn, assertRefused, type PolicyScene, policyScene } from './policy-callers.ts';
import { APP_PORT, SERVICE_PORT, VIP } from './tunnel-bed.ts';

let scene: PolicyScene;

test.serial.before(async () => {
  scene = await policyScene('explain', { kernelPath: true });
});

test.serial.after.always(() => scene?.bed.lab.dispose());

const main = join(import.meta.dirname, '../../src/cli/main.ts');
const SERVICE = 'server.shop.svc.cluster.local';

/** Runs the command on a node, as an operator would. */
function culvert(node: LabNode, ...argv: readonly string[]): Promise<Outcome> {
  return node.exec([process.execPath, main, ...argv, '--run', node.runDirectory]);
}

async function assertExplained(
  t: { is(actual: unknown, expected: unknown, message?: string): unknown; regex(text: string, law: RegExp): unknown },
  node: LabNode,
  question: readonly string[],
  code: number,
  ...laws: readonly RegExp[]
): Promise<string> {
  const said = await culvert(node, 'explain', ...question);
  const all = `${said.stdout}${said.stderr}`;
  t.is(said.code, code, all);
  // As one reads it, wherever it was wrapped.
  const text = all.replaceAll(/\s+/g, ' ');
  for (const law of laws) t.regex(text, law);
  return all;
}

/** The newest flow of the node that is so, as soon as there is one that ended after `since`. */
async function flowOf(node: LabNode, since: number, wanted: (flow: FlowView) => boolean): Promise<FlowView> {
  const agent = scene.bed.agents.find((each) => each.node === node);
  if (agent === undefined) throw new Error('no agent');
  const look = async () => {
    const reply = await agent.request({ method: 'flows', limit: 100 });
    return (reply.page as FlowPage).flows.filter((flow) => flow.endedAt >= since && wanted(flow)).at(-1);
  };
  const found = await settled(look, (flow) => flow !== undefined);
  if (found === undefined) throw new Error('no such flow');
  return found;
}

test.serial('what would be allowed is explained from end to end, and then it is', async (t) => {
  const { bed, callers, policies } = scene;
  const [near, far] = bed.nodes;
  await policies.are(forServer('ALLOW', pods(bed.pods.client)));
  await assertExplained(
    t,
    near,
    ['shop/client', SERVICE],
    0,
    /source ok shop\/client is enrolled on this node/,
    /capture ok Connections of shop\/client are captured/,
    /route ok It leads to shop\/server at \S+:8080, which is in the mesh/,
    /endpoint ok shop\/server is the only endpoint of the service shop\/server/,
    /destination \? shop\/server runs on node far/,
    /policy ok Policy lets spiffe:\S+client in to shop\/server: policy shop\/rule, rule 1, lets it in/,
    /certificates ok The certificate of spiffe:\S+client is valid, expires in \d+ hours/,
    /path ok Through the tunnel, by mutual TLS, to shop\/server at \S+:15008 on node far/,
    /shop\/client would connect to the service shop\/server, port 80, and both prove who they are\. $/,
  );
  // The half that arrives, on the node of the server.
  await assertExplained(
    t,
    far,
    ['shop/client', `shop/server:${APP_PORT}`],
    0,
    /source \? shop\/client runs on node near/,
    /as far as this node knows\. $/,
  );
  assertLetIn(t, await callers.client.call(VIP.ipv4, SERVICE_PORT), 'client');
});

test.serial('what policy denies is explained with the policy, before and after', async (t) => {
  const { bed, callers, policies } = scene;
  const [near, far] = bed.nodes;
  await policies.are(forServer('DENY', pods(bed.pods.client)));
  const law =
    /shop\/client would not connect to shop\/server, port 8080: policy shop\/rule of shop\/server denies it\. $/;
  for (const node of [near, far]) await assertExplained(t, node, ['shop/client', `shop/server:${APP_PORT}`], 1, law);
  const since = Date.now();
  assertRefused(t, await callers.client.call(bed.pods.server.ipv4, APP_PORT), 'client');
  const arrived = await flowOf(far, since, ({ direction }) => direction === 'inbound');
  t.like(arrived, { ended: 'policy-denied', decision: { allowed: false, policy: 'shop/rule' }, stage: 'addressed' });
  await assertExplained(
    t,
    far,
    ['--flow', arrived.id],
    1,
    /policy NO Policy refused it: explicitly denied by: shop\/rule/,
    /was refused by policy \(shop\/rule\)/,
  );
  // The same connection, under the same id, where it began.
  await flowOf(near, since, ({ id }) => id === arrived.id);
  await assertExplained(t, near, ['--flow', arrived.id], 1, /was refused by policy/, /http status: 401/);
  await assertExplained(
    t,
    near,
    ['shop/client', `shop/server:${APP_PORT}`],
    1,
    /flows i The last one between the two ended with tunnel-refused/,
  );
});

test.serial('where no ALLOW policy matches, each of them is named', async (t) => {
  const { bed, policies } = scene;
  await policies.are(forServer('ALLOW', pods(bed.pods.neighbour)));
  await assertExplained(
    t,
    bed.nodes[0],
    ['shop/client', `shop/server:${APP_PORT}`],
    1,
    /none of the policies that allow somebody in to shop\/server allows it: shop\/rule\. $/,
  );
});

test.serial('two pods of one node meet on the kernel path', async (t) => {
  const { bed, callers, policies } = scene;
  const [, far] = bed.nodes;
  await policies.are();
  const question = ['shop/neighbour', `shop/server:${APP_PORT}`];
  await assertExplained(
    t,
    far,
    question,
    0,
    /path ok Both are on this node and policy allows it: the first connection goes through the tunnel/,
  );
  const since = Date.now();
  assertLetIn(t, await callers.neighbour.call(bed.pods.server.ipv4, APP_PORT), 'neighbour');
  await settled(
    async () => (await culvert(far, 'explain', ...question)).stdout,
    (text) => text.includes('On the kernel path: both are on this node'),
  );
  assertLetIn(t, await callers.neighbour.call(bed.pods.server.ipv4, APP_PORT), 'neighbour');
  const flow = await flowOf(far, since, ({ path, direction }) => path === 'kernel' && direction === 'outbound');
  await assertExplained(
    t,
    far,
    ['--flow', flow.id.slice(0, 16)],
    0,
    /the kernel vouched for both ends/,
    /went well from beginning to end\. $/,
  );
});

test.serial('a service without an endpoint is said to have none', async (t) => {
  const { bed, callers, policies } = scene;
  await policies.are();
  const [near] = bed.nodes;
  const ip = '10.96.7.7';
  const empty = serviceManifest('empty', { namespace: 'shop', clusterIps: [ip], ports: { 80: 80 } });
  await changed(bed, () => bed.control.write('empty.yaml', empty));
  await assertExplained(
    t,
    near,
    ['shop/client', 'shop/empty'],
    1,
    /would not connect to the service shop\/empty, port 80: the service shop\/empty has no endpoint for port 80\. $/,
  );
  const since = Date.now();
  assertRefused(t, await callers.client.call(ip, 80), 'client');
  const flow = await flowOf(near, since, ({ ended }) => ended === 'no-endpoint');
  await assertExplained(t, near, ['--flow', flow.id], 1, /ended with no-endpoint/);
});

test.serial('a dead endpoint is known by the connections that could not be made', async (t) => {
  const { bed, callers, policies } = scene;
  const [near, far] = bed.nodes;
  await policies.are();
  const port = 9_999;
  const since = Date.now();
  assertRefused(t, await callers.client.call(bed.pods.server.ipv4, port), 'client');
  await flowOf(near, since, ({ ended }) => ended === 'tunnel-refused');
  await flowOf(far, since, ({ ended }) => ended === 'dial-refused');
  const laws = [/the last connection, \S+ m?s ago, could not be made:/];
  await assertExplained(t, near, ['shop/client', `shop/server:${port}`], 1, ...laws);
  await assertExplained(
    t,
    far,
    ['shop/client', `shop/server:${port}`],
    1,
    ...laws,
    /nobody listens at the destination/,
    /What to do: See the app\./,
  );
});

test.serial('a pod that is not enrolled goes past the mesh, and STRICT refuses it', async (t) => {
  const { bed, callers, policies } = scene;
  const [near] = bed.nodes;
  const question = ['shop/outsider', `shop/server:${APP_PORT}`];
  await policies.are();
  await assertExplained(
    t,
    near,
    question,
    0,
    /source i shop\/outsider runs on this node, but it is not enrolled/,
    /in the clear, past the mesh\. $/,
  );
  assertLetIn(t, await callers.outsider.call(bed.pods.server.ipv4, APP_PORT), 'outsider');
  await policies.are(peerAuthenticationManifest('strict'));
  await assertExplained(
    t,
    near,
    question,
    1,
    /shop\/server takes no plaintext: policy istio-system\/istio_converted_static_strict asks for mutual TLS\. $/,
  );
  assertRefused(t, await callers.outsider.call(bed.pods.server.ipv4, APP_PORT), 'outsider');
  await assertExplained(t, near, [bed.pods.outsider.ipv4, `shop/server:${APP_PORT}`], 1, /takes no plaintext/);
});

test.serial('an excluded port goes past the mesh', async (t) => {
  const { bed, policies } = scene;
  const [near] = bed.nodes;
  const [agent] = bed.agents;
  await policies.are(peerAuthenticationManifest('strict'));
  const question = ['shop/client', `shop/server:${APP_PORT}`];
  await assertExplained(t, near, question, 0, /both prove/);
  await agent.enrol(bed.pods.client, { excludeOutboundPorts: [APP_PORT] });
  await assertExplained(
    t,
    near,
    question,
    1,
    /capture i Connections of shop\/client to \S+:8080 are not captured: its exclusions name port 8080\./,
    /takes no plaintext/,
  );
  await agent.enrol(bed.pods.client);
  await assertExplained(t, near, question, 0);
});

test.serial('names that mean nothing are usage errors that say which are near', async (t) => {
  const [near] = scene.bed.nodes;
  await assertExplained(t, near, ['shop/clinet', 'shop/server:80'], 2, /from: .*did you mean shop\/client\?/);
  await assertExplained(t, near, ['shop/client', 'shop/sever:80'], 2, /to: .*did you mean shop\/server/);
  await assertExplained(t, near, ['shop/client', '192.0.2.1'], 2, /say which port/);
  await assertExplained(t, near, ['--flow', 'deadbeef'], 2, /keeps no flow deadbeef/);
  await assertExplained(t, near, ['shop/client'], 2, /give SOURCE and DESTINATION/);
});

test.serial('flows lists what ended, and --follow tells of the next until it is interrupted', async (t) => {
  const { bed, callers, policies } = scene;
  const [near] = bed.nodes;
  await policies.are(authorizationPolicyManifest('rule', { namespace: 'bank', action: 'DENY', rules: [{}] }));
  const following = near.run([
    process.execPath,
    main,
    'flows',
    '--follow',
    '--json',
    '--to',
    SERVICE,
    '--limit',
    '1',
    '--run',
    near.runDirectory,
  ]);
  // The last one before, which is there since the first of these tests.
  await following.told({ podName: 'client', ended: 'clean' }, { deadlineMs: hangMs });
  const since = Date.now();
  assertLetIn(t, await callers.client.call(VIP.ipv4, SERVICE_PORT), 'client');
  const { id } = await flowOf(near, since, ({ ended }) => ended === 'clean');
  await following.told({ id, direction: 'outbound', ended: 'clean' }, { deadlineMs: hangMs });
  const exit = await following.kill('SIGINT');
  t.is(exit.code, 0);
  const table = await culvert(near, 'flows', '--pod', 'shop/client', '--verdict', 'clean');
  t.is(table.code, 0, table.stderr);
  t.regex(table.stdout, /^TIME +FROM +TO +VERDICT +PATH +SECURED +BYTES +DURATION +ID\n/);
  t.regex(table.stdout, /shop\/client +shop\/server:80 +ok +tunnel> +mtls +\d/);
  const wrong = await culvert(near, 'flows', '--pod', 'shop/nobody');
  t.is(wrong.code, 2, wrong.stdout);
  t.regex(wrong.stderr, /no pod of this node is enrolled as/);
  const none = await culvert(near, 'flows', '--verdict', 'nonsense');
  t.is(none.code, 2);
});

test.serial('who waits for a flow does not hold up the end of the agent', async (t) => {
  const [agent] = scene.bed.agents;
  const socket = createConnection(agent.socket);
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  socket.write('{"method":"status"}\n{"method":"flows","verdict":"internal","waitMs":30000}\n');
  await lines.next();
  // The next on its connection is under way, long before this is answered on another.
  await agent.status();
  const began = performance.now();
  await agent.stop();
  t.true(performance.now() - began < 25_000);
  t.like(JSON.parse((await lines.next()).value ?? ''), { ok: true, page: { flows: [] } });
});
