/** Which waypoint a service or workload has (wire contract, section 12.6). */
import { type GatewayAddress, parseAddress, type Service, type Workload } from '../../mesh/index.ts';
import type { Gateway, GatewayClass, LabelSelector, Namespace } from '../objects/index.ts';
import type { ProblemReason } from '../ports.ts';

const USE_WAYPOINT = 'istio.io/use-waypoint';
const USE_CANARY = 'istio.io/use-waypoint-canary';
const CANARY_WEIGHT = 'istio.io/use-waypoint-canary-weight';
const WAYPOINT_FOR = 'istio.io/waypoint-for';
const INBOUND_BINDING = 'ambient.istio.io/waypoint-inbound-binding';
const GATEWAY_NAME = 'gateway.networking.k8s.io/gateway-name';
const MANAGED = 'gateway.istio.io/managed';
/** Who makes the pods and services of waypoints and of east-west gateways. */
const MANAGERS: ReadonlySet<string | undefined> = new Set(['istio.io-mesh-controller', 'istio.io-eastwest-controller']);
const HBONE_PORT = 15_008;

/** What carries labels. */
export interface Labelled {
  readonly name: string;
  readonly namespace: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface WaypointsDeps {
  /** By `namespace/name`. */
  readonly gateways: ReadonlyMap<string, Gateway>;
  readonly classes: ReadonlyMap<string, GatewayClass>;
  readonly namespaces: ReadonlyMap<string, Namespace>;
  /** Of the gateways that have one, by the same names. */
  readonly addresses: ReadonlyMap<string, GatewayAddress | undefined>;
}

/** Why a waypoint that is asked for is not used. */
export interface Refusal {
  readonly reason: ProblemReason;
  readonly text: string;
  /** The label or annotation that asks. */
  readonly key: string;
  /** It is the namespace that asks. */
  readonly isInherited: boolean;
}

export interface Attachment {
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: Service['weightedWaypoints'];
  readonly refusal: Refusal | undefined;
}

const NOT_ATTACHED: Attachment = { waypoint: undefined, weightedWaypoints: [], refusal: undefined };

interface Reference {
  readonly name: string;
  readonly namespace: string;
  readonly key: string;
  readonly isInherited: boolean;
}

export class Waypoints {
  readonly #deps: WaypointsDeps;
  readonly #inherited = new Map<string, Attachment>();

  constructor(deps: WaypointsDeps) {
    this.#deps = deps;
  }

  /** @param isPrivate only its own namespace finds it: then the waypoint must be of that namespace too */
  ofService(metadata: Labelled, isPrivate = false): Attachment {
    if (MANAGERS.has(metadata.labels[MANAGED])) return NOT_ATTACHED;
    const reference = this.#reference(metadata, USE_WAYPOINT);
    if (reference === undefined) return NOT_ATTACHED;
    const primary = this.#attach(reference, metadata.namespace, 'service', isPrivate);
    return primary.waypoint === undefined ? primary : this.#withCanary(primary, reference, metadata, isPrivate);
  }

