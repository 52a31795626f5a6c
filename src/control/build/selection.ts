/** Which services a workload is an endpoint of, and at which ports (wire contract, sections 12.3 and 12.4). */
import type { ServiceName, ServicePort } from '../../mesh/index.ts';
import type { EndpointSlice, Pod } from '../objects/index.ts';
import { type Labels, Selectors } from './selectors.ts';

/** A service as endpoints see it. */
export interface Target {
  readonly name: ServiceName;
  /** The object's own name. */
  readonly object: string;
  readonly kind: 'Service' | 'ServiceEntry';
  /** Empty: it selects nothing. */
  readonly selector: Readonly<Record<string, string>>;
  readonly ports: readonly TargetPort[];
}

export interface TargetPort {
  readonly name: string;
  readonly servicePort: number;
  /** A number, or the name of a container port. */
  readonly target: number | string;
}

type Services = Readonly<Record<ServiceName, readonly ServicePort[]>>;

const SERVICE_NAME = 'kubernetes.io/service-name';
const NONE: Services = {};

/** Selectors of one namespace. */
export class Selection {
  readonly #targets: readonly Target[];
  readonly #selectors: Selectors<Target>;
  /** Services without a selector, by the pods that their slices name. */
  readonly #byPod = new Map<string, Target[]>();

  constructor(targets: readonly Target[], slices: readonly EndpointSlice[]) {
    this.#targets = targets;
    this.#selectors = new Selectors(targets);
    for (const slice of slices) this.#addPods(slice);
  }

  ofPod(pod: Pod): Services {
    const listed = this.#byPod.get(pod.metadata.name);
    const selecting = this.#selectors.matching(pod.metadata.labels);
    return servicesOf(listed === undefined ? selecting : [...selecting, ...listed], (target) => podPorts(pod, target));
  }

  /** Of a machine with named ports. */
  ofEntry(labels: Labels, ports: Readonly<Record<string, number>>): Services {
    return servicesOf(this.#selectors.matching(labels), (target) => entryPorts(ports, target));
  }

  /** The Kubernetes Service that a slice belongs to. */
  ownerOf(slice: EndpointSlice): Target | undefined {
    const owner = slice.metadata.labels[SERVICE_NAME];
    return this.#targets.find(({ kind, object }) => kind === 'Service' && object === owner);
  }

  #addPods(slice: EndpointSlice): void {
    const owner = this.ownerOf(slice);
    if (owner === undefined || Object.keys(owner.selector).length > 0) return;
    for (const { targetRef } of slice.endpoints) {
      if (targetRef?.kind !== 'Pod') continue;
      const targets = this.#byPod.get(targetRef.name) ?? [];
      if (!targets.includes(owner)) this.#byPod.set(targetRef.name, [...targets, owner]);
    }
  }
}

function servicesOf(targets: readonly Target[], portsOf: (target: Target) => readonly ServicePort[]): Services {
  return targets.length === 0 ? NONE : Object.fromEntries(targets.map((target) => [target.name, portsOf(target)]));
}

/** A named port that the pod does not have is left out. */
function podPorts(pod: Pod, { ports }: Target): readonly ServicePort[] {
  return ports.flatMap(({ servicePort, target }) => {
    const targetPort = typeof target === 'number' ? target : containerPort(pod, target);
    return targetPort === undefined ? [] : [{ servicePort, targetPort }];
  });
}

/** Init containers that are restarted run beside the others. */
function containerPort({ spec }: Pod, name: string): number | undefined {
  const sidecars = spec.initContainers.filter(({ restartPolicy }) => restartPolicy === 'Always');
  for (const { ports } of [...spec.containers, ...sidecars]) {
    const found = ports.find((each) => each.name === name && each.protocol === 'TCP');
    if (found !== undefined) return found.containerPort;
  }
  return undefined;
}

/** A Service asks for the name of its target port; a ServiceEntry for the name of the port, and has a number besides. */
export function entryPorts(
  named: Readonly<Record<string, number>>,
  { kind, ports }: Pick<Target, 'kind' | 'ports'>,
): readonly ServicePort[] {
  return ports.flatMap(({ name, servicePort, target }) => {
    const fixed = typeof target === 'number' ? target : undefined;
    const targetPort = kind === 'Service' ? (fixed ?? named[target]) : (named[name] ?? fixed);
    return targetPort === undefined ? [] : [{ servicePort, targetPort }];
  });
}

/** A slice names its ports as the service does. */
export function slicePorts(slice: EndpointSlice, { ports }: Target): readonly ServicePort[] {
  return slice.ports.flatMap(({ name, port, protocol }) => {
    const service = ports.find((each) => each.name === name);
    if (service === undefined || port === undefined || protocol !== 'TCP') return [];
    return [{ servicePort: service.servicePort, targetPort: port }];
  });
}
