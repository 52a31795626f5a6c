/** The beds that benches of the mesh run on: nodes, pods, agents and a control process. */
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
    /** Both pods enrolled; the server takes no HBONE, so both agents relay in the clear. */
    readonly plain: Ends;
    /** HBONE between the nodes. */
    readonly tunnel: Ends;
  };
  readonly agents: readonly [LabAgent, LabAgent];
  /** Starts an agent of the mesh's nodes again, with its pods. */
  restart(agent: LabAgent): Promise<LabAgent>;
}

export async function makeMesh(lab: Lab): Promise<MeshBed> {
  const [near, far] = await linked(lab, 'near', 'far');
  const [bareNear, bareFar] = await linked(lab, 'barenear', 'barefar');
  const client = await near.pod('client');
  const server = await far.pod('server');
  const plain = await far.pod('plain');
  const control = await lab.control({
    logLevel: 'info',
    manifests: {
      'nodes.yaml': [nodeManifest(near), nodeManifest(far)],
      'pods.yaml': [podManifest(client), podManifest(server), podManifest(plain, { enrolled: false })],
    },
  });
  const agents = await Promise.all([near, far].map((node) => startAgent(node, control)));
  const [nearAgent, farAgent] = agents;
  if (nearAgent === undefined || farAgent === undefined) throw new Error('there are two agents');
  return {
    ends: {
      noMesh: { client: await bareNear.pod('client'), server: await bareFar.pod('server') },
      plain: { client, server: plain },
      tunnel: { client, server },
    },
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
  const agent = await node.agent({ control, logLevel: 'info' });
  for (const pod of node.pods) await agent.enrol(pod);
  return agent;
}
