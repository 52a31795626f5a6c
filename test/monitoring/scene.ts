/** Two nodes with an agent each, and traffic of every kind that a dashboard tells apart, observed by Prometheus. */
import { join } from 'node:path';
import {
  apps,
  authorizationPolicyManifest,
  furnish,
  type LabNode,
  type LabPod,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { serve } from '../node/conversation.ts';
import { APP_PORT, podOf, SERVICE_PORT, type TunnelBed, tunnelBed, VIP } from '../node/tunnel-bed.ts';
import { Prometheus } from './prometheus.ts';

/** Of a service of which one endpoint does not answer. */
const SHAKY_VIP = '10.96.0.2';
/** Nobody listens there. */
const CLOSED_PORT = 9;

interface ScenePods {
  /** On the near node, enrolled. It has a connection from before that. */
  readonly client: LabPod;
  /** On the near node, enrolled: the client reaches it on the kernel path. */
  readonly local: LabPod;
  /** On the near node, enrolled, of the namespace `bank`: the server does not let it in. */
  readonly teller: LabPod;
  /** On the far node, enrolled: the endpoint of the service at VIP, and one of that at SHAKY_VIP. */
  readonly server: LabPod;
  /** On the far node: the mesh takes it for enrolled, but it is not. The other endpoint at SHAKY_VIP. */
  readonly ghost: LabPod;
  /** On the far node, outside the mesh. */
  readonly stranger: LabPod;
}

export interface Scene extends AsyncDisposable {
  readonly bed: TunnelBed<ScenePods>;
  readonly prometheus: Prometheus;
  /** Some connections of every kind. */
  round(): Promise<void>;
}

export async function scene(title: string): Promise<Scene> {
  return await furnish(await tunnelBed(title, layout, { kernelPath: true }), async (bed) => {
    await Promise.all(bed.agents.map((agent) => agent.told({ message: 'the mesh is known' })));
    const prometheus = await Prometheus.start(bed.nodes[0], bed.nodes);
    await bed.control.restart();
    return {
      bed,
      prometheus,
      round: () => round(bed.pods),
      [Symbol.asyncDispose]: () => bed.lab.dispose(),
    };
  });
}

async function layout(
  near: LabNode,
  far: LabNode,
): Promise<{ pods: ScenePods; enrolled: LabPod[]; manifests: Record<string, ReturnType<typeof podManifest>[]> }> {
  const pods = {
    client: await podOf(near, 'client'),
    local: await podOf(near, 'local'),
    teller: await podOf(near, 'teller', { namespace: 'bank' }),
    server: await podOf(far, 'server'),
    ghost: await podOf(far, 'ghost'),
    stranger: await podOf(far, 'stranger'),
  };
  const { client, local, teller, server, ghost, stranger } = pods;
  const servers = [local, server, stranger];
  await Promise.all(servers.map((pod) => serve(pod, apps.echo({ port: APP_PORT, quiet: true }))));
  const held = client.run(apps.hold({ to: [apps.endpoint(stranger.ipv4, APP_PORT)], count: 1 }));
  await held.json({ event: 'held' });
  const shaky = { labels: { app: 'server', tier: 'shaky' } };
  return {
    pods,
    enrolled: [client, local, teller, server],
    manifests: {
      'mesh.yaml': [
        ...[client, local, teller].map((pod) => podManifest(pod)),
        podManifest(server, shaky),
        podManifest(ghost, { labels: { app: 'ghost', tier: 'shaky' } }),
        serviceManifest('server', {
          namespace: 'shop',
          clusterIps: [VIP.ipv4, VIP.ipv6],
          ports: { [SERVICE_PORT]: APP_PORT },
        }),
        serviceManifest('shaky', {
          namespace: 'shop',
          clusterIps: [SHAKY_VIP],
          selector: { tier: 'shaky' },
          ports: { [SERVICE_PORT]: APP_PORT },
        }),
        authorizationPolicyManifest('no-bank', {
          action: 'DENY',
          rules: [{ from: [{ source: { namespaces: ['bank'] } }] }],
          selector: { app: 'server' },
        }),
      ],
    },
  };
}

async function round({ client, local, teller, server, stranger }: ScenePods): Promise<void> {
  const app = (pod: LabPod): string => `${pod.ipv4}:${APP_PORT}`;
  const closed = (pod: LabPod): string => `${pod.ipv4}:${CLOSED_PORT}`;
  await Promise.all([
    traffic(client, [
      ...[`tcp:4:${VIP.ipv4}:${SERVICE_PORT}`, `tcp:6:${SHAKY_VIP}:${SERVICE_PORT}`, `tcp:4:${app(local)}`],
      ...[`tcp:2:${app(stranger)}`, `reset:2:${app(server)}`, `reset:2:${app(local)}`],
      ...[`tcp:2:${closed(server)}`, `tcp:2:${closed(stranger)}`, `udp:2:${app(stranger)}`],
    ]),
    traffic(teller, [`tcp:2:${app(server)}`, `tcp:2:${app(local)}`]),
    traffic(stranger, [`tcp:2:${app(server)}`]),
    traffic(client, ['raw:1::0'], false),
  ]);
}

async function traffic(from: LabPod, ways: readonly string[], restricted = true): Promise<void> {
  const script = join(import.meta.dirname, 'traffic.py');
  const { stdout, stderr } = await from.exec(['/usr/bin/python3', script, ...ways], { restricted });
  if (!stdout.startsWith('{')) throw new Error(`traffic.py: ${stderr}`);
}
