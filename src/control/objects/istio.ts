/** Istio's objects (networking.istio.io), as far as the mesh is built of them. */
import { z } from 'zod';
import { type Address, type Cidr, parseAddress, parseCidr } from '../../mesh/index.ts';
import { address, list, metadata, optional, port, protocol, text, texts } from './fields.ts';

const workloadEntrySpec = z.object({
  /** An IP address, a DNS name, or `unix://`. */
  address: text,
  ports: z
    .record(z.string(), port)
    .nullish()
    .transform((value): Readonly<Record<string, number>> => value ?? {}),
  labels: texts,
  network: text,
  locality: text,
  weight: optional(z.int().min(0, 'must not be negative')),
  serviceAccount: text,
});
export type WorkloadEntrySpec = z.output<typeof workloadEntrySpec>;

export const workloadEntry = z.object({
  kind: z.literal('WorkloadEntry'),
  metadata,
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
  .regex(/^(\*\.)?[^/*\s]+$/, 'must be a hostname, or a wildcard such as *.example.com')
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
    subjectAltNames: list(z.string()),
  }),
  status: optional(z.object({ addresses: list(z.object({ value: address, host: text })) })),
});
export type ServiceEntry = z.output<typeof serviceEntry>;
