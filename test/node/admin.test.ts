/** The admin port, the config dump and the log level, with real agents. */
import { join } from 'node:path';
import test from 'ava';
import type { StatusReply } from '../../src/agent/index.ts';
import { projectRoot } from '../lab/compile.ts';
import { apps, Lab, type LabNode, type LabPod } from '../lab/index.ts';
import { metric, readMetrics } from './conversation.ts';
import { Held } from './held.ts';
import { type HttpAnswer, type HttpRequest, http } from './http.ts';
import { settled } from './inspect.ts';
import { pathBed, pathStatus, trio } from './kernel-path-bed.ts';
import { APP_PORT, endpointsOf, pair, podOf, tunnelBed } from './tunnel-bed.ts';

const ADMIN = 'http://127.0.0.1:15000';

async function ask(node: LabNode, path: string, request: HttpRequest = {}): Promise<HttpAnswer> {
  const answer = await http(node, `${ADMIN}${path}`, request);
  if (answer === undefined) throw new Error(`nobody answers at ${ADMIN}${path}`);
  return answer;
}

interface Dump {
  readonly workloads: ReadonlyArray<Record<string, unknown>>;
  readonly services: ReadonlyArray<Record<string, unknown>>;
  readonly certificates: ReadonlyArray<Record<string, unknown>>;
  readonly workloadState: Readonly<Record<string, { state: string; connections: Connections }>>;
  readonly config: Record<string, unknown>;
}

interface Connections {
  readonly inbound: ReadonlyArray<Record<string, unknown>>;
  readonly outbound: ReadonlyArray<Record<string, unknown>>;
}

test.serial('the config dump tells what the agent knows, from its port and from the command line', async (t) => {
  await using bed = await tunnelBed(t.title, pair);
  const [near, far] = bed.agents;
  const { client, server } = bed.pods;
  await server.run(apps.echo({ port: APP_PORT, quiet: true })).json({ event: 'listening' });
  await Promise.all([near.issued(client), far.issued(server)]);
  const held = await Held.open(client, [apps.endpoint(server.ipv4, APP_PORT)], 2);

  const { status, headers, text } = await ask(bed.nodes[0], '/config_dump');
  t.is(status, 200);
  t.is(headers['content-type'], 'application/json');
  t.false(text.includes('PRIVATE KEY') || text.includes(Buffer.from('PRIVATE KEY').toString('base64').slice(0, 12)));
  const dump = JSON.parse(text) as Dump;
  t.is(text, JSON.stringify(dump, undefined, 2), 'it is pretty-printed');
  t.like(
    dump.workloads.find(({ name }) => name === 'server'),
    { workloadIps: [...server.addresses], namespace: 'shop', serviceAccount: 'server', protocol: 'HBONE' },
  );
  t.is(Object.keys(dump.services[0]?.endpoints ?? {}).length, 1);
  const [certificate] = dump.certificates;
  t.like(certificate, { identity: client.identity, state: 'Available' });
  const ofClient = dump.workloadState[client.uid];
  t.is(ofClient?.state, 'Up');
  t.is(ofClient?.connections.outbound.length, 2);
  t.like(ofClient?.connections.outbound[0], {
    originalDst: apps.endpoint(server.ipv4, APP_PORT),
    actualDst: apps.endpoint(server.ipv4, 15008),
    protocol: 'HBONE',
  });

  const argv = [process.execPath, join(projectRoot, 'src/cli/main.ts'), 'config-dump', '--run'];
  const { code, stdout } = await bed.nodes[1].exec([...argv, bed.nodes[1].runDirectory]);
  t.is(code, 0);
  const ofServer = (JSON.parse(stdout) as Dump).workloadState[server.uid];
  t.is(ofServer?.connections.inbound.length, 2);
  t.like(ofServer?.connections.inbound[0], {
    originalDst: null,
    actualDst: apps.endpoint(server.ipv4, APP_PORT),
    protocol: 'HBONE',
  });
  await held.close();
});