  ofWorkload(metadata: Labelled): Attachment {
    const { labels, namespace } = metadata;
    if (MANAGERS.has(labels[MANAGED]) || this.#gatewayOf(metadata) !== undefined) return NOT_ATTACHED;
    if (labels[USE_WAYPOINT]) {
      const reference = this.#reference(metadata, USE_WAYPOINT);
      return reference === undefined ? NOT_ATTACHED : this.#attach(reference, namespace, 'workload', false);
    }
    // What a namespace says, it says to all of its workloads.
    let attachment = this.#inherited.get(namespace);
    if (attachment === undefined) {
      const reference = this.#reference(metadata, USE_WAYPOINT);
      attachment = reference === undefined ? NOT_ATTACHED : this.#attach(reference, namespace, 'workload', false);
      this.#inherited.set(namespace, attachment);
    }
    return attachment;
  }

  /** How a pod that is a waypoint wants its traffic. */
  tunnelOf(pod: Labelled): Workload['applicationTunnel'] {
    const gateway = this.#gatewayOf(pod);
    if (gateway === undefined) return undefined;
    const [, protocol, port = '0'] =
      /^(PROXY|NONE)(?:\/(\d+))?$/.exec(this.#said(gateway, INBOUND_BINDING) ?? '') ?? [];
    if (protocol === undefined || Number(port) > 65_535) return undefined;
    return { protocol: protocol === 'PROXY' ? 'proxy' : 'none', port: Number(port) };
  }

  #gatewayOf({ labels, namespace }: Labelled): Gateway | undefined {
    const name = labels[GATEWAY_NAME];
    return name ? this.#deps.gateways.get(`${namespace}/${name}`) : undefined;
  }

  /** A gateway's own annotation or label, else its class's. */
  #said(gateway: Gateway, key: string): string | undefined {
    const both = [gateway.metadata, this.#deps.classes.get(gateway.spec.gatewayClassName)?.metadata];
    return both.map((each) => each?.annotations[key] ?? each?.labels[key]).find((value) => value !== undefined);
  }

  /** The object's own, else its namespace's; `none` is none, and ends the search. */
  #reference({ labels, namespace }: Labelled, key: string): Reference | undefined {
    const isInherited = !labels[key];
    const said = isInherited ? (this.#deps.namespaces.get(namespace)?.metadata.labels ?? {}) : labels;
    const name = said[key];
    if (!name || name === 'none') return undefined;
    return { name, namespace: said[`${key}-namespace`] || namespace, key, isInherited };
  }

  #attach(reference: Reference, from: string, kind: 'service' | 'workload', isPrivate: boolean): Attachment {
    const full = `${reference.namespace}/${reference.name}`;
    const refuse = (reason: ProblemReason, text: string): Attachment => ({
      ...NOT_ATTACHED,
      refusal: { reason, text, key: reference.key, isInherited: reference.isInherited },
    });
    const gateway = this.#deps.gateways.get(full);
    const waypoint = this.#deps.addresses.get(full);
    if (gateway === undefined) return refuse('WaypointIsNotReady', `There is no Gateway ${full}.`);
    if (waypoint === undefined) return refuse('WaypointIsNotReady', `Gateway ${full} has no address in its status.`);
    if (reference.namespace !== from) {
      if (isPrivate)
        return refuse(
          'CrossNamespaceWaypointForbidden',
          `Gateway ${full} is of another namespace, and what only ${from} can find must not leave it.`,
        );
      if (!this.#admits(gateway, from))
        return refuse('AttachmentDenied', `The HBONE listener of Gateway ${full} does not allow routes of ${from}.`);
    }
    const serves = this.#said(gateway, WAYPOINT_FOR) ?? 'service';
    if (serves !== 'all' && serves !== kind)
      return refuse('UnsupportedTrafficType', `Gateway ${full} is a waypoint for ${serves}, not for ${kind}.`);
    return { ...NOT_ATTACHED, waypoint };
  }

  #withCanary(primary: Attachment, of: Reference, metadata: Labelled, isPrivate: boolean): Attachment {
    const reference = this.#reference(metadata, USE_CANARY);
    if (primary.waypoint === undefined || reference === undefined) return primary;
    const refuse = (reason: ProblemReason, text: string, key = USE_CANARY): Attachment => ({
      ...primary,
      refusal: { reason, text, key, isInherited: reference.isInherited },
    });
    if (reference.name === of.name && reference.namespace === of.namespace)
      return refuse('CanarySameAsPrimary', `The canary waypoint is the primary one, ${of.namespace}/${of.name}.`);
    const said =
      metadata.annotations[CANARY_WEIGHT] ??
      this.#deps.namespaces.get(metadata.namespace)?.metadata.annotations[CANARY_WEIGHT];
    const weight = /^\d{1,3}$/.test(said ?? '') ? Number(said) : Number.NaN;
    if (!(weight <= 100))
      return refuse('CanaryInvalidWeight', 'The weight of a canary waypoint is a number from 0 to 100.', CANARY_WEIGHT);
    const canary = this.#attach(reference, metadata.namespace, 'service', isPrivate);
    if (canary.waypoint === undefined) return { ...primary, refusal: canary.refusal };
    const weightedWaypoints = [
      { destination: primary.waypoint, weight: 100 - weight },
      { destination: canary.waypoint, weight },
    ];
    return { ...primary, weightedWaypoints };
  }

  #admits(gateway: Gateway, namespace: string): boolean {
    const listener = gateway.spec.listeners.find(({ port, protocol }) => port === HBONE_PORT && protocol === 'HBONE');
    const { from, selector } = listener?.allowedRoutes?.namespaces ?? {};
    if (from === 'All') return true;
    const said = this.#deps.namespaces.get(namespace)?.metadata.labels;
    // Kubernetes gives every namespace this label; files mostly do not have it.
    const labels = { 'kubernetes.io/metadata.name': namespace, ...said };
    return from === 'Selector' && selector !== undefined && matches(selector, labels);
  }
}

/** Where a gateway is, once it has an address; its name is preferred. */
export function gatewayAddress({ metadata, status }: Gateway, network: string): GatewayAddress | undefined {
  const given = status?.addresses ?? [];
  const hostname = given.find(({ type, value }) => type === 'Hostname' && value !== '')?.value.toLowerCase();
  if (hostname !== undefined)
    return { destination: { kind: 'hostname', namespace: metadata.namespace, hostname }, hboneMtlsPort: HBONE_PORT };
  const address = given
    .filter(({ type }) => type === '' || type === 'IPAddress')
    .map(({ value }) => parseAddress(value))
    .find((value) => value !== undefined);
  return address && { destination: { kind: 'address', network, address }, hboneMtlsPort: HBONE_PORT };
}

function matches({ matchLabels, matchExpressions }: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values }) => {
      const value = labels[key];
      if (operator === 'Exists') return value !== undefined;
      if (operator === 'DoesNotExist') return value === undefined;
      return (value !== undefined && values.includes(value)) === (operator === 'In');
    })
  );
}
