/** Whatever has been led outside by an agent, when it turns out to be of the mesh after all. */
import test from 'ava';
import { apps, type LabPod, peerAuthenticationManifest, podManifest } from '../lab/index.ts';
import { serve } from './conversation.ts';
import { Held } from './held.ts';
import { changed } from './policy-bed.ts';
import { APP_PORT, endpointsOf, listen, podOf, type TunnelBed, tunnelBed } from './tunnel-bed.ts';

interface Pods {
  /** On the near node, enrolled. */
  readonly client: LabPod;
  /** On the far node, and not enrolled. */
  readonly server: LabPod;
  /** As the server, and nobody ever knows it. */
  readonly stranger: LabPod;
  /** On the far node, enrolled: an agent follows the mesh once somebody of its node is in it. */
  readonly neighbour: LabPod;
}

/** How the mesh knows the server at first. */
const befores = [
  { name: 'nobody', path: 'passthrough', isKnown: false },
  { name: 'a pod that is not enrolled', path: 'plain', isKnown: true },
] as const;

function bedOf(title: string, isKnown: boolean, kernelPath: boolean): Promise<TunnelBed<Pods>> {
  return tunnelBed(
    title,
    async (near, far) => {
      const client = await podOf(near, 'client');
      const [server, stranger] = [await podOf(far, 'server'), await podOf(far, 'stranger')];
      const neighbour = await podOf(far, 'neighbour');
      for (const pod of [server, stranger]) await serve(pod, apps.echo({ port: APP_PORT, quiet: true }));
      return {
        pods: { client, server, stranger, neighbour },
        enrolled: [client, neighbour],
        manifests: {
          'pods.yaml': [podManifest(client), podManifest(neighbour)],
          'server.yaml': isKnown ? podManifest(server, { enrolled: false }) : [],
        },
      };
    },
    { kernelPath },
  );
}

for (const kernelPath of [false, true])
  for (const { name, path, isKnown } of befores)
    test.serial(
      `what leads to ${name} lives on when it joins the mesh, until STRICT ends it${kernelPath ? ': on both paths' : ''}`,
      async (t) => {
        await using bed = await bedOf(t.title, isKnown, kernelPath);
        const { agents, control, pods } = bed;
        const [near, far] = agents;
        const { client, server, stranger } = pods;
        for (const agent of agents) await agent.told({ message: 'the mesh is known' });
        const doomed = [
          await Held.open(client, endpointsOf(server), 6),
          await Held.open(client, endpointsOf(server), 6),
        ];
        const others = await Held.open(client, endpointsOf(stranger), 6);

        await changed(bed, () => control.write('server.yaml', podManifest(server)));
        await far.enrol(server);
        for (const each of doomed) t.is(await each.alive(), 6, 'nobody forbids it');

        const log = listen(near);
        await changed(bed, () => control.write('strict.yaml', peerAuthenticationManifest('strict')));
        for (const each of doomed) {
          t.is(await each.alive(), 0);
          t.like(await each.close(), { open: 0, lost: 6 });
        }
        t.like(await log({ message: 'connection closed' }), {
          level: 'warn',
          reason: 'policy-changed',
          policy: 'istio-system/istio_converted_static_strict',
          direction: 'outbound',
        });
        t.like(await log({ message: 'connection complete', reason: 'policy-changed', path }), {
          policy: 'istio-system/istio_converted_static_strict',
          direction: 'outbound',
        });
        t.deepEqual(await others.close(), { open: 6, lost: 0, errors: {} });
        const again = await Held.open(client, endpointsOf(server), 6);
        t.deepEqual(await again.close(), { open: 6, lost: 0, errors: {} }, 'the next goes through the tunnel');
      },
    );
