/** A small mesh to ask questions about: workloads and services with everything that a test says nothing of filled in. */
import {
  type Address,
  DEFAULT_SETTINGS,
  type Endpoint,
  type GatewayAddress,
  type LoadBalancing,
  type Locality,
  type MeshSettings,
  parseAddress,
  ReadModel,
  type Service,
  type ServicePort,
  type Workload,
} from '../../../src/mesh/index.ts';
import { service as meshService, meshUpdate, workload as meshWorkload } from '../../contract/fakes/mesh.ts';

export function address(text: string): Address {
  const parsed = parseAddress(text);
  if (parsed === undefined) throw new Error(`no address: ${text}`);
  return parsed;
}

export function endpoint(text: string): Endpoint {
  const colon = text.lastIndexOf(':');
  return { address: address(text.slice(0, colon).replace(/^\[|\]$/g, '')), port: Number(text.slice(colon + 1)) };
}

type WorkloadWish = Partial<Omit<Workload, 'name' | 'addresses' | 'locality'>> & {
  readonly addresses?: readonly string[];
  readonly locality?: Partial<Locality>;
};

/** A pod of namespace shop that takes the tunnel. Without `addresses`, it has none. */
export function workload(name: string, { addresses = [], locality, ...wish }: WorkloadWish = {}): Workload {
  return meshWorkload({
    name,
    node: '',
    serviceAccount: name,
    ...wish,
    addresses: addresses.map(address),
    locality: { region: '', zone: '', subzone: '', ...locality },
  });
}

type ServiceWish = Partial<Omit<Service, 'name' | 'addresses' | 'ports' | 'loadBalancing'>> & {
  /** On network `network`, default the nameless one. */
  readonly addresses?: readonly string[];
  readonly network?: string;
  /** Service port to target port; 0: named. */
  readonly ports?: Readonly<Record<number, number>>;
  readonly loadBalancing?: Partial<LoadBalancing>;
};

/** A service of namespace shop with port 80, which its endpoints have as 8080. Without `addresses`, it has none. */
export function service(
  name: string,
  { network = '', addresses = [], ports = { 80: 8080 }, loadBalancing, ...wish }: ServiceWish = {},
): Service {
  return meshService({
    name,
    ...wish,
    addresses: addresses.map((text) => ({ network, address: address(text) })),
    ports: portsOf(ports),
    loadBalancing: loadBalancing && {
      mode: 'unspecified',
      healthPolicy: 'only-healthy',
      routingPreference: [],
      ...loadBalancing,
    },
  });
}

/** Membership of a service, with the endpoint's own port map. */
export function memberOf(name: string, ports: Readonly<Record<number, number>> = {}): Workload['services'] {
  return { [`shop/${name}.shop.svc.cluster.local`]: portsOf(ports) };
}

export function byName(name: string, hboneMtlsPort = 15008): GatewayAddress {
  return {
    destination: { kind: 'hostname', namespace: 'shop', hostname: `${name}.shop.svc.cluster.local` },
    hboneMtlsPort,
  };
}

export function byAddress(text: string, hboneMtlsPort = 15008, network = ''): GatewayAddress {
  return { destination: { kind: 'address', network, address: address(text) }, hboneMtlsPort };
}

export function meshOf(
  workloads: readonly Workload[],
  services: readonly Service[] = [],
  settings: Partial<MeshSettings> = {},
): ReadModel {
  const model = new ReadModel();
  model.apply(meshUpdate({ complete: true, workloads, services, settings: { ...DEFAULT_SETTINGS, ...settings } }));
  return model;
}

function portsOf(ports: Readonly<Record<number, number>>): readonly ServicePort[] {
  return Object.entries(ports).map(([servicePort, targetPort]) => ({ servicePort: Number(servicePort), targetPort }));
}

/** Numbers from 0 to below 1, the same for the same seed (xorshift). */
export function seeded(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
