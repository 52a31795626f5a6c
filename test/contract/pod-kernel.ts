import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext, TestFn } from 'ava';
import type { CapturedPods, PodKernel } from '../../src/agent/index.ts';
import type { NetnsCookie, Pod } from '../../src/mesh/index.ts';

/** A kernel to test, and a hand on the world around it. */
export interface PodKernelSubject {
  readonly kernel: PodKernel & CapturedPods;
  /** A pod with a live namespace of its own. */
  makePod(): Promise<Pod>;
  /** Deletes the pod's namespace and what lies at its path. */
  destroyNamespace(pod: Pod): Promise<void>;
  /** Kills listeners of the agent in a captured pod, as a process of the pod with CAP_NET_ADMIN can (SOCK_DESTROY). */
  killListeners(pod: Pod): Promise<void>;
  /** The kernel of an agent that was started again: the first one holds nothing any more, its pins remain. */
  restart(): Promise<PodKernel & CapturedPods>;
  /** Pods whose capture would outlive this process. */
  pinned(): Promise<readonly NetnsCookie[]>;
  dispose(): Promise<void>;
}

/** What every PodKernel must hold to. */
export function podKernelContract(test: TestFn, name: string, make: () => Promise<PodKernelSubject>): void {
  const law = (title: string, run: (t: ExecutionContext, subject: PodKernelSubject) => Promise<void>) =>
    test.serial(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        await subject.dispose();
      }
    });

  law('prepares a pod without capturing it', async (t, { kernel, makePod }) => {
    const prepared = kernel.prepare(await makePod());
    t.true(prepared.netnsFd >= 0);
    t.true(prepared.listeners.length > 0);
    t.deepEqual([...new Set(prepared.listeners.map(({ port }) => port))].sort(), [15001, 15006, 15008]);
    t.false(kernel.captured().includes(prepared.cookie));
  });

  law('prepares a pod twice with the same result', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const first = { ...kernel.prepare(pod) };
    const second = kernel.prepare(pod);
    t.is(second.cookie, first.cookie);
    t.is(second.netnsFd, first.netnsFd);
    t.deepEqual(second.listeners, first.listeners);
  });

  law('refuses all that is captured, until it prepares it again', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const { cookie, listeners } = { ...kernel.prepare(pod) };
    kernel.capture(pod, cookie);
    kernel.refuseAll();
    kernel.refuseAll();
    t.true(kernel.captured().includes(cookie));
    const again = kernel.prepare(pod);
    t.is(again.cookie, cookie);
    const places = (all: typeof listeners): string[] => all.map(({ port, slot }) => `${port} ${slot}`).sort();
    t.deepEqual(places(again.listeners), places(listeners));
  });

  law('gives each pod a cookie of its own', async (t, { kernel, makePod }) => {
    t.not(kernel.prepare(await makePod()).cookie, kernel.prepare(await makePod()).cookie);
  });

  law('refuses a path that leads to no namespace, with a code', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const error = t.throws(() => kernel.prepare({ ...pod, netns: '/dev/null/no-such-netns' }), { any: true });
    t.is(typeof Reflect.get(Object(error), 'code'), 'string');
  });

  law('refuses a path that leads to a FIFO without waiting for its other end', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const folder = mkdtempSync(join(tmpdir(), 'pod-kernel-'));
    try {
      const netns = join(folder, 'fifo');
      execFileSync('mkfifo', [netns]);
      const error = t.throws(() => kernel.prepare({ ...pod, netns }), { any: true });
      t.is(Reflect.get(Object(error), 'code'), 'NOT_A_NETNS');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  law('refuses to capture what is not prepared, with a code', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const { cookie } = kernel.prepare(pod);
    kernel.close(cookie);
    const error = t.throws(() => kernel.capture(pod, cookie), { any: true });
    t.is(typeof Reflect.get(Object(error), 'code'), 'string');
  });

  law('captures a pod, also again with other data', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const { cookie } = kernel.prepare(pod);
    kernel.capture(pod, cookie);
    kernel.capture({ ...pod, exclusions: { ...pod.exclusions, outboundPorts: [25] } }, cookie);
    t.true(kernel.captured().includes(cookie));
    t.is(kernel.check(pod, cookie), 'live');
  });

  law(
    'forgets a pod that was released and closed, and does so twice without complaint',
    async (t, { kernel, makePod }) => {
      const pod = await makePod();
      const { cookie } = kernel.prepare(pod);
      kernel.capture(pod, cookie);
      await kernel.release(cookie);
      kernel.close(cookie);
      t.false(kernel.captured().includes(cookie));
      await t.notThrowsAsync(() => kernel.release(cookie));
      t.notThrows(() => kernel.close(cookie));
    },
  );

  law('enrols a pod again after it was withdrawn', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const { cookie } = kernel.prepare(pod);
    kernel.capture(pod, cookie);
    await kernel.release(cookie);
    kernel.close(cookie);
    t.is(kernel.prepare(pod).cookie, cookie);
    kernel.capture(pod, cookie);
    t.true(kernel.captured().includes(cookie));
  });

  law('says that a namespace is gone, and cleans up after it', async (t, { kernel, makePod, destroyNamespace }) => {
    const pod = await makePod();
    const { cookie } = kernel.prepare(pod);
    kernel.capture(pod, cookie);
    await destroyNamespace(pod);
    t.is(kernel.check(pod, cookie), 'gone');
    await kernel.release(cookie);
    kernel.close(cookie);
    t.false(kernel.captured().includes(cookie));
  });

  law('opens dead listeners again and says so once', async (t, { kernel, makePod, killListeners }) => {
    const pod = await makePod();
    const { cookie } = kernel.prepare(pod);
    kernel.capture(pod, cookie);
    await killListeners(pod);
    t.is(kernel.check(pod, cookie), 'reopened');
    t.is(kernel.check(pod, cookie), 'live');
  });

  law('keeps a pod captured when the agent is started again', async (t, subject) => {
    const pod = await subject.makePod();
    const { cookie } = subject.kernel.prepare(pod);
    subject.kernel.capture(pod, cookie);
    const again = await subject.restart();
    t.true(again.captured().includes(cookie));
    t.is(again.check(pod, cookie), 'live');
    t.is(again.prepare(pod).cookie, cookie);
    again.capture(pod, cookie);
    await again.release(cookie);
    again.close(cookie);
    t.false(again.captured().includes(cookie));
  });

  law('leaves a pod that an earlier agent captured as it is when capturing it again fails', async (t, subject) => {
    const pod = await subject.makePod();
    const { cookie } = subject.kernel.prepare(pod);
    subject.kernel.capture(pod, cookie);
    const again = await subject.restart();
    again.prepare(pod);
    const everyPort = Array.from({ length: 65_535 }, (_, index) => index + 1);
    const exclusions = { ...pod.exclusions, outboundPorts: everyPort, inboundPorts: everyPort };
    const error = t.throws(() => again.capture({ ...pod, exclusions }, cookie), { any: true });
    t.is(Reflect.get(Object(error), 'code'), 'TOO_MANY_EXCLUSIONS');
    t.true(again.captured().includes(cookie));
    t.deepEqual(await subject.pinned(), [cookie]);
    again.capture(pod, cookie);
    t.is(again.check(pod, cookie), 'live');
  });

  law('says of a pod that an earlier agent captured that it is gone, and forgets it unprepared', async (t, subject) => {
    const pod = await subject.makePod();
    const { cookie } = subject.kernel.prepare(pod);
    subject.kernel.capture(pod, cookie);
    const again = await subject.restart();
    await subject.destroyNamespace(pod);
    t.is(again.check(pod, cookie), 'gone');
    await again.release(cookie);
    again.close(cookie);
    t.false(again.captured().includes(cookie));
  });
}
