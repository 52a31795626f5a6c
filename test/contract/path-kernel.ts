import type { ExecutionContext, TestFn } from 'ava';
import type { KernelVerdict, PathKernel } from '../../src/agent/index.ts';
import type { Address, Endpoint, NetnsCookie } from '../../src/mesh/index.ts';

/** The kernel's side of the kernel path, and pods to try it on. */
export interface PathKernelSubject {
  readonly kernel: PathKernel;
  /** A pod that is captured. */
  makePod(): Promise<NetnsCookie>;
  dispose(): Promise<void>;
}

const stranger = 77n as NetnsCookie;
const there: Endpoint = { address: '10.9.9.9' as Address, port: 80 };
const backend = { endpoint: { address: '10.9.9.10' as Address, port: 8080 }, weight: 1 };

/** What whoever keeps the tables of the kernel path must hold to. What connects meet is for other tests. */
export function pathKernelContract(test: TestFn, name: string, make: () => Promise<PathKernelSubject>): void {
  const law = (title: string, run: (t: ExecutionContext, subject: PathKernelSubject) => Promise<void>) =>
    test.serial(`${name} ${title}`, async (t) => {
      const subject = await make();
      try {
        await run(t, subject);
      } finally {
        await subject.dispose();
      }
    });
  const verdictOf = (kernel: PathKernel, source: NetnsCookie): KernelVerdict => ({
    ...{ kind: 'outside', source, destination: there, to: 0n },
    ...{ sourceEpoch: kernel.epochOf(source), destinationEpoch: kernel.epochOf(0n) },
  });

  law('gives a captured pod an epoch, and nobody else', async (t, { kernel, makePod }) => {
    t.true(kernel.epochOf(await makePod()) > 0n);
    t.true(kernel.epochOf(0n) > 0n);
    t.is(kernel.epochOf(stranger), 0n);
  });

  law('raises one epoch at a time, never back', async (t, { kernel, makePod }) => {
    const [pod, other] = [await makePod(), await makePod()];
    const before = { pod: kernel.epochOf(pod), other: kernel.epochOf(other), outside: kernel.epochOf(0n) };
    const raised = kernel.raiseEpoch(pod);
    t.true(raised > before.pod);
    t.is(kernel.epochOf(pod), raised);
    t.is(kernel.epochOf(other), before.other);
    t.is(kernel.epochOf(0n), before.outside);
    t.true(kernel.raiseEpoch(0n) > before.outside);
  });

  law('gives no epoch to a pod that is not captured', async (t, { kernel }) => {
    t.true(kernel.raiseEpoch(stranger) > 0n);
    t.is(kernel.epochOf(stranger), 0n);
  });

  law('raises every epoch when everything is cleared', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const [before, outside] = [kernel.epochOf(pod), kernel.epochOf(0n)];
    kernel.clearPaths();
    t.true(kernel.epochOf(pod) > before);
    t.true(kernel.epochOf(0n) > outside);
  });

  law('replaces a verdict, and deletes it as often as it is told', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    t.true(kernel.putVerdict(verdictOf(kernel, pod)));
    t.true(kernel.putVerdict(verdictOf(kernel, pod)));
    kernel.deleteVerdict(pod, there);
    kernel.deleteVerdict(pod, there);
    t.pass();
  });

  law('replaces a service, and deletes it as often as it is told', async (t, { kernel }) => {
    t.true(kernel.putService(there, [backend]));
    t.true(kernel.putService(there, [backend, { ...backend, weight: 9 }]));
    kernel.deleteService(there);
    kernel.deleteService(there);
    t.pass();
  });

  law('opens ports of captured pods only', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    const open = { others: true, ports: new Map([[81, false]]) };
    t.true(kernel.setOpenPorts(pod, open));
    kernel.setOpenPorts(pod, undefined);
    t.false(kernel.setOpenPorts(stranger, open));
  });

  law('lets every pod on the kernel path and off it', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    t.notThrows(() => {
      for (const on of [true, true, false, false]) kernel.setKernelPath(pod, on);
      kernel.setKernelPath(stranger, true);
    });
  });

  law('has no flows while nobody connects', async (t, { kernel, makePod }) => {
    const pod = await makePod();
    t.deepEqual([...kernel.flows()], []);
    t.deepEqual([...kernel.flows(new Set([pod]))], []);
    t.deepEqual([...kernel.flowRecords()], []);
    t.is(kernel.flowCount(), 0);
    t.is(kernel.sweepFlows(), 0);
    t.is(kernel.destroyFlows([]), 0);
    t.deepEqual(kernel.sampleFlows(), { round: 1, samples: [] });
  });

  law('takes signs of life, and any control group', async (t, { kernel }) => {
    t.notThrows(() => {
      kernel.beat();
      kernel.setKubelet({ cgroup: 5n, level: 2 });
      kernel.setKubelet(undefined);
    });
  });
}
