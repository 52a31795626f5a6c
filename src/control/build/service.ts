/** Kubernetes Service to Service (wire contract, section 12.5). */
import { type Address, type MeshSettings, type Service, serviceName } from '../../mesh/index.ts';
import type * as objects from '../objects/index.ts';
import { serviceLoadBalancing } from './load-balancing.ts';
import type { Target } from './selection.ts';
import type { Attachment } from './waypoints.ts';

/** ExternalName is an alias in DNS, nothing to connect to. */
export function isSent({ spec }: objects.Service): boolean {
  return spec.type !== 'ExternalName';
}

export function hostnameOf({ metadata }: objects.Service, settings: MeshSettings): string {
  return `${metadata.name}.${metadata.namespace}.svc.${settings.clusterDomain}`;
}

/** The service as endpoints see it. */
export function targetOf(service: objects.Service, settings: MeshSettings): Target {
  const { metadata, spec } = service;
  return {
    name: serviceName({ namespace: metadata.namespace, hostname: hostnameOf(service, settings) }),
    object: metadata.name,
    kind: 'Service',
    selector: spec.selector,
    ports: tcpPorts(service).map(({ name, port, targetPort }) => ({
      name,
      servicePort: port,
      target: targetPort ?? port,
    })),
  };
}

export function buildService(
  service: objects.Service,
  settings: MeshSettings,
  trafficDistribution: string | undefined,
  attachment: Attachment,
): Service {
  const { metadata } = service;
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    hostname: hostnameOf(service, settings),
    addresses: clusterAddresses(service).map((address) => ({ network: settings.network, address })),
    addressBlocks: [],
    ports: tcpPorts(service).map(({ port, targetPort = port }) => ({
      servicePort: port,
      targetPort: typeof targetPort === 'number' ? targetPort : 0,
    })),
    subjectAltNames: [],
    waypoint: attachment.waypoint,
    weightedWaypoints: attachment.weightedWaypoints,
    loadBalancing: serviceLoadBalancing(service, trafficDistribution),
    ipFamilies: familiesOf(service),
    canonical: true,
    visibility: 'public',
  };
}

function tcpPorts({ spec }: objects.Service): objects.Service['spec']['ports'] {
  return spec.ports.filter(({ protocol }) => protocol === 'TCP');
}

function clusterAddresses({ spec }: objects.Service): Address[] {
  const given = spec.clusterIPs.length > 0 ? spec.clusterIPs : [spec.clusterIP];
  return given.filter((each): each is Address => each !== undefined && each !== '' && each !== 'None');
}

function familiesOf({ spec }: objects.Service): Service['ipFamilies'] {
  const [only, ...more] = new Set(spec.ipFamilies);
  if (only === undefined) return 'automatic';
  if (more.length > 0) return 'dual';
  return only === 'IPv4' ? 'ipv4-only' : 'ipv6-only';
}
