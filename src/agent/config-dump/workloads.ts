/** Workloads and services as the admin endpoint writes them (wire contract, section 9.5). Pure. */
import {
  DEFAULT_SETTINGS,
  DEFAULT_TRUST_DOMAIN,
  type GatewayAddress,
  type LoadBalancing,
  type Service,
  type ServiceEndpoint,
  type ServicePort,
  type Workload,
} from '../../mesh/index.ts';

type Json = Record<string, unknown>;

const WORKLOAD_DEFAULTS = { trustDomain: DEFAULT_TRUST_DOMAIN, serviceAccount: 'default' };

/** What `istioctl ztunnel-config` prints is always there; what else is empty or as usual is left out. */
export function workloadJson(workload: Workload): Json {
  const { waypoint, networkGateway, applicationTunnel, locality } = workload;
  return {
    workloadIps: workload.addresses,
    ...optional('waypoint', waypoint && gatewayJson(waypoint)),
    ...optional('networkGateway', networkGateway && gatewayJson(networkGateway)),
    protocol: workload.protocol === 'hbone' ? 'HBONE' : 'TCP',
    networkMode: workload.networkMode === 'host' ? 'HostNetwork' : 'Standard',
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: workload.trustDomain || WORKLOAD_DEFAULTS.trustDomain,
    serviceAccount: workload.serviceAccount || WORKLOAD_DEFAULTS.serviceAccount,
    ...optional('network', workload.network),
    ...optional('workloadName', workload.workloadName),
    workloadType: workload.workloadType,
    ...optional('canonicalName', workload.canonicalName),
    ...optional('canonicalRevision', workload.canonicalRevision),
    ...optional('hostname', workload.hostname),
    ...optional('node', workload.node),
    ...optional('nativeTunnel', workload.nativeTunnel),
    ...optional('applicationTunnel', applicationTunnel && tunnelJson(applicationTunnel)),
    ...optional('authorizationPolicies', workload.authorizationPolicies),
    status: healthJson(workload.status),
    clusterId: workload.clusterId || DEFAULT_SETTINGS.clusterId,
    ...optional('locality', localityJson(locality)),
    ...optional('services', Object.keys(workload.services)),
    capacity: workload.capacity,
  };
}

export function serviceJson(service: Service, endpoints: Iterable<ServiceEndpoint>): Json {
  const { waypoint, loadBalancing } = service;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(({ network, address }) => `${network}/${address}`),
    ...optional('cidrVips', service.addressBlocks),
    ports: portsJson(service.ports),
    endpoints: Object.fromEntries(
      Array.from(endpoints, ({ workload, ports }) => [workload.uid, endpointJson(workload, ports)]),
    ),
    ...optional('subjectAltNames', service.subjectAltNames),
    ...optional('waypoint', waypoint && gatewayJson(waypoint)),
    ...optional(
      'weightedWaypoints',
      service.weightedWaypoints.map(({ destination, weight }) => ({ destination: gatewayJson(destination), weight })),
    ),
    ...optional('loadBalancer', loadBalancing && loadBalancerJson(loadBalancing)),
    ...optional('ipFamilies', IP_FAMILIES[service.ipFamilies]),
    ...optional('canonical', service.canonical),
    ...optional('visibility', service.visibility === 'namespace' ? 'Namespace' : undefined),
  };
}

/** @param ports service port to target port */
export function endpointJson(workload: Workload, ports: Iterable<readonly [number, number]>): Json {
  return { workloadUid: workload.uid, port: Object.fromEntries(ports), status: healthJson(workload.status) };
}

/** A workload's own ports of a service, as pairs. */
export function portPairs(ports: readonly ServicePort[]): Array<readonly [number, number]> {
  return ports.map(({ servicePort, targetPort }) => [servicePort, targetPort]);
}

function gatewayJson({ destination, hboneMtlsPort }: GatewayAddress): Json {
  const named =
    destination.kind === 'hostname'
      ? `${destination.namespace}/${destination.hostname}`
      : `${destination.network}/${destination.address}`;
  return { destination: named, hboneMtlsPort };
}

function tunnelJson({ protocol, port }: NonNullable<Workload['applicationTunnel']>): Json {
  return { protocol: protocol === 'proxy' ? 'PROXY' : 'NONE', ...(port === 0 ? {} : { port }) };
}

function healthJson(status: Workload['status']): string {
  return status === 'healthy' ? 'Healthy' : 'Unhealthy';
}

function localityJson({ region, zone, subzone }: Workload['locality']): Json | undefined {
  return region === '' && zone === '' && subzone === '' ? undefined : { region, zone, subzone };
}

function portsJson(ports: readonly ServicePort[]): Json {
  return Object.fromEntries(portPairs(ports));
}

const IP_FAMILIES: Readonly<Record<Service['ipFamilies'], string | undefined>> = {
  automatic: undefined,
  'ipv4-only': 'IPv4',
  'ipv6-only': 'IPv6',
  dual: 'Dual',
};

const MODES: Readonly<Record<LoadBalancing['mode'], string>> = {
  unspecified: 'Standard',
  strict: 'Strict',
  failover: 'Failover',
  passthrough: 'Passthrough',
};

function loadBalancerJson({ routingPreference, mode, healthPolicy }: LoadBalancing): Json {
  return {
    routingPreferences: routingPreference.map((scope) => scope.charAt(0).toUpperCase() + scope.slice(1)),
    mode: MODES[mode],
    healthPolicy: healthPolicy === 'allow-all' ? 'AllowAll' : 'OnlyHealthy',
  };
}

/** Nothing for undefined, false, empty texts and empty lists. */
function optional(key: string, value: unknown): Json {
  const isEmpty =
    value === undefined || value === false || value === '' || (Array.isArray(value) && value.length === 0);
  return isEmpty ? {} : { [key]: value };
}
