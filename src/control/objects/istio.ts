/** Istio's objects (networking.istio.io), as far as the mesh is built of them. */
import { z } from 'zod';
import { type Address, type Cidr, parseAddress, parseCidr } from '../../mesh/index.ts';
import {
  address,
  labels,
  labelValueOrNone,
  list,
  metadata,
  optional,
  port,
  protocol,
  subdomainOrNone,
  text,
  texts,
} from './fields.ts';
import { isHostname, isLabelValue, isSubdomain } from './names.ts';

/** What a name that a certificate may hold is at most. */
const MAX_NAME = 2048;
const VISIBLE = /^[!-~]+$/;
/** Annotation: the WorkloadGroup that a WorkloadEntry is called after. */
const GROUP = 'istio.io/autoRegistrationGroup';

const workloadEntrySpec = z.object({
  /** An IP address, a DNS name, or `unix://`. */
  address: text.refine(
    (value) => value === '' || value.startsWith('unix://') || parseAddress(value) !== undefined || isHostname(value),
    'must be an IP address, a hostname, or unix:// and a path',
  ),
  ports: z
    .record(z.string(), port)
    .nullish()
    .transform((value): Readonly<Record<string, number>> => value ?? {}),
  labels,
  network: labelValueOrNone,
  /** Region, zone and subzone, which are values of labels on a node. */
  locality: text.refine(
    (value) => value.split('/').every(isLabelValue),
    'must be region/zone/subzone, each of letters, digits, -, _ and ., at most 63',
  ),
  weight: optional(z.int().min(0, 'must not be negative')),
  serviceAccount: subdomainOrNone,
});
export type WorkloadEntrySpec = z.output<typeof workloadEntrySpec>;

export const workloadEntry = z.object({
  kind: z.literal('WorkloadEntry'),
  metadata: metadata.extend({
    annotations: texts.refine(({ [GROUP]: group = '' }) => group === '' || isSubdomain(group), {
      error: 'must be the name of a WorkloadGroup',
      path: [GROUP],
    }),
  }),
  spec: workloadEntrySpec,
});
export type WorkloadEntry = z.output<typeof workloadEntry>;

/** A block of one address is that address. */
const addressOrBlock = z
  .string()
  .transform((value, context): { readonly address: Address } | { readonly cidr: Cidr } => {
    const single = parseAddress(value.replace(value.includes(':') ? /\/128$/ : /\/32$/, ''));
    if (single !== undefined) return { address: single };
    const block = parseCidr(value);
    if (block !== undefined) return { cidr: block };
    context.addIssue({ code: 'custom', message: 'is neither an IP address nor a CIDR block without host bits' });
    return z.NEVER;
  });

const host = z
  .string()
  .refine((value) => isHostname(value.replace(/^\*\./, '')), 'must be a hostname, or a wildcard such as *.example.com')
  .transform((value) => value.toLowerCase());

export const serviceEntry = z.object({
  kind: z.literal('ServiceEntry'),
  metadata,
  spec: z.object({
    hosts: z.array(host).min(1, 'must not be empty'),
    addresses: list(addressOrBlock),
    ports: list(z.object({ number: port, name: text, protocol, targetPort: optional(port) })),
    resolution: z
      .enum(['NONE', 'STATIC', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'])
      .nullish()
      .transform((value) => value ?? 'NONE'),
    endpoints: list(workloadEntrySpec),
    workloadSelector: optional(z.object({ labels: texts })),
    subjectAltNames: list(z.string().max(MAX_NAME, 'is too long').regex(VISIBLE, 'must be of visible characters')),
  }),
  status: optional(z.object({ addresses: list(z.object({ value: address, host: text })) })),
});
export type ServiceEntry = z.output<typeof serviceEntry>;
