/** Byte streams through two agents that relay them in the clear: whole, in order, ended as they were ended. */
import { furnish, Lab } from '../lab/index.ts';
import { families, labOptions } from './conversation.ts';
import { chainOf, endLaws, fullSizes, smallSizes, stallLaws, transferLaws } from './stream-laws.ts';

const MiB = 1024 * 1024;

const chain = chainOf(async () => {
  return await furnish(await Lab.create('stream integrity', labOptions), async (lab) => {
    const nodes = [await lab.node('n1'), await lab.node('n2')] as const;
    await lab.link(...nodes);
    const [client, server] = [await nodes[0].pod('client'), await nodes[1].pod('server')];
    const agents = [await nodes[0].agent({ logLevel: 'info' }), await nodes[1].agent({ logLevel: 'info' })] as const;
    await agents[0].enrol(client);
    await agents[1].enrol(server);
    const ways = families.map(({ name, of }) => ({ name, to: of(server) }));
    return { lab, nodes, agents, client, server, ways };
  });
});

transferLaws(chain, process.env.CULVERT_SOAK === '1' ? fullSizes : smallSizes);
stallLaws(chain, { bytes: 1024 * MiB, mostTaken: 96 * MiB, mostGrowth: 192 * MiB });
endLaws(chain);
