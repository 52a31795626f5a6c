import test from 'ava';
import { settled } from '../node/inspect.ts';
import { choicesOf, type Question, questionsOf, selectorQuestions, unanswered } from './boards.ts';
import { JOB } from './configuration.ts';
import { type Dashboard, dashboards, rules } from './files.ts';
import { type Scene, scene } from './scene.ts';

/** What a person would choose in turn; a query must show something for one of them. */
const CHOICES: Readonly<Record<string, ReadonlyArray<Readonly<Record<string, string>>>>> = {
  'culvert-mesh': ['destination', 'source'].map((reporter) => ({ cluster: '.*', namespace: '.*', reporter })),
  'culvert-node': ['near', 'far'].map((node) => ({ cluster: '.*', node })),
  'culvert-pod': ['server', 'client', 'local'].map((workload) => ({ cluster: '.*', namespace: 'shop', workload })),
};

/** Without which there would be little to see. */
const HAPPENED = [
  ...['mutual_tls', 'kernel', 'unknown'].map(
    (security) => `istio_tcp_connections_opened_total{connection_security_policy="${security}"} > 0`,
  ),
  'istio_tcp_connections_opened_total{reporter="destination", source_workload="unknown"} > 0',
  'istio_tcp_connections_failed_total{reporter="destination", response_flags="DENY"} > 0',
  'istio_tcp_connections_failed_total{reporter="source", response_flags="CONNECT"} > 0',
  'culvert_connection_resets_total{path="kernel", by="client"} > 0',
  'culvert_connection_resets_total{path="tunnel", by="client"} > 0',
  'culvert_endpoints_ejected{node="near"} > 0',
  'culvert_uncaptured_total{namespace="shop", reason="udp"} > 0',
  'culvert_connections_before_enrolment{namespace="shop"} > 0',
  'istio_xds_connection_terminations_total > 0',
  'ALERTS{alertname="CulvertTrafficUncaptured", namespace="shop", reason="raw-socket"} > 0',
];

const questions: ReadonlyArray<{ readonly name: string; readonly all: readonly Question[] }> = [
  ...dashboards.map(({ file, board }) => ({
    name: `every panel of ${file} shows something`,
    all: questionsOf(board, CHOICES[board.uid] ?? []),
  })),
  {
    name: 'there is traffic of every kind, and it is told of',
    all: HAPPENED.map((query) => ({ of: 'the scene', queries: [query] })),
  },
  {
    name: 'every recording rule records something',
    all: rules.flatMap(({ record }) => (record === undefined ? [] : [{ of: record, queries: [record] }])),
  },
  {
    name: 'everything that an alert reads is there',
    all: rules.flatMap(({ alert, expr }) => (alert === undefined ? [] : selectorQuestions(alert, expr))),
  },
];

let on: Scene;

test.before('connections of every kind, until there is something to show', async (t) => {
  t.timeout(300_000);
  on = await scene('monitoring');
  const all = questions.flatMap((each) => each.all);
  await settled(
    async () => {
      await on.round();
      return (await unanswered(on.prometheus, all)).length;
    },
    (missing) => missing === 0,
  );
});

test.after.always(() => on?.[Symbol.asyncDispose]());

test('Prometheus scrapes both agents by the configuration that is shipped', async (t) => {
  const [up = []] = await on.prometheus.ask(['up']);
  t.deepEqual(
    up
      .map(({ labels: { job, node, pod }, value }) => ({ job, node, pod, value }))
      .sort((one, other) => `${one.node}`.localeCompare(`${other.node}`)),
    ['far', 'near'].map((node) => ({ job: JOB, node, pod: `culvert-agent-${node}`, value: 1 })),
  );
});

