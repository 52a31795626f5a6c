/** The beds that benches of the mesh run on: nodes, pods, agents and a control process. */
import { defaultWorkers } from '../src/cli/default-workers.ts';
import type { Lab, LabAgent, LabControl, LabNode, LabPod } from '../test/lab/index.ts';
import { nodeManifest, podManifest } from '../test/lab/manifests.ts';

/** Who talks to whom. */
export interface Ends {
  readonly client: LabPod;
  readonly server: LabPod;
}

/** Two pairs of nodes of the same shape: one in the mesh, one bare. */
export interface MeshBed {
  readonly ends: {
    /** Between two nodes without an agent. */
    readonly noMesh: Ends;
    /** HBONE between the nodes. */
    readonly tunnel: Ends;
    /** On one node without an agent. */
    readonly noMeshLocal: Ends;
    /** On one node, over the kernel path. */
    readonly kernel: Ends;
  };
  readonly control: LabControl;
  readonly agents: readonly [LabAgent, LabAgent];
  /** Starts an agent of the mesh's nodes again, with its pods. */
  restart(agent: LabAgent): Promise<LabAgent>;
}

export async function makeMesh(lab: Lab): Promise<MeshBed> {
  const [near, far] = await linked(lab, 'near', 'far');
  const [bareNear, bareFar] = await linked(lab, 'barenear', 'barefar');
  const client = await near.pod('client');
  const server = await far.pod('server');
  const neighbour = await near.pod('neighbour');
  const control = await lab.control({
    logLevel: 'info',
    manifests: {
      'nodes.yaml': [nodeManifest(near), nodeManifest(far)],
      'pods.yaml': [podManifest(client), podManifest(server), podManifest(neighbour)],
    },
  });
  const agents = await Promise.all([near, far].map((node) => startAgent(node, control)));
  const [nearAgent, farAgent] = agents;
  if (nearAgent === undefined || farAgent === undefined) throw new Error('there are two agents');
  const bareClient = await bareNear.pod('client');
  return {
    ends: {
      noMesh: { client: bareClient, server: await bareFar.pod('server') },
      tunnel: { client, server },
      noMeshLocal: { client: bareClient, server: await bareNear.pod('neighbour') },
      kernel: { client, server: neighbour },
    },
    control,
    agents: [nearAgent, farAgent],
    restart: async (agent) => {
      await agent.kill();
      return await startAgent(agent.node, control);
    },
  };
}

async function linked(lab: Lab, one: string, other: string): Promise<[LabNode, LabNode]> {
  const nodes: [LabNode, LabNode] = [await lab.node(one), await lab.node(other)];
  await lab.link(...nodes);
  return nodes;
}

/** Enrols the node's pods; those that it enrolled before it knows from its state file. */
async function startAgent(node: LabNode, control: LabControl): Promise<LabAgent> {
  // As it is without options.
  const args = ['--access-log-rate', '2000'];
  const agent = await node.agent({ control, kernelPath: true, logLevel: 'info', workers: defaultWorkers(), args });
  for (const pod of node.pods) await agent.enrol(pod);
  return agent;
}
