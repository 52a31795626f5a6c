/** Two nodes with pods of every kind that policy tells apart, a server that counts who reaches it, and changes of policy. */
import {
  type AgentOptions,
  apps,
  authorizationPolicyManifest,
  furnish,
  type LabAgent,
  type LabControl,
  type LabPod,
  type LabProcess,
  type Manifest,
  podManifest,
  serviceManifest,
} from '../lab/index.ts';
import { serve } from './conversation.ts';
import { APP_PORT, podOf, SERVICE_PORT, type TunnelBed, tunnelBed, VIP } from './tunnel-bed.ts';

/** The server listens here too. */
export const OTHER_PORT = APP_PORT + 1;
/** Longest wait for what should happen at once: a guard against hanging. */
export const hangMs = 60_000;

export interface PolicyPods {
  /** On the near node, enrolled, of the namespace `shop`. */
  readonly client: LabPod;
  /** On the near node, enrolled, of the namespace `bank`. */
  readonly teller: LabPod;
  /** On the near node, and not enrolled: the mesh knows it as a pod of `shop`. */
  readonly outsider: LabPod;
  /** On the far node, enrolled, of `shop`: the endpoint of the service at VIP. Tells, at APP_PORT and OTHER_PORT. */
  readonly server: LabPod;
  /** On the far node, enrolled, of `shop`. */
  readonly neighbour: LabPod;
  /** On the far node, and not enrolled: nobody has told the mesh of it. */
  readonly stranger: LabPod;
}

export interface PolicyBed extends TunnelBed<PolicyPods> {
  readonly apps: readonly LabProcess[];
}

export const SERVICE = serviceManifest('server', {
  namespace: 'shop',
  clusterIps: [VIP.ipv4, VIP.ipv6],
  ports: { [SERVICE_PORT]: APP_PORT },
});

/** The bed, with the mesh known to both agents. */
export async function policyBed(title: string, agents: AgentOptions = {}): Promise<PolicyBed> {
  const bed = await tunnelBed(
    title,
    async (near, far) => {
      const pods = {
        client: await podOf(near, 'client'),
        teller: await podOf(near, 'teller', { namespace: 'bank' }),
        outsider: await podOf(near, 'outsider'),
        server: await podOf(far, 'server'),
        neighbour: await podOf(far, 'neighbour'),
        stranger: await podOf(far, 'stranger'),
      };
      const { client, teller, outsider, server, neighbour } = pods;
      const known = [client, teller, outsider, server, neighbour];
      return {
        pods,
        enrolled: known.filter((pod) => pod !== outsider),
        manifests: {
          // A file for each, so that each can be changed.
          ...Object.fromEntries(
            known.map((pod) => [`${pod.name}.yaml`, podManifest(pod, { enrolled: pod !== outsider })]),
          ),
          'service.yaml': SERVICE,
        },
      };
    },
    agents,
  );
  return await furnish(bed, async () => {
    await Promise.all(bed.agents.map((agent) => agent.told({ message: 'the mesh is known' })));
    const { server } = bed.pods;
    const listening = [APP_PORT, OTHER_PORT].map((port) =>
      serve(server, apps.echo({ port, mode: 'tell', quiet: true })),
    );
    return { ...bed, apps: await Promise.all(listening) };
  });
}

/** How many connections have reached the server's apps. */
export async function reached({ apps }: Pick<PolicyBed, 'apps'>): Promise<number> {
  const totals = apps.map(async (app) => {
    app.signal('SIGUSR2');
    return Number((await app.json({ event: 'totals' }, hangMs)).accepted);
  });
  return (await Promise.all(totals)).reduce((sum, each) => sum + each, 0);
}

/** Changes the mesh by a change of its manifests, and waits until it is in force everywhere. */
export async function changed({ agents }: { readonly agents: readonly LabAgent[] }, change: () => void): Promise<void> {
  const since = agents.map(({ process }) => process.lines.length);
  change();
  await Promise.all(
    agents.map((agent, at) =>
      agent.told({ message: 'the mesh has changed' }, { since: since[at] ?? 0, deadlineMs: hangMs }),
    ),
  );
}

/** The policies of a bed: one file of its manifests. */
export class Policies {
  readonly #bed: { readonly agents: readonly LabAgent[]; readonly control: LabControl };
  readonly #file: string;
  #said = '[]';

  constructor(bed: { readonly agents: readonly LabAgent[]; readonly control: LabControl }, file = 'policies.yaml') {
    this.#bed = bed;
    this.#file = file;
  }

  /** Puts these in force in place of all others. */
  async are(...policies: readonly Manifest[]): Promise<void> {
    const text = JSON.stringify(policies);
    if (text === this.#said) return;
    this.#said = text;
    await changed(this.#bed, () => this.#bed.control.write(this.#file, policies));
  }

  /** Removes their file. */
  async remove(): Promise<void> {
    this.#said = '[]';
    await changed(this.#bed, () => this.#bed.control.remove(this.#file));
  }
}

/** A policy for the server: `shop/rule`, or of another name. */
export function forServer(
  action: 'ALLOW' | 'DENY',
  source: Manifest,
  { name = 'rule', annotations }: { name?: string; annotations?: Readonly<Record<string, string>> } = {},
): Manifest {
  return authorizationPolicyManifest(name, {
    action,
    rules: [from(source)],
    selector: { app: 'server' },
    ...(annotations && { annotations }),
  });
}

/** A policy for a namespace, or for the mesh where it is of the root namespace: `<namespace>/rule`. */
export function forAll(namespace: string, action: 'ALLOW' | 'DENY', source: Manifest): Manifest {
  return authorizationPolicyManifest('rule', { namespace, action, rules: [from(source)] });
}

/** A rule about who it is. */
export function from(source: Manifest): Manifest {
  return { from: [{ source }] };
}

/** A source: these pods. */
export function pods(...all: readonly LabPod[]): Manifest {
  return { principals: all.map(({ identity }) => identity.replace('spiffe://', '')) };
}
