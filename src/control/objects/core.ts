/** Kubernetes' own objects, as far as the mesh is built of them. What is not named here is not looked at. */
import { z } from 'zod';
import { parseAddress } from '../../mesh/index.ts';
import {
  address,
  clusterMetadata,
  flag,
  label,
  list,
  metadata,
  optional,
  port,
  protocol,
  subdomain,
  subdomainOrNone,
  text,
  texts,
} from './fields.ts';
import { meshConfigText } from './mesh-config.ts';

export const namespace = z.object({ kind: z.literal('Namespace'), metadata: clusterMetadata.extend({ name: label }) });
export type Namespace = z.output<typeof namespace>;

export const node = z.object({ kind: z.literal('Node'), metadata: clusterMetadata });
export type Node = z.output<typeof node>;

export const serviceAccount = z.object({ kind: z.literal('ServiceAccount'), metadata });
export type ServiceAccount = z.output<typeof serviceAccount>;

const container = z.object({
  restartPolicy: text,
  ports: list(z.object({ name: text, containerPort: port, protocol })),
});

/** An address that Kubernetes has not given yet is empty. */
const givenAddress = optional(z.union([z.literal(''), address], 'is not an IP address')).transform(
  (value) => value || undefined,
);

export const pod = z.object({
  kind: z.literal('Pod'),
  metadata: metadata.extend({
    generateName: text,
    deletionTimestamp: text,
    ownerReferences: list(z.object({ kind: z.string(), name: subdomain, controller: flag })),
  }),
  spec: z.object({
    nodeName: subdomainOrNone,
    serviceAccountName: subdomainOrNone,
    hostNetwork: flag,
    containers: list(container),
    initContainers: list(container),
  }),
  status: optional(
    z.object({
      phase: text,
      podIP: givenAddress,
      podIPs: list(z.object({ ip: address })),
      conditions: list(z.object({ type: z.string(), status: z.string() })),
    }),
  ),
});
export type Pod = z.output<typeof pod>;

const clusterIp = z.union([z.enum(['None', '']), address], 'is not an IP address');

export const service = z.object({
  kind: z.literal('Service'),
  metadata: metadata.extend({ name: label }),
  spec: z.object({
    type: text,
    clusterIP: optional(clusterIp),
    clusterIPs: list(clusterIp),
    selector: texts,
    ports: list(
      z.object({
        name: text,
        port,
        targetPort: optional(
          z.union([port, z.string().min(1)], 'must be a port number or the name of a container port'),
        ),
        protocol,
      }),
    ),
    ipFamilies: list(z.enum(['IPv4', 'IPv6'])),
    internalTrafficPolicy: text,
    trafficDistribution: optional(z.string()),
    publishNotReadyAddresses: flag,
  }),
});
export type Service = z.output<typeof service>;

export const endpointSlice = z
  .object({
    kind: z.literal('EndpointSlice'),
    metadata,
    addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
    endpoints: list(
      z.object({
        addresses: z.array(z.string()),
        conditions: optional(z.object({ ready: optional(z.boolean()) })),
        targetRef: optional(z.object({ kind: text, name: text, namespace: text })),
      }),
    ),
    ports: list(z.object({ name: text, port: optional(port), protocol })),
  })
  .superRefine((slice, context) => {
    if (slice.addressType === 'FQDN') return;
    for (const [at, { addresses }] of slice.endpoints.entries())
      for (const [index, each] of addresses.entries())
        if (parseAddress(each) === undefined)
          context.addIssue({
            code: 'custom',
            message: 'is not an IP address',
            path: ['endpoints', at, 'addresses', index],
          });
  });
export type EndpointSlice = z.output<typeof endpointSlice>;

/** Only the one named `culvert` is looked into: the settings of the mesh. */
export const configMap = z
  .object({ kind: z.literal('ConfigMap'), metadata, data: texts })
  .transform(({ kind, metadata, data }, context) => {
    const given = metadata.name === 'culvert' ? data['mesh.yaml'] : undefined;
    return { kind, metadata, meshConfig: given === undefined ? undefined : meshConfigText(given, context) };
  });
export type ConfigMap = z.output<typeof configMap>;