test("promtool has nothing to say against what an agent exposes, but for two names of Istio's", async (t) => {
  const [near] = on.bed.nodes;
  const { stdout: text } = await near.exec(['curl', '--silent', '--fail', 'http://127.0.0.1:15020/metrics']);
  t.true(text.length > 0);
  const { stdout, stderr } = await near.exec(['promtool', 'check', 'metrics'], { stdin: text });
  const remarks = `${stdout}${stderr}`
    .split('\n')
    .filter((line) => line !== '' && !/^workload_manager_\w+_count /.test(line));
  t.deepEqual(remarks, []);
});

for (const { name, all } of questions)
  test(name, async (t) => {
    t.true(all.length > 0);
    t.deepEqual(await unanswered(on.prometheus, all), []);
  });

test('no rule fails', async (t) => {
  const states = await on.prometheus.rules();
  t.is(states.length, rules.length);
  t.deepEqual(
    states.filter(({ health }) => health !== 'ok'),
    [],
  );
});

test('the variables of the dashboards offer the nodes, namespaces and workloads that there are', async (t) => {
  const offered = (uid: string, name: string, values: Readonly<Record<string, string>> = {}): Promise<string[]> =>
    choicesOf(on.prometheus, boardOf(uid), name, { cluster: '.*', ...values });
  t.deepEqual(await offered('culvert-node', 'node'), ['far', 'near']);
  const servers = await offered('culvert-mesh', 'namespace', { reporter: 'source' });
  t.true(servers.includes('shop'), `${servers}`);
  t.deepEqual(await offered('culvert-pod', 'namespace'), ['bank', 'shop']);
  t.deepEqual(await offered('culvert-pod', 'workload', { namespace: 'shop' }), ['client', 'local', 'server']);
});

function boardOf(uid: string): Dashboard {
  const found = dashboards.find(({ board }) => board.uid === uid);
  if (found === undefined) throw new Error(`no dashboard ${uid}`);
  return found.board;
}

/** Labels by which Kiali makes its graph of TCP traffic. */
const GRAPH = [
  ...['source_cluster', 'source_workload_namespace', 'source_workload', 'source_canonical_service'],
  ...['source_canonical_revision', 'destination_cluster', 'destination_service_namespace', 'destination_service'],
  ...['destination_service_name', 'destination_workload_namespace', 'destination_workload'],
  ...['destination_canonical_service', 'destination_canonical_revision'],
];

const EDGES: ReadonlyArray<readonly [name: string, selector: string]> = [
  ['from outside', 'reporter="destination", source_workload="unknown", destination_workload_namespace="shop"'],
  [
    'from other namespaces',
    'reporter="source", source_workload_namespace!="shop", source_workload!="unknown", destination_workload_namespace="shop"',
  ],
  ['from the namespace itself', 'reporter="source", source_workload_namespace="shop"'],
];

for (const [name, selector] of EDGES)
  test(`Kiali's way to ask finds the traffic of a namespace ${name}`, async (t) => {
    for (const metric of ['istio_tcp_sent_bytes_total', 'istio_tcp_received_bytes_total']) {
      const by = [...GRAPH, 'response_flags'];
      const [edges = []] = await on.prometheus.ask([`sum(rate(${metric}{${selector}}[60s])) by (${by}) > 0`]);
      t.true(edges.length > 0, metric);
      // An edge that lacks one is left out of the graph.
      for (const { labels } of edges) t.deepEqual(Object.keys(labels).sort(), by.toSorted());
    }
  });

test("Kiali's way to ask finds who is behind an edge, and how it is secured", async (t) => {
  const by = ['source_principal', 'destination_principal', 'connection_security_policy'];
  const selector = 'reporter="destination", source_workload="client", destination_workload="server"';
  const [edges = []] = await on.prometheus.ask([
    `sum(rate(istio_tcp_received_bytes_total{${selector}}[60s])) by (${by}) > 0`,
  ]);
  t.deepEqual(
    edges.map(({ labels }) => labels),
    [
      {
        source_principal: 'spiffe://cluster.local/ns/shop/sa/client',
        destination_principal: 'spiffe://cluster.local/ns/shop/sa/server',
        connection_security_policy: 'mutual_tls',
      },
    ],
  );
});
