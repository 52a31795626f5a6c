/** The mesh as it is read from the wire: every field is checked, none may be missing but where the mesh knows none. */
import { z } from 'zod';
import {
  type Address,
  type AuthorizationPolicy,
  type Cidr,
  type MeshUpdate,
  type PolicyMatch,
  type PolicyName,
  parseAddress,
  parseCidr,
  type Service,
  type ServiceName,
  type ServicePort,
  type StringMatch,
  type Workload,
} from '../mesh/index.ts';

/** Of any name, and of any text that a policy compares with. */
export const MAX_NAME_CHARACTERS = 2048;

export function branded<T extends string>(what: string, accepts: (text: string) => boolean) {
  return z.custom<T>((value) => typeof value === 'string' && accepts(value), { error: `is no ${what}` });
}

export const name = z.string().max(MAX_NAME_CHARACTERS);
/** In the canonical form, or the two sides would look the same thing up by two names. */
const address = branded<Address>('canonical address', (text) => parseAddress(text) === text);
const cidr = branded<Cidr>('canonical address block', (text) => parseCidr(text) === text);
const serviceNameText = branded<ServiceName>('service name', (text) => /^[^/]*\/[^/]+$/.test(text));
const PART_OF_NAME = /^[^/]+$/;
const policyNameText = branded<PolicyName>(
  'policy name',
  (text) => text.length <= 2 * MAX_NAME_CHARACTERS && /^[^/]+\/[^/]+$/.test(text),
);
const port = z.int().min(0).max(65_535);
const number = z.number().min(0);

const gateway = z.object({
  destination: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('hostname'), namespace: name, hostname: name }),
    z.object({ kind: z.literal('address'), network: name, address }),
  ]),
  hboneMtlsPort: port,
});

const servicePort: z.ZodType<ServicePort> = z.object({ servicePort: port, targetPort: port });

const workload = z
  .object({
    uid: name.min(1),
    name,
    namespace: name,
    addresses: z.array(address),
    network: name,
    node: name,
    hostname: name,
    protocol: z.enum(['hbone', 'tcp']),
    trustDomain: name,
    serviceAccount: name,
    waypoint: gateway.optional(),
    canonicalName: name,
    canonicalRevision: name,
    workloadType: z.enum(['deployment', 'cronjob', 'pod', 'job']),
    workloadName: name,
    nativeTunnel: z.boolean(),
    authorizationPolicies: z.array(name),
    status: z.enum(['healthy', 'unhealthy']),
    clusterId: name,
    networkGateway: gateway.optional(),
    services: z.record(serviceNameText, z.array(servicePort)),
    applicationTunnel: z.object({ protocol: z.enum(['none', 'proxy']), port }).optional(),
    locality: z.object({ region: name, zone: name, subzone: name }),
    networkMode: z.enum(['standard', 'host']),
    capacity: number,
    sameNode: z.enum(['kernel', 'mtls']),
  })
  // Every workload has every key, so that all of them have one shape.
  .transform(
    (read): Workload => ({
      ...read,
      waypoint: read.waypoint,
      networkGateway: read.networkGateway,
      applicationTunnel: read.applicationTunnel,
    }),
  );

const service = z
  .object({
    name,
    namespace: name,
    hostname: name.min(1),
    addresses: z.array(z.object({ network: name, address })),
    addressBlocks: z.array(z.object({ network: name, cidr })),
    ports: z.array(servicePort),
    subjectAltNames: z.array(name),
    waypoint: gateway.optional(),
    weightedWaypoints: z.array(z.object({ destination: gateway, weight: number })),
    loadBalancing: z
      .object({
        routingPreference: z.array(z.enum(['region', 'zone', 'subzone', 'node', 'cluster', 'network'])),
        mode: z.enum(['unspecified', 'strict', 'failover', 'passthrough']),
        healthPolicy: z.enum(['only-healthy', 'allow-all']),
      })
      .optional(),
    ipFamilies: z.enum(['automatic', 'ipv4-only', 'ipv6-only', 'dual']),
    canonical: z.boolean(),
    visibility: z.enum(['public', 'namespace']),
  })
  .transform((read): Service => ({ ...read, waypoint: read.waypoint, loadBalancing: read.loadBalancing }));

const stringMatches: z.ZodType<readonly StringMatch[]> = z.array(
  z.discriminatedUnion('kind', [
    z.object({ kind: z.enum(['exact', 'prefix', 'suffix']), value: name }),
    z.object({ kind: z.literal('presence') }),
  ]),
);
const cidrs = z.array(cidr);
const destinationPorts = z.array(port.min(1));
const serviceAccounts = z.array(z.object({ namespace: name.min(1), serviceAccount: name.min(1) }));

/** No field may be missing: a match without one of its fields would match more. */
const policyMatch: z.ZodType<PolicyMatch> = z.object({
  namespaces: stringMatches,
  notNamespaces: stringMatches,
  principals: stringMatches,
  notPrincipals: stringMatches,
  sourceIps: cidrs,
  notSourceIps: cidrs,
  destinationIps: cidrs,
  notDestinationIps: cidrs,
  destinationPorts,
  notDestinationPorts: destinationPorts,
  serviceAccounts,
  notServiceAccounts: serviceAccounts,
});

const policy: z.ZodType<AuthorizationPolicy> = z.object({
  namespace: name.regex(PART_OF_NAME, 'is no namespace'),
  name: name.regex(PART_OF_NAME, 'is no name'),
  scope: z.enum(['global', 'namespace', 'workload-selector']),
  action: z.enum(['allow', 'deny']),
  rules: z.array(
    z.object({
      clauses: z.array(z.object({ matches: z.array(policyMatch) })),
      unlessThroughWaypoint: z.boolean(),
    }),
  ),
  dryRun: z.boolean(),
  partial: z.literal(true).optional(),
  partialBecause: name.optional(),
});

const settings = z.object({
  trustDomain: name,
  clusterDomain: name,
  rootNamespace: name,
  network: name,
  clusterId: name,
});

/** One part of an update, or all of it. */
export const update = z
  .object({
    complete: z.boolean(),
    workloads: z.array(workload),
    services: z.array(service),
    removed: z.array(name),
    policies: z.array(policy),
    removedPolicies: z.array(policyNameText),
    settings: settings.optional(),
  })
  .transform((read): MeshUpdate => ({ ...read, settings: read.settings }));
