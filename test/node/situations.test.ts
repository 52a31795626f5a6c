/** Situations that a connection can be in: what the counters, the log and `culvert explain` say of each agrees with what was done. */
import test, { type ExecutionContext } from 'ava';
import {
  apps,
  authorizationPolicyManifest,
  endpointSliceManifest,
  furnish,
  type LabPod,
  type LabProcess,
  type Manifest,
  peerAuthenticationManifest,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { assertAgree, type Done, explain, type Seen } from './agreement.ts';
import { type Conversation, converse, serve } from './conversation.ts';
import { settled } from './inspect.ts';
import { Loss } from './loss.ts';
import { changed, from, Policies } from './policy-bed.ts';
import { APP_PORT, podOf, SERVICE_PORT, type TunnelBed, tunnelBed, VIP } from './tunnel-bed.ts';

const hangMs = 300_000;
/** Nobody listens there. */
const CLOSED_PORT = 9;
/** Somebody does for a while. */
const CLOSING_PORT = 8090;
const OWN_VIP = '10.96.0.2';
const EMPTY_VIP = '10.96.0.3';
const MIXED_VIP = '10.96.0.4';
const EXCLUDED_PORT = 8099;

interface Pods {
  /** Near: who asks. */
  readonly client: LabPod;
  /** Near, enrolled: the other end of the kernel path. */
  readonly local: LabPod;
  /** Near, not enrolled, and nobody has told the mesh of it. */
  readonly outsider: LabPod;
  /** Far, enrolled: the endpoint of the service at VIP. */
  readonly server: LabPod;
  /** Far; the mesh says that it takes tunnels, and no agent serves it. */
  readonly deserted: LabPod;
  /** Far; the mesh knows it as one that takes no tunnel. */
  readonly plain: LabPod;
  /** Far; enrolled under another service account than the mesh says. */
  readonly liar: LabPod;
  /** Far; nobody has told the mesh of it. */
  readonly stranger: LabPod;
}

let bed: TunnelBed<Pods>;
let policies: Policies;

test.serial.before(async (t) => {
  t.timeout(hangMs);
  bed = await tunnelBed(
    'situations',
    async (near, far) => {
      const pods: Pods = {
        client: await podOf(near, 'client'),
        local: await podOf(near, 'local'),
        outsider: await podOf(near, 'outsider'),
        server: await podOf(far, 'server'),
        deserted: await podOf(far, 'deserted'),
        plain: await podOf(far, 'plain'),
        liar: await podOf(far, 'liar'),
        stranger: await podOf(far, 'stranger'),
      };
      const { client, local, server, deserted, plain } = pods;
      return {
        pods,
        enrolled: [client, local, server],
        manifests: {
          'pods.yaml': [
            ...[client, local, server, deserted].map((pod) => podManifest(pod)),
            podManifest(plain, { enrolled: false }),
          ],
          'services.yaml': services(pods),
        },
      };
    },
    { kernelPath: true, args: ['--drain', '2'] },
  );
  await furnish(bed, async () => {
    await Promise.all(bed.agents.map((agent) => agent.told({ message: 'the mesh is known' })));
    const { client, local, server, plain, stranger } = bed.pods;
    for (const pod of [client, local]) await bed.agents[0].issued(pod);
    await bed.agents[1].issued(server);
    for (const pod of [client, local, server, plain, stranger])
      await serve(pod, apps.echo({ port: APP_PORT, quiet: true }));
    policies = new Policies(bed);
  });
});

test.serial.after.always(() => bed?.lab.dispose());

function services({ server, deserted }: Pick<Pods, 'server' | 'deserted'>): Manifest[] {
  const ports = { [SERVICE_PORT]: APP_PORT };
  const namespace = 'shop';
  return [
    serviceManifest('server', { namespace, clusterIps: [VIP.ipv4, VIP.ipv6], ports }),
    serviceManifest('own', { namespace, clusterIps: [OWN_VIP], ports, selector: { app: 'client' } }),
    serviceManifest('empty', { namespace, clusterIps: [EMPTY_VIP], ports }),
    serviceManifest('mixed', { namespace, clusterIps: [MIXED_VIP], ports, selector: null }),
    endpointSliceManifest('mixed', { namespace, service: 'mixed', endpoints: [server, deserted], ports }),
  ];
}

async function agree(
  t: ExecutionContext,
  act: () => Promise<Done>,
  ...seen: readonly Seen[]
): Promise<Array<Record<string, unknown>>> {
  t.timeout(hangMs);
  const [near, far] = bed.agents;
  return await assertAgree(t, { near, far }, act, seen);
}

let ownPort = 21_000;

/** Has a client say hello, and be answered or not. It binds its port: one that is refused at once does not learn which it had. */
async function call(who: LabPod, to: string, port = APP_PORT): Promise<Done & Conversation> {
  ownPort += 1;
  const talk = await converse(who, apps.pythonConnect({ to, port, bindPort: ownPort, timeout: 60 }));
  return { ...talk, local: apps.endpoint(to.includes(':') ? who.ipv6 : who.ipv4, ownPort) };
}

/** Two ends of one connection, told by hand what to do. */
interface Ends {
  readonly client: LabProcess;
  readonly server: LabProcess;
  readonly local: string;
}

let handPort = 7000;

/** @param isWarm whether connections before it shall have made a way past the tunnel */
async function byHand(t: ExecutionContext, to: LabPod, isWarm = false): Promise<() => Promise<Ends>> {
  handPort += 1;
  const port = handPort;
  const server = await serve(to, apps.peer({ port }));
  t.teardown(() => server.kill());
  const open = async (): Promise<Ends> => {
    const client = bed.pods.client.run(apps.peer({ to: to.ipv4, port }));
    t.teardown(() => client.kill());
    const { local } = await client.json({ event: 'open' });
    await server.json({ event: 'open' });
    return { client, server, local: `${local}` };
  };
  if (isWarm) {
    const passing = async (): Promise<Done> => {
      const { client, local } = await open();
      client.write('close\n');
      await server.json({ event: 'end' });
      server.write('close\n');
      await server.json({ event: 'closed' });
      return { local };
    };
    t.is(await settledPath(passing, 'kernel'), 'kernel');
  }
  return open;
}

/** Until a connection from the client goes past the tunnel. */
async function pastTunnel(to: LabPod): Promise<void> {
  const path = await settledPath(() => call(bed.pods.client, to.ipv4), 'kernel');
  if (path !== 'kernel') throw new Error(`never past the tunnel, but ${path}`);
}

const out = (ended: string, path: Seen['path'], more: Partial<Seen> = {}): Seen => ({
  at: 'near',
  direction: 'outbound',
  ended,
  path,
  ...more,
});
const into = (at: Seen['at'], ended: string, path: Seen['path'], more: Partial<Seen> = {}): Seen => ({
  at,
  direction: 'inbound',
  ended,
  path,
  ...more,
});

test.serial('to a pod of another node', async (t) => {
  const { client, server } = bed.pods;
  await agree(t, () => call(client, server.ipv4), out('clean', 'tunnel'), into('far', 'clean', 'tunnel'));
  const { code, explanation } = await explain(bed.agents[0], ['shop/client', `shop/server:${APP_PORT}`]);
  t.is(code, 0, JSON.stringify(explanation));
});

test.serial('to a service', async (t) => {
  const act = (): Promise<Done> => call(bed.pods.client, VIP.ipv4, SERVICE_PORT);
  const [line] = await agree(t, act, out('clean', 'tunnel'), into('far', 'clean', 'tunnel'));
  t.is(line?.['dst.service'], 'server.shop.svc.cluster.local');
});

test.serial('to a pod of the same node that nothing is known of yet', async (t) => {
  const { client, local } = bed.pods;
  await agree(t, () => call(client, local.ipv6), out('clean', 'tunnel'), into('near', 'clean', 'tunnel'));
});

test.serial('to a pod of the same node, past the tunnel', async (t) => {
  const { client, local } = bed.pods;
  await pastTunnel(local);
  const lines = await agree(t, () => call(client, local.ipv4), out('clean', 'kernel'), into('near', 'clean', 'kernel'));
  t.is(lines[0]?.flow_id, lines[1]?.flow_id);
});

test.serial('to what is not of the mesh, for the first time and then past the tunnel', async (t) => {
  const { client, stranger } = bed.pods;
  await agree(t, () => call(client, stranger.ipv6), out('clean', 'passthrough'));
  await pastTunnel(stranger);
  await agree(t, () => call(client, stranger.ipv4), out('clean', 'kernel', { security: 'unknown' }));
});

test.serial('to a workload that takes no tunnel', async (t) => {
  const { client, plain } = bed.pods;
  await agree(t, () => call(client, plain.ipv6), out('clean', 'plain'));
});

test.serial('to itself, by its own service', async (t) => {
  await agree(t, () => call(bed.pods.client, OWN_VIP, SERVICE_PORT), out('clean', 'plain'));
});

test.serial('in the clear, from who is not in the mesh, where anybody may', async (t) => {
  const { outsider, local } = bed.pods;
  t.is(await settledPath(() => call(outsider, local.ipv4), 'kernel', 'inbound'), 'kernel');
  await agree(t, () => call(outsider, local.ipv4), into('near', 'clean', 'kernel', { security: 'unknown' }));
});

test.serial('in the clear, where policy has to look at each', async (t) => {
  const { outsider, local } = bed.pods;
  await policies.are(deny('local', { ipBlocks: ['192.0.2.0/24'] }));
  await agree(t, () => call(outsider, local.ipv4), into('near', 'clean', 'plain'));
  await policies.are();
});

for (const [way, isWarm] of [
  ['through the tunnel', false],
  ['past the tunnel', true],
] as const) {
  const to = (): LabPod => (isWarm ? bed.pods.local : bed.pods.server);
  const path = isWarm ? 'kernel' : 'tunnel';
  const at = isWarm ? 'near' : 'far';

  test.serial(`${way}: each direction ends by itself, and every byte counts once`, async (t) => {
    const open = await byHand(t, to(), isWarm);
    const act = async (): Promise<Done> => {
      const { client, server, local } = await open();
      client.write('fill 300000\n');
      client.write('end\n');
      await server.json({ event: 'end' });
      server.write('fill 70000\n');
      server.write('end\n');
      await client.json({ event: 'closed' });
      return { local };
    };
    const bytes = [300_000, 70_000] as const;
    await agree(t, act, out('clean', path, { bytes }), into(at, 'clean', path, { bytes }));
  });

  for (const side of ['client', 'server'] as const) {
    test.serial(`${way}: the ${side} resets`, async (t) => {
      const open = await byHand(t, to(), isWarm);
      const act = async (): Promise<Done> => {
        const ends = await open();
        ends.client.write('send abc\n');
        await ends.server.json({ event: 'data' });
        ends.server.write('send defg\n');
        await ends.client.json({ event: 'data' });
        ends[side].write('reset\n');
        await ends[side === 'client' ? 'server' : 'client'].json({ event: 'closed' });
        return ends;
      };
      const bytes = [3, 4] as const;
      const ended = `reset-by-${side}`;
      await agree(t, act, out(ended, path, { bytes }), into(at, ended, path, { bytes }));
    });
  }

  test.serial(`${way}: a policy ends it`, async (t) => {
    const open = await byHand(t, to(), isWarm);
    const act = async (): Promise<Done> => {
      const { client, server, local } = await open();
      client.write('send abc\n');
      await server.json({ event: 'data' });
      await policies.are(deny(to().name, principalsOf(bed.pods.client)));
      await client.json({ event: 'closed' });
      return { local };
    };
    const bytes = [3, 0] as const;
    const [near] = await agree(
      t,
      act,
      out(isWarm ? 'policy-changed' : 'reset-by-server', path, { bytes }),
      into(at, 'policy-changed', path, { bytes }),
    );
    t.is(near?.path, path);
    await policies.are();
  });

  test.serial(`${way}: the app does not listen any more`, async (t) => {
    const { client } = bed.pods;
    const app = await serve(to(), apps.echo({ port: CLOSING_PORT, quiet: true }));
    const act = (): Promise<Done> => call(client, to().ipv4, CLOSING_PORT);
    t.is(await settledPath(act, path), path);
    await app.kill();
    if (isWarm) await agree(t, act, out('dial-refused', 'kernel'), into('near', 'dial-refused', 'kernel'));
    else await agree(t, act, out('tunnel-refused', 'tunnel'), into('far', 'dial-refused', 'tunnel'));
  });
}

/** Has it done until its connection goes this way, or for long enough. */
async function settledPath(act: () => Promise<Done>, path: string, direction = 'outbound'): Promise<unknown> {
  const [near] = bed.agents;
  return await settled(
    async () => {
      const since = near.process.lines.length;
      const { local } = await act();
      return (await near.told({ scope: 'access', 'src.addr': local, direction }, { since })).path;
    },
    (found) => found === path,
  );
}

test.serial('a policy denies it', async (t) => {
  const { client, server } = bed.pods;
  await policies.are(deny('server', principalsOf(client)));
  const [, far] = await agree(
    t,
    () => call(client, server.ipv4),
    out('tunnel-refused', 'tunnel'),
    into('far', 'policy-denied', 'tunnel'),
  );
  t.is(far?.policy, 'shop/rule');
  const { code, explanation } = await explain(bed.agents[1], ['shop/client', `shop/server:${APP_PORT}`]);
  t.is(code, 1);
  t.true(JSON.stringify(explanation).includes('shop/rule'));
});

test.serial('no policy allows it', async (t) => {
  const { client, server, local } = bed.pods;
  await policies.are(allow('server', principalsOf(local)));
  await agree(
    t,
    () => call(client, server.ipv4),
    out('tunnel-refused', 'tunnel'),
    into('far', 'policy-denied', 'tunnel'),
  );
  await agree(t, () => call(local, server.ipv4), out('clean', 'tunnel'), into('far', 'clean', 'tunnel'));
});

test.serial('a policy denies it on one node', async (t) => {
  const { client, local } = bed.pods;
  await policies.are(deny('local', principalsOf(client)));
  await agree(
    t,
    () => call(client, local.ipv4),
    out('tunnel-refused', 'tunnel'),
    into('near', 'policy-denied', 'tunnel'),
  );
});

test.serial('a policy denies a pod to itself', async (t) => {
  const { client } = bed.pods;
  await policies.are(deny('client', principalsOf(client)));
  await agree(t, () => call(client, OWN_VIP, SERVICE_PORT), out('policy-denied', 'plain'));
});

test.serial('whoever cannot prove who it is is refused where policy is strict', async (t) => {
  const { outsider, local } = bed.pods;
  await policies.are(peerAuthenticationManifest('strict'));
  await agree(t, () => call(outsider, local.ipv4), into('near', 'policy-denied', 'plain'));
  await policies.are();
});

test.serial('a service has no endpoint', async (t) => {
  const { client } = bed.pods;
  const act = (): Promise<Done> => call(client, EMPTY_VIP, SERVICE_PORT);
  await agree(t, act, out('no-endpoint', 'tunnel', { isEarly: true }));
  const { code } = await explain(bed.agents[0], ['shop/client', `empty.shop.svc.cluster.local:${SERVICE_PORT}`]);
  t.is(code, 1);
});

test.serial('the agent itself is called', async (t) => {
  const { client, server } = bed.pods;
  await agree(
    t,
    () => call(client, server.ipv4, 15_001),
    out('tunnel-refused', 'tunnel'),
    into('far', 'recursive-call', 'tunnel', { isEarly: true }),
  );
});

test.serial('outside, nobody listens', async (t) => {
  const { client, plain } = bed.pods;
  await agree(t, () => call(client, plain.ipv6, CLOSED_PORT), out('dial-refused', 'plain'));
});

test.serial('no agent serves the pod', async (t) => {
  const { client, deserted } = bed.pods;
  await agree(t, () => call(client, deserted.ipv4), out('tunnel-unreachable', 'tunnel'));
});

test.serial('an endpoint is dead, and another one answers', async (t) => {
  const act = (): Promise<Done> => call(bed.pods.client, MIXED_VIP, SERVICE_PORT);
  const [near] = bed.agents;
  const attempts = await settled(
    async () => {
      const since = near.process.lines.length;
      const { local } = await act();
      return (await near.told({ scope: 'access', 'src.addr': local, direction: 'outbound' }, { since })).attempts;
    },
    (found) => found === 2,
  );
  t.is(attempts, 2);
  await agree(t, act, out('clean', 'tunnel'), into('far', 'clean', 'tunnel'));
});

test.serial('the far node does not answer', async (t) => {
  const { client, server } = bed.pods;
  const act = async (): Promise<Done> => {
    const lost = await Loss.begin(server, 'silent', 'tcp dport 15008');
    try {
      return await call(client, server.ipv6);
    } finally {
      await lost.end();
    }
  };
  const [line] = await settledSilence(t, act);
  t.truthy(line);
});

/** Sessions that are open are used: what is silent is found by their PING, what is new by its time-out. Either is said alike. */
async function settledSilence(t: ExecutionContext, act: () => Promise<Done>): Promise<Array<Record<string, unknown>>> {
  const [near] = bed.agents;
  const since = near.process.lines.length;
  const { local } = await act();
  const line = await near.told({ scope: 'access', 'src.addr': local, direction: 'outbound' }, { since });
  t.true(['tunnel-timed-out', 'peer-silent'].includes(`${line.reason}`), JSON.stringify(line));
  const { code, explanation } = await explain(near, ['--flow', `${line.flow_id}`]);
  t.is(code, 1);
  t.true(JSON.stringify(explanation).includes(`${line.reason}`));
  return [line];
}

test.serial('a workload that takes no tunnel does not answer', async (t) => {
  const { client, plain } = bed.pods;
  const lost = await Loss.begin(plain, 'silent', `tcp dport ${CLOSED_PORT + 1}`);
  await agree(t, () => call(client, plain.ipv6, CLOSED_PORT + 1), out('dial-timed-out', 'plain'));
  await lost.end();
});

test.serial('the far agent cannot prove to be the pod that the mesh names', async (t) => {
  const { client, liar } = bed.pods;
  await changed(bed, () => bed.control.write('liar.yaml', [podManifest(liar)]));
  await bed.agents[1].enrol(liar);
  await bed.agents[1].issued(liar);
  await changed(bed, () =>
    bed.control.write('liar.yaml', [{ ...podManifest(liar), spec: { ...specOf(liar), serviceAccountName: 'king' } }]),
  );
  await agree(t, () => call(client, liar.ipv4), out('tunnel-unreachable', 'tunnel'));
});

function specOf(pod: LabPod): Manifest {
  return podManifest(pod).spec as Manifest;
}

test.serial('what is excluded is not captured, and that is counted', async (t) => {
  const { client, server } = bed.pods;
  const [near] = bed.agents;
  await near.enrol(client, { excludeOutboundPorts: [EXCLUDED_PORT] });
  const app = await serve(server, apps.echo({ port: EXCLUDED_PORT, quiet: true }));
  const uncaptured = async (): Promise<number> => {
    const { metrics } = await near.request({ method: 'metrics' });
    return Number(
      /culvert_uncaptured_total\{(?=[^}]*reason="excluded-outbound")[^}]*\} (\d+)/.exec(`${metrics}`)?.[1] ?? 0,
    );
  };
  const before = await uncaptured();
  t.is((await converse(client, apps.pythonConnect({ to: server.ipv4, port: EXCLUDED_PORT }))).reply, 'hello');
  t.is(await settled(uncaptured, (count) => count === before + 1), before + 1);
  const { explanation } = await explain(near, ['shop/client', `shop/server:${EXCLUDED_PORT}`]);
  t.true(explanation.steps.some(({ topic, text }) => topic === 'capture' && /exclu/.test(text)));
  await near.enrol(client);
  await app.kill();
});

