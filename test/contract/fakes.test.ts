import { once } from 'node:events';
import { connect } from 'node:net';
import test from 'ava';
import * as addon from '../../native/addon/index.js';
import { lingerReset } from '../../src/kernel/socket-options.ts';
import { type Address, type Endpoint, encodeAddress } from '../../src/mesh/index.ts';
import { FakePodKernel } from './fakes/pod-kernel.ts';
import { fakePodSockets } from './fakes/pod-sockets.ts';
import { pod as makePod } from './fakes/pods.ts';
import { FakeTunnel } from './fakes/tunnel.ts';
import { podKernelContract } from './pod-kernel.ts';
import { accepting, podSocketsContract } from './pod-sockets.ts';
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
    pinned: async () => [...kernel.pins.keys()],
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
    knock: async (prepared) => void tunnel.connect(prepared.cookie),
    dispose: async () => undefined,
  };
});

podSocketsContract(test, 'the fake pod sockets', async () => {
  const loopback = '127.0.0.1' as Address;
  const destinations: Record<number, Endpoint> = {};
  const boundSources: number[] = [];
  const listener = async (options: readonly addon.SocketOption[] = []) => {
    const bind = { address: encodeAddress(loopback), port: 0 };
    const fd = addon.socketOpen({ family: 4, bind, options, backlog: 16 });
    const by = await accepting(fd);
    return { endpoint: { address: loopback, port: by.port }, ...by };
  };
  const connectTo = async (by: Awaited<ReturnType<typeof listener>>) => {
    const client = connect({ host: loopback, port: by.port, allowHalfOpen: true });
    const [accepted] = await Promise.all([by.accepted(), once(client, 'connect')]);
    by.close();
    return { client, accepted };
  };
  const free = await listener();
  free.close();
  return {
    sockets: fakePodSockets({ destinations, boundSources }),
    netnsFd: -1,
    podAddress: loopback,
    client: { address: '127.77.0.9' as Address, port: free.port },
    serverOutside: () => listener(),
    appInPod: () => listener(),
    async ledClient(asked, bindsSource) {
      const agent = await listener([lingerReset]);
      destinations[agent.port] = asked;
      if (bindsSource) boundSources.push(agent.port);
      return await connectTo(agent);
    },
    strayClient: async () => await connectTo(await listener()),
    dispose: async () => undefined,
  };
});
