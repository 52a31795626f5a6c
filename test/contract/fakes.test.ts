import test from 'ava';
import { FakePodKernel } from './fakes/pod-kernel.ts';
import { pod as makePod } from './fakes/pods.ts';
import { FakeTunnel } from './fakes/tunnel.ts';
import { podKernelContract } from './pod-kernel.ts';
import { tunnelContract } from './tunnel.ts';

podKernelContract(test, 'the fake kernel', async () => {
  const kernel = new FakePodKernel();
  let made = 0;
  return {
    kernel,
    async makePod() {
      made += 1;
      const pod = makePod({ uid: `uid-${made}`, netns: `/run/netns/${made}` });
      kernel.addNamespace(pod.netns, BigInt(made));
      return pod;
    },
    destroyNamespace: async (pod) => kernel.removeNamespace(pod.netns),
    killListeners: async (pod) => kernel.killListeners(kernel.prepare(pod).cookie),
    restart: async () => new FakePodKernel(kernel),
    dispose: async () => undefined,
  };
});

tunnelContract(test, 'the fake tunnel', async () => {
  const tunnel = new FakeTunnel();
  const kernel = new FakePodKernel();
  let made = 0;
  return {
    tunnel,
    async makePod() {
      made += 1;
      const pod = makePod({ uid: `uid-${made}`, netns: `/run/netns/${made}` });
      kernel.addNamespace(pod.netns, BigInt(made));
      return { pod, prepared: kernel.prepare(pod) };
    },
    connect: async (prepared) => tunnel.connect(prepared.cookie),
    dispose: async () => undefined,
  };
});
