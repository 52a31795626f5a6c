import type { ExecutionContext, TestFn } from 'ava';
import type { PreparedPod, Tunnel } from '../../src/agent/index.ts';
import type { Pod } from '../../src/mesh/index.ts';

/** A tunnel to test, and a hand on the world around it. */
export interface TunnelSubject {
  readonly tunnel: Tunnel;
  /** A pod whose listeners exist. */
  makePod(): Promise<{ pod: Pod; prepared: PreparedPod }>;
  /** Connects to a pod's listener and resolves when the tunnel counts it; false if nobody accepts. */
  connect(prepared: PreparedPod): Promise<boolean>;
  /** Connects to a pod's listener whether anybody accepts or not; it may wait there, or be refused. */
  knock(prepared: PreparedPod): Promise<void>;
  dispose(): Promise<void>;
}

/** What every Tunnel must hold to. */
export function tunnelContract(test: TestFn, name: string, make: () => Promise<TunnelSubject>): void {
  const law = (title: string, run: (t: ExecutionContext, subject: TunnelSubject) => Promise<void>) =>
    test.serial(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        await subject.dispose();
      }
    });

  law('accepts for a pod once it is served, and counts the connection', async (t, { tunnel, makePod, connect }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    t.true(await connect(prepared));
    t.is(tunnel.status().openConnections.get(prepared.cookie), 1);
    t.is(tunnel.status().totals.accepted, 1);
  });

  law('serves a pod twice without complaint', async (t, { tunnel, makePod, connect }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    await tunnel.serve(pod, prepared);
    t.true(await connect(prepared));
  });

  law('lets open connections live when it stops accepting', async (t, { tunnel, makePod, connect }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    await connect(prepared);
    await tunnel.stopAccepting(prepared.cookie);
    await tunnel.stopAccepting(prepared.cookie);
    t.is(tunnel.status().openConnections.get(prepared.cookie), 1);
  });

  law('accepts nothing more once it has stopped accepting', async (t, { tunnel, makePod, knock }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    await tunnel.stopAccepting(prepared.cookie);
    await knock(prepared);
    // Another pod's turn: every worker has looked at its sockets meanwhile.
    const other = await makePod();
    await tunnel.serve(other.pod, other.prepared);
    t.is(tunnel.status().totals.accepted, 0);
    t.is(tunnel.status().openConnections.get(prepared.cookie) ?? 0, 0);
  });

  law('accepts again when the pod is served again', async (t, { tunnel, makePod, connect }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    await tunnel.stopAccepting(prepared.cookie);
    await tunnel.serve(pod, prepared);
    t.true(await connect(prepared));
    t.is(tunnel.status().openConnections.get(prepared.cookie), 1);
  });

  law('ends open connections when a pod is dropped', async (t, { tunnel, makePod, connect }) => {
    const { pod, prepared } = await makePod();
    await tunnel.serve(pod, prepared);
    await connect(prepared);
    await tunnel.drop(prepared.cookie);
    await tunnel.drop(prepared.cookie);
    t.is(tunnel.status().openConnections.get(prepared.cookie) ?? 0, 0);
    t.is(tunnel.status().totals.closed, 1);
  });

  law('takes no notice of pods that it does not know', async (t, { tunnel, makePod }) => {
    const { prepared } = await makePod();
    await t.notThrowsAsync(() => tunnel.stopAccepting(prepared.cookie));
    await t.notThrowsAsync(() => tunnel.drop(prepared.cookie));
  });

  law(
    'ends what is still open at the drain deadline, and serves nothing after',
    async (t, { tunnel, makePod, connect }) => {
      const { pod, prepared } = await makePod();
      await tunnel.serve(pod, prepared);
      await connect(prepared);
      await tunnel.shutdown(0);
      t.true(
        tunnel.status().workers.every(({ state, openConnections }) => state === 'stopped' && openConnections === 0),
      );
      const error = await t.throwsAsync(() => tunnel.serve(pod, prepared), { any: true });
      t.is(typeof Reflect.get(Object(error), 'code'), 'string');
    },
  );
}