test.serial('a pod that is not enrolled is not captured, and explain says so', async (t) => {
  const { explanation } = await explain(bed.agents[0], [bed.pods.outsider.ipv4, `shop/server:${APP_PORT}`]);
  t.true(explanation.steps.some(({ topic, state }) => topic === 'source' && state !== 'good'));
});

test.serial('what is open at the end of a drain is reset', async (t) => {
  const { server } = bed.pods;
  const [near, far] = bed.agents;
  const open = await byHand(t, server);
  const { client, local } = await open();
  client.write('send abc\n');
  const since = far.process.lines.length;
  const ended = near.stop();
  const line = await near.told({ scope: 'access', 'src.addr': local, direction: 'outbound' });
  t.like(line, { message: 'connection complete', reason: 'drain-deadline', path: 'tunnel', bytes_sent: 3 });
  await ended;
  const inbound = await far.told({ scope: 'access', 'src.addr': local, direction: 'inbound' }, { since });
  t.is(inbound.bytes_recv, 3);
});

function deny(app: string, source: Manifest): Manifest {
  return authorizationPolicyManifest('rule', { action: 'DENY', rules: [from({ ...source })], selector: { app } });
}

function allow(app: string, source: Manifest): Manifest {
  return authorizationPolicyManifest('rule', { action: 'ALLOW', rules: [from({ ...source })], selector: { app } });
}

function principalsOf(...pods: readonly LabPod[]): Manifest {
  return { principals: pods.map(({ identity }) => identity.replace('spiffe://', '')) };
}
