/** The fuzz's world as Kubernetes and Istio objects. */
import type { LabPod, Manifest } from '../../lab/index.ts';
import {
  authorizationPolicyManifest,
  peerAuthenticationManifest,
  podManifest,
  serviceManifest,
} from '../../lab/index.ts';
import type { PeerAuthentication, Pod, Policy, Rule, Service, World } from './model.ts';

const SAME_NODE = 'culvert.dev/same-node';

/**
 * @param labPods by name
 * @param workloads how many the mesh is to have: pods that are nowhere fill it up, so that a change can be told by it
 */
export function manifestsOf(world: World, labPods: ReadonlyMap<string, LabPod>, workloads: number): Manifest[] {
  const known = world.pods.filter(({ isKnown }) => isKnown);
  return [
    ...Object.entries(world.sameNode).map(([name, sameNode]) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, annotations: sameNode === 'unsaid' ? {} : { [SAME_NODE]: sameNode } },
    })),
    ...known.map((pod) => podOf(pod, labPods.get(pod.name))),
    ...Array.from({ length: workloads - known.length }, (_, index) => nobody(index)),
    ...world.services.filter(({ isThere }) => isThere).map(serviceOf),
    ...world.policies.map(policyOf),
    ...world.peers.map(peerOf),
  ];
}

function podOf({ labels, isReady, isEnrolled, sameNode }: Pod, labPod: LabPod | undefined): Manifest {
  if (labPod === undefined) throw new Error('a pod of the model is none of the lab');
  const annotations = sameNode === 'unsaid' ? {} : { [SAME_NODE]: sameNode };
  return podManifest(labPod, { labels, ready: isReady, enrolled: isEnrolled, annotations });
}

function nobody(index: number): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: `nobody-${index}`, namespace: 'nowhere', uid: `nobody-${index}` },
    spec: { nodeName: 'nowhere', containers: [{ name: 'app', image: 'app' }] },
    status: { phase: 'Running', podIP: `10.250.0.${index + 1}`, podIPs: [{ ip: `10.250.0.${index + 1}` }] },
  };
}

function serviceOf({ name, namespace, ipv4, ipv6, selector, ports }: Service): Manifest {
  return serviceManifest(name, { namespace, clusterIps: [ipv4, ipv6], selector, ports });
}

function policyOf({ namespace, name, action, selector, isDryRun, rules }: Policy): Manifest {
  return authorizationPolicyManifest(name, {
    namespace,
    action,
    rules: rules.map(ruleOf),
    ...(selector === undefined ? {} : { selector }),
    ...(isDryRun ? { annotations: { 'istio.io/dry-run': 'true' } } : {}),
  });
}

function ruleOf({ from, to, when }: Rule): Manifest {
  return {
    ...(from === undefined ? {} : { from: from.map((source) => ({ source })) }),
    ...(to === undefined ? {} : { to: to.map((operation) => ({ operation })) }),
    ...(when === undefined ? {} : { when }),
  };
}

function peerOf({ namespace, name, age, mode, selector, ports }: PeerAuthentication): Manifest {
  const options = { namespace, mode, ports, ...(selector === undefined ? {} : { selector }) };
  const manifest = peerAuthenticationManifest(name, options);
  const creationTimestamp = new Date(Date.UTC(2024, 0, 1) + age * 1000).toISOString();
  return { ...manifest, metadata: { name, namespace, creationTimestamp } };
}
