/** UDP passes the mesh: it is counted, once for each socket, and nothing else happens to it. */
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { PathScene } from './path-scene.ts';

const test = anyTest as TestFn<{ scene: PathScene }>;

test.before(async (t) => {
  t.context.scene = await PathScene.create('datagrams');
});
test.after.always(async (t) => {
  await t.context.scene?.[Symbol.asyncDispose]();
});

/** What was counted of the pod meanwhile. */
async function counted(t: ExecutionContext<{ scene: PathScene }>, run: () => Promise<void>) {
  const { kernel, client } = t.context.scene;
  const count = (): { udp: number; dns: number } => {
    const of = (reason: string): number =>
      kernel.counts().find((each) => each.cookie === client.cookie && each.reason === reason)?.count ?? 0;
    return { udp: of('udp'), dns: of('dns') };
  };
  const before = count();
  await run();
  const after = count();
  return { udp: after.udp - before.udp, dns: after.dns - before.dns };
}

for (const connect of [false, true])
  for (const form of ['ipv4', 'ipv6', 'mapped'] as const)
    test.serial(
      `${form}: ${connect ? 'a connected' : 'an unconnected'} socket counts once, and once more for names`,
      async (t) => {
        const { client, server } = t.context.scene;
        const to = form === 'ipv6' ? server.pod.ipv6 : server.pod.ipv4;
        const name = `${form} ${connect}`;
        const send = async (port: number): Promise<void> => {
          const said = await client.party.ask({ do: 'datagram', name, to, port, connect, mapped: form === 'mapped' });
          t.deepEqual(said, {});
        };
        t.deepEqual(await counted(t, () => send(9999)), { udp: 1, dns: 0 });
        t.deepEqual(await counted(t, () => send(9999)), { udp: 0, dns: 0 });
        t.deepEqual(await counted(t, () => send(53)), { udp: 0, dns: 1 });
        t.deepEqual(await counted(t, () => send(53)), { udp: 0, dns: 0 });
      },
    );

test.serial(
  'what stays in the pod is nobody’s business, and a resolver’s look at its own address sends nothing',
  async (t) => {
    const { client, server } = t.context.scene;
    const ask = async (name: string, to: string, port: number, connect = false): Promise<void> => {
      await client.party.ask({ do: 'datagram', name, to, port, connect });
    };
    const { pod } = client;
    t.deepEqual(await counted(t, () => ask('loopback', '127.0.0.1', 53)), { udp: 0, dns: 0 });
    t.deepEqual(await counted(t, () => ask('itself', pod.ipv4, 9999)), { udp: 0, dns: 0 });
    t.deepEqual(await counted(t, () => ask('look', server.pod.ipv4, 9, true)), { udp: 0, dns: 0 });
  },
);

test.serial('of a pod that is not enrolled nothing is counted', async (t) => {
  const { stranger, server, kernel } = t.context.scene;
  const before = kernel.counts();
  await stranger.party.ask({ do: 'datagram', name: 'stranger', to: server.pod.ipv4, port: 9999 });
  t.deepEqual(kernel.counts(), before);
});
