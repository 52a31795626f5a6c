import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import test from 'ava';
import { parseAllDocuments } from 'yaml';
import { program } from '../../src/cli/main.ts';
import { type Configuration, daemonSet, discovered, JOB, type Labels, shipped, withTargets } from './configuration.ts';
import { kubernetesObject, monitoring, promtool, type RuleFile, read, root, ruleFiles, yaml } from './files.ts';

interface PodMonitor {
  readonly metadata: { readonly namespace: string };
  readonly spec: {
    readonly selector: { readonly matchLabels: Labels };
    readonly podMetricsEndpoints: ReadonlyArray<{
      readonly port: string;
      readonly path: string;
      readonly honorLabels: boolean;
      readonly relabelings: ReadonlyArray<{ readonly targetLabel: string; readonly replacement?: string }>;
    }>;
  };
}

const { annotations, labels } = daemonSet.spec.template.metadata;

/** What the job makes of a target; `labels` is empty where it is left out. */
interface Target {
  readonly discoveredLabels: Labels;
  readonly labels: Labels | null;
}

/** The targets of a configuration, by the address of their pods, as promtool works them out. */
function targetsOf(configuration: Configuration): Readonly<Record<string, Labels>> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-config-'));
  try {
    const file = join(folder, 'prometheus.json');
    writeFileSync(file, JSON.stringify({ ...configuration, rule_files: [] }));
    // It waits as long, whatever it finds.
    const { code, output } = promtool('check', 'service-discovery', '--timeout=3s', file, JOB);
    if (code !== 0) throw new Error(output);
    const found = JSON.parse(output.slice(output.indexOf('['))) as readonly Target[];
    return Object.fromEntries(
      found.map((each) => [each.discoveredLabels.__meta_kubernetes_pod_ip ?? '', each.labels ?? {}]),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('promtool accepts the example with static addresses', (t) => {
  const { code, output } = promtool('check', 'config', '--syntax-only', join(monitoring, 'prometheus-static.yml'));
  t.is(code, 0, output);
});

test('both examples are alike but for how they find the agents', (t) => {
  const known = yaml<Configuration>('deploy/monitoring/prometheus-static.yml');
  t.deepEqual({ ...shipped, scrape_configs: [] }, { ...known, scrape_configs: [] });
  for (const { scrape_configs } of [shipped, known])
    t.deepEqual(
      scrape_configs.map(({ job_name }) => job_name),
      [JOB],
    );
  t.is(known.scrape_configs[0]?.metrics_path, annotations['prometheus.io/path']);
});

test('the example with static addresses names the nodes of the demo', (t) => {
  const known = yaml<Configuration>('deploy/monitoring/prometheus-static.yml').scrape_configs[0]?.static_configs ?? [];
  const pods = parseAllDocuments(read('demo/manifests/pods.yaml')).map(
    (document) => document.toJS() as { spec: { nodeName: string }; status: { podIP: string } },
  );
  t.true(pods.length > 0);
  // A node is the gateway of its pods, at the first address of their block.
  const gateways = pods.map(({ spec, status }) => `${spec.nodeName} ${status.podIP.replace(/\d+$/, '1')}:15020`);
  t.deepEqual(
    known.map(({ targets, labels }) => `${labels?.node} ${targets}`),
    [...new Set(gateways)].sort(),
  );
});

test('the annotations of the DaemonSet lead Prometheus to where the agent listens', (t) => {
  const option = program({ out: () => undefined, error: () => undefined }, () => undefined)
    .commands.find((each) => each.name() === 'agent')
    ?.options.find(({ long }) => long === '--metrics');
  t.is(`${option?.defaultValue.port}`, annotations['prometheus.io/port'] ?? '');
});

test('prometheus.yml scrapes the agents, as their annotations say, and no other pods', (t) => {
  const targets = targetsOf(
    withTargets([
      discovered('10.0.0.7', 'n1'),
      discovered('fd00::7', 'n2'),
      discovered('10.0.0.8', 'n1', { __meta_kubernetes_pod_label_app_kubernetes_io_component: 'control' }),
      discovered('10.0.0.9', 'n1', { __meta_kubernetes_pod_annotation_prometheus_io_scrape: 'false' }),
    ]),
  );
  const labelsOf = (address: string, node: string): Labels => ({
    __address__: address,
    __metrics_path__: '/stats/prometheus',
    __scheme__: 'http',
    __scrape_interval__: '15s',
    __scrape_timeout__: '10s',
    instance: address,
    job: JOB,
    node,
    pod: `culvert-agent-${node}`,
  });
  t.deepEqual(targets, {
    '10.0.0.7': labelsOf('10.0.0.7:15020', 'n1'),
    'fd00::7': labelsOf('[fd00::7]:15020', 'n2'),
    '10.0.0.8': {},
    '10.0.0.9': {},
  });
});

test('the PodMonitor finds the pods of the DaemonSet, and scrapes what the annotations say', (t) => {
  const { metadata, spec } = kubernetesObject<PodMonitor>('PodMonitor', 'deploy/monitoring/podmonitor.yaml');
  t.is(metadata.namespace, daemonSet.metadata.namespace);
  t.like(labels, spec.selector.matchLabels);
  const [endpoint] = spec.podMetricsEndpoints;
  const port = daemonSet.spec.template.spec.containers[0]?.ports.find(({ name }) => name === endpoint?.port);
  t.is(`${port?.containerPort}`, annotations['prometheus.io/port'] ?? '');
  t.is(endpoint?.path, annotations['prometheus.io/path']);
  t.true(endpoint?.honorLabels);
  t.deepEqual(
    endpoint?.relabelings.map(({ targetLabel, replacement }) => [targetLabel, replacement]),
    [
      ['job', JOB],
      ['node', undefined],
    ],
  );
});

test("the README's command makes PrometheusRules of the rules", (t) => {
  const [, command = ''] =
    /^ {6}(for file in rules.*?done) \| kubectl/ms.exec(read('deploy/monitoring/README.md')) ?? [];
  const printed = execFileSync('sh', ['-c', command], { cwd: monitoring, encoding: 'utf8' });
  const made = parseAllDocuments(printed)
    .map((document) => document.toJS() as { kind: string; metadata: { name: string }; spec: RuleFile } | null)
    .filter((each) => each !== null);
  t.deepEqual(
    made.map(({ kind, metadata }) => [kind, metadata.name]),
    [
      ['PrometheusRule', 'culvert-alerts'],
      ['PrometheusRule', 'culvert-recording'],
    ],
  );
  const known = ruleFiles.map((file) => yaml<RuleFile>(relative(root, file)).groups.length);
  t.deepEqual(made.map(({ spec }) => spec.groups.length).sort(), known.sort());
});
