import test from 'ava';
import { parsePod } from '../../src/agent/index.ts';
import { openKernel, removePrograms } from '../../src/kernel/index.ts';
import type { NetnsCookie } from '../../src/mesh/index.ts';
import { Lab } from '../lab/index.ts';
import { FakePathKernel } from './fakes/path-kernel.ts';
import { pathKernelContract } from './path-kernel.ts';

pathKernelContract(test, 'the fake of the kernel path', async () => {
  const kernel = new FakePathKernel();
  let made = 0n;
  return {
    kernel,
    async makePod() {
      made += 1n;
      kernel.capture(made as NetnsCookie);
      return made as NetnsCookie;
    },
    dispose: async () => undefined,
  };
});

pathKernelContract(test, "the kernel's side of the kernel path", async () => {
  const lab = await Lab.create('the contract of the kernel path');
  const node = await lab.node('n1');
  const kernel = openKernel({ cgroup: node.cgroup, bpffs: node.bpffs, workers: 1 });
  let made = 0;
  return {
    kernel,
    async makePod() {
      made += 1;
      const pod = parsePod((await node.pod(`p${made}`)).request());
      const { cookie } = kernel.prepare(pod);
      kernel.capture(pod, cookie);
      return cookie;
    },
    async dispose() {
      kernel.dispose();
      removePrograms(node.bpffs);
      await lab.dispose();
    },
  };
});