test.serial('a connection on the kernel path stands in the config dump at both of its pods', async (t) => {
  await using bed = await pathBed(t.title, trio);
  const { client, server } = bed.pods;
  const port = 9090;
  await server.run(apps.echo({ port, quiet: true })).json({ event: 'listening' });
  const to = apps.endpoint(server.ipv4, port);
  const first = await Held.open(client, [to], 1);
  await settled(
    () => pathStatus(bed.agent),
    ({ verdicts }) => verdicts > 0,
  );
  const held = await Held.open(client, [to], 2);
  const { workloadState } = JSON.parse((await ask(bed.node, '/config_dump')).text) as Dump;
  const out = workloadState[client.uid]?.connections.outbound ?? [];
  const into = workloadState[server.uid]?.connections.inbound ?? [];
  t.deepEqual(out.map(({ protocol }) => protocol).sort(), ['HBONE', 'TCP', 'TCP']);
  t.deepEqual(into.map(({ protocol }) => protocol).sort(), ['HBONE', 'TCP', 'TCP']);
  for (const each of out.filter(({ protocol }) => protocol === 'TCP')) {
    t.like(each, { originalDst: to, actualDst: to });
    t.true(into.some(({ src, actualDst }) => src === each.src && actualDst === to));
  }
  await Promise.all([first.close(), held.close()]);
});

test.serial('the log level is set while the agent runs, and nothing is by who may not ask', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const agent = await node.agent({ logLevel: 'info' });
  const post = { method: 'POST' };
  t.is((await ask(node, '/logging', post)).text, 'current log level is info\n');
  t.is((await ask(node, '/logging?level=info,tunnel=debug', post)).text, 'current log level is info,tunnel=debug\n');
  await agent.told({ message: 'the log level has been set', level: 'info,tunnel=debug' });
  t.is((await ask(node, '/logging')).status, 405);
  t.is((await ask(node, '/logging?level=loud', post)).status, 400);

  for (const headers of [
    { Host: 'evil.example' },
    { Host: 'evil.example:15000' },
    { Origin: 'http://evil.example' },
    { 'Sec-Fetch-Site': 'cross-site' },
  ]) {
    t.is((await ask(node, '/logging?level=trace', { ...post, headers })).status, 403);
    t.is((await ask(node, '/quitquitquit', { ...post, headers })).status, 403);
    t.is((await ask(node, '/config_dump', { headers })).status, 403);
  }
  t.deepEqual(await agent.request({ method: 'log-level' }), { ok: true, level: 'info,tunnel=debug' });
  t.deepEqual(await agent.request({ method: 'log-level', reset: true }), { ok: true, level: 'info' });
  t.like(await agent.request({ method: 'log-level', level: 'loud' }), { ok: false, error: { code: 'BAD_REQUEST' } });
});

/** Every address of the node's own. */
async function addressesOf(node: LabNode): Promise<string[]> {
  const { stdout } = await node.exec(['ip', '-j', 'address', 'show']);
  const links = JSON.parse(stdout) as ReadonlyArray<{ addr_info: ReadonlyArray<{ local: string; scope: string }> }>;
  return links.flatMap(({ addr_info: all }) => all.filter(({ scope }) => scope !== 'link').map(({ local }) => local));
}

test.serial('nobody but the node itself reaches the admin port', async (t) => {
  await using bed = await tunnelBed(t.title, async (near, far) => {
    const layout = await pair(near, far);
    return { ...layout, pods: { ...layout.pods, stranger: await podOf(near, 'stranger') } };
  });
  const [near, far] = bed.nodes;
  t.is((await ask(near, '/healthz')).text, 'ok\n');
  const { client, server, stranger } = bed.pods;
  const addresses = await addressesOf(near);
  t.true(addresses.includes('127.0.0.1') && addresses.includes(near.ipv4));
  for (const address of addresses)
    for (const from of [client, stranger, server, far] as const) {
      // At its own loopback address the far node finds its own agent.
      if (from === far && (address === '127.0.0.1' || address === '::1')) continue;
      const url = `http://${apps.endpoint(address, 15000)}/config_dump`;
      t.is(await http(from as LabPod, url), undefined, `${from.name} reaches ${address}`);
    }
});

test.serial('asked to stop, the agent drains first', async (t) => {
  await using bed = await tunnelBed(t.title, pair, { args: ['--drain', '60'] });
  const [agent] = bed.agents;
  const { client, server } = bed.pods;
  await server.run(apps.echo({ port: APP_PORT, quiet: true })).json({ event: 'listening' });
  await agent.issued(client);
  const held = await Held.open(client, endpointsOf(server), 2);
  t.is((await ask(bed.nodes[0], '/quitquitquit')).status, 405);
  t.like(await ask(bed.nodes[0], '/quitquitquit', { method: 'POST' }), { status: 200, text: 'shutdown now\n' });
  await agent.told({ message: 'agent stops: draining' });
  t.is(await held.alive(), 2);
  t.is((await ask(bed.nodes[0], '/healthz')).status, 200, 'the port is open until the end');
  t.like(await held.close(), { lost: 0 });
  const { code } = await agent.process.exit;
  t.is(code, 0);
});

