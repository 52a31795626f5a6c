/** Nothing of an enrolled pod crosses between nodes in the clear, and nobody comes past a policy, whatever happens to the agents. CULVERT_SOAK=1: at full size. */
import test, { type ExecutionContext } from 'ava';
import {
  type AgentOptions,
  apps,
  type LabAgent,
  type LabPod,
  peerAuthenticationManifest,
  podManifest,
} from '../lab/index.ts';
import { serve } from './conversation.ts';
import { Held, Load, type LoadEnd } from './held.ts';
import { changed, forAll, type PolicyBed, pods, policyBed } from './policy-bed.ts';
import { assertLetIn, Caller } from './policy-callers.ts';
import { APP_PORT, besideHbone, endpointsOf, podOf, SERVICE_PORT, VIP } from './tunnel-bed.ts';

const soak = process.env.CULVERT_SOAK === '1';
const size = soak ? { rounds: 20, rate: 200, held: 200 } : { rounds: 1, rate: 40, held: 8 };
const strict = peerAuthenticationManifest('strict');

interface Crowd {
  readonly bed: PolicyBed & { readonly spare: LabPod };
  /** As they are now: they are killed and started again. */
  readonly agents: LabAgent[];
  readonly caller: Caller;
}

/** What is open is not waited for when an agent stops. */
function agentOptions(kernelPath: boolean): AgentOptions {
  return { kernelPath, args: ['--drain', '0'] };
}

/** The bed, with an endpoint of the service on the client's own node too. */
async function crowd(t: ExecutionContext, kernelPath: boolean): Promise<Crowd> {
  const bed = await policyBed(t.title, agentOptions(kernelPath));
  const [near] = bed.agents;
  const spare = await podOf(bed.nodes[0], 'spare');
  await changed(bed, () => bed.control.write('spare.yaml', podManifest(spare, { labels: { app: 'server' } })));
  await near.enrol(spare);
  await serve(spare, apps.echo({ port: APP_PORT, quiet: true }));
  return { bed: { ...bed, spare }, agents: [...bed.agents], caller: await Caller.start(bed.pods.client) };
}

/** Everybody is refused but the client and the neighbour, now and then also they. */
async function enforce(all: Crowd, isShut: boolean): Promise<void> {
  const { control, pods: them } = all.bed;
  const refused = isShut ? [them.teller, them.client] : [them.teller];
  await changed(all, () => control.write('policies.yaml', [strict, forAll('shop', 'DENY', pods(...refused))]));
}

/** Ends an agent and starts it again, and waits until the client reaches the server again. */
async function again(
  t: ExecutionContext,
  all: Crowd,
  at: 0 | 1,
  signal: 'SIGKILL' | 'SIGTERM',
  kernelPath: boolean,
): Promise<void> {
  const { bed, agents, caller } = all;
  await agents[at]?.kill(signal);
  const refused = await caller.call(bed.pods.server.ipv4, APP_PORT);
  t.truthy(refused.error, 'without an agent there is no way');
  const agent = await bed.nodes[at].agent({ ...agentOptions(kernelPath), control: bed.control });
  agents[at] = agent;
  await agent.told({ message: 'the mesh is known' });
  for (const to of [bed.pods.server.ipv4, bed.pods.server.ipv6]) assertLetIn(t, await caller.call(to, APP_PORT), to);
}

// With the kernel path there is more that could go wrong.
for (const kernelPath of soak ? [true, false] : [true])
  test.serial(
    `through kill -9, restarts and changes of policy under load, nothing is in the clear and nobody slips in${kernelPath ? '' : ', by the tunnel alone'}`,
    async (t) => {
      t.timeout(soak ? 3_600_000 : 300_000);
      const all = await crowd(t, kernelPath);
      const { lab, link, pods: them, spare } = all.bed;
      t.teardown(() => lab.dispose());
      await enforce(all, false);
      const direct = [...endpointsOf(them.server)];
      const byService = [apps.endpoint(VIP.ipv4, SERVICE_PORT), apps.endpoint(VIP.ipv6, SERVICE_PORT)];
      const capture = await lab.capture(link);
      const loads = {
        client: await Load.start(them.client, [...direct, ...byService], size.rate),
        teller: await Load.start(them.teller, [...direct, ...byService], size.rate),
        outsider: await Load.start(them.outsider, [...direct, ...endpointsOf(spare)], size.rate),
        stranger: await Load.start(them.stranger, [...direct, ...endpointsOf(spare)], size.rate),
      };
      for (let round = 0; round < size.rounds; round += 1) {
        const held = await Held.open(them.client, [...direct, ...byService], size.held);
        await enforce(all, true);
        t.is(await held.alive(), 0);
        t.is((await held.close()).lost, size.held);
        await enforce(all, false);
        for (const [at, signal] of [
          [1, 'SIGKILL'],
          [0, 'SIGKILL'],
          [1, 'SIGTERM'],
          [0, 'SIGTERM'],
        ] as const) {
          const open = await Held.open(them.client, [...direct, ...byService], size.held);
          await again(t, all, at, signal, kernelPath);
          await open.close();
        }
      }
      const ends: Record<keyof typeof loads, LoadEnd> = {
        client: await loads.client.end(),
        teller: await loads.teller.end(),
        outsider: await loads.outsider.end(),
        stranger: await loads.stranger.end(),
      };
      t.log(JSON.stringify(ends));
      t.true(ends.client.answered > ends.client.started / 4, 'there is a load');
      for (const name of ['teller', 'outsider', 'stranger'] as const) t.is(ends[name].answered, 0, name);
      const crossed = (await capture.stop()).filter(({ protocol }) => protocol === 'tcp');
      const ofOutsiders = [them.outsider, them.stranger].flatMap(({ addresses }) => addresses);
      const ofEnrolled = crossed.filter(
        ({ source = '', destination = '' }) => !ofOutsiders.includes(source) && !ofOutsiders.includes(destination),
      );
      t.true(ofEnrolled.packets.length > 0);
      t.deepEqual(besideHbone(ofEnrolled), []);
      for (const text of ['ping', 'hello']) t.false(ofEnrolled.contains(text), text);
      t.is(
        crossed.payloadBytes(({ destination = '' }) => ofOutsiders.includes(destination)),
        0,
        'an outsider is told nothing',
      );
    },
  );