test.serial('the admin port can be off, elsewhere, or taken; pods are served anyhow', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const off = await node.agent({ args: ['--admin', 'off'] });
  t.is(await http(node, `${ADMIN}/healthz`), undefined);
  await off.stop();

  const elsewhere = await node.agent({ args: ['--admin', '[::1]:9000'] });
  t.is((await http(node, 'http://[::1]:9000/healthz'))?.status, 200);
  t.is(await http(node, `${ADMIN}/healthz`), undefined);
  await elsewhere.stop();

  const squatter = node.run(['python3', '-u', '-m', 'http.server', '15000', '--bind', '127.0.0.1']);
  await squatter.line(/Serving HTTP/);
  const agent = await node.agent();
  await agent.told({ message: 'the admin port cannot be opened; trying again' });
  const pod = await node.pod('client');
  await agent.enrol(pod);
  const { status } = (await agent.status()) as { status: StatusReply };
  t.like(
    status.node?.ports.find(({ name }) => name === 'admin'),
    { address: '127.0.0.1:15000', listening: false },
  );
  t.is(status.pods[0]?.path, 'enrolled');
});

test.serial('the metrics tell of pods, programs, maps, certificates, the control process and costs', async (t) => {
  await using bed = await tunnelBed(t.title, pair);
  const [agent] = bed.agents;
  const { client, server } = bed.pods;
  await server.run(apps.echo({ port: APP_PORT, quiet: true })).json({ event: 'listening' });
  await agent.issued(client);
  const held = await Held.open(client, endpointsOf(server), 2);
  const read = await readMetrics(agent);
  const identity = `identity="${client.identity}"`;
  t.is(read('workload_manager_active_proxy_count'), 1);
  t.is(read('workload_manager_proxies_started_total'), 1);
  t.is(read('culvert_pods_not_served'), 0);
  t.true(read('culvert_programs', 'state="running"') > 0);
  t.true(read('culvert_map_capacity', 'map="pods"') >= 250);
  t.true(read('culvert_certificate_expiry_timestamp_seconds', identity) > Date.now() / 1000);
  t.is(read('culvert_certificates', 'state="available"'), 1);
  t.is(read('culvert_control_connected'), 1);
  t.true(read('culvert_control_last_update_timestamp_seconds') > 0);
  t.true(read('istio_xds_message_total', 'url="type.googleapis.com/istio.workload.Address"') > 0);
  t.true(read('istio_xds_message_bytes_total', 'url="type.googleapis.com/istio.workload.Address"') > 100);
  t.is(read('istio_xds_connection_terminations_total', 'reason="Error"'), 0);
  // Costs are shared out once a second.
  const memory = (): Promise<number> => metric(agent, 'culvert_tunnel_memory_bytes', 'namespace="shop"');
  t.true((await settled(memory, (bytes) => bytes > 0)) > 0);
  t.true(read('culvert_worker_delay_seconds', 'worker="0",quantile="0.99"') >= 0);
  await held.close();
});

test.serial('status tells of kernel, ports and preflight, and is quick to read', async (t) => {
  await using lab = await Lab.create(t.title);
  const node = await lab.node('n1');
  const agent = await node.agent();
  await agent.enrol(await node.pod('client'));
  const { status } = (await agent.status()) as { status: StatusReply };
  t.true(status.node?.kernel.programs.every(({ state }) => state === 'running'));
  t.true(
    status.node?.kernel.maps.some(
      ({ name, entries, capacity }) => name === 'pods' && entries <= capacity && capacity >= 250,
    ),
  );
  t.not(status.node?.preflight.result, 'failed');
  t.true(status.node?.preflight.checks.some(({ check }) => check === 'kernel'));
  t.like(
    status.node?.ports.find(({ name }) => name === 'admin'),
    { address: '127.0.0.1:15000', listening: true },
  );
  const argv = [process.execPath, join(projectRoot, 'src/cli/main.ts'), 'status', '--run', node.runDirectory];
  const { stdout } = await node.exec(argv);
  t.regex(stdout, /^pods: 1 enrolled; 0 connections open/m);
  t.regex(stdout, /^ports: .*admin 127\.0\.0\.1:15000/m);
});
