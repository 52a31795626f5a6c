/** Pieces that the schemas of Kubernetes objects are made of. A field that is null is one that is not there. */
import { z } from 'zod';
import { type Address, type Cidr, parseAddress, parseCidr } from '../../mesh/index.ts';
import { isLabel, isLabelValue, isSubdomain } from './names.ts';

/** The field's value, or undefined. */
export function optional<Schema extends z.ZodType>(schema: Schema) {
  return schema.nullish().transform((value) => value ?? undefined);
}

/** Empty if it is not there. */
export function list<Schema extends z.ZodType>(schema: Schema) {
  return z
    .array(schema)
    .nullish()
    .transform((value): ReadonlyArray<z.output<Schema>> => value ?? []);
}

/** Empty if it is not there. */
export const text = z
  .string()
  .nullish()
  .transform((value) => value ?? '');

const NOT_A_SUBDOMAIN =
  'must be a Kubernetes name: lower-case letters, digits, - and ., at most 253, with a letter or digit at both ends of each part';
const NOT_A_LABEL =
  'must be a Kubernetes name: lower-case letters, digits and -, at most 63, with a letter or digit at both ends';
const NOT_A_LABEL_VALUE =
  'must be empty, or letters, digits, -, _ and ., at most 63, with a letter or digit at both ends';

/** An RFC 1123 subdomain. */
export const subdomain = z.string().refine(isSubdomain, NOT_A_SUBDOMAIN);

/** The same, or empty if it is not there. */
export const subdomainOrNone = text.refine((value) => value === '' || isSubdomain(value), NOT_A_SUBDOMAIN);

/** An RFC 1123 label. */
export const label = z.string().refine(isLabel, NOT_A_LABEL);

export const labelValue = z.string().refine(isLabelValue, NOT_A_LABEL_VALUE);

/** Empty if it is not there. */
export const labelValueOrNone = text.refine(isLabelValue, NOT_A_LABEL_VALUE);

/** Empty if they are not there. */
export const labels = z
  .record(z.string(), labelValue)
  .nullish()
  .transform((value): Readonly<Record<string, string>> => value ?? {});

/** False if it is not there. */
export const flag = z
  .boolean()
  .nullish()
  .transform((value) => value ?? false);

/** Annotations, selectors and their like; empty if they are not there. */
export const texts = z
  .record(z.string(), z.string())
  .nullish()
  .transform((value): Readonly<Record<string, string>> => value ?? {});

export const port = z.int().min(1, 'must be at least 1').max(65_535, 'must be at most 65535');

/** Of a port; UDP and SCTP are read, and then left out: the mesh carries TCP. */
export const protocol = z
  .string()
  .nullish()
  .transform((value) => value?.toUpperCase() ?? 'TCP');

export const address = z.string().transform((value, context): Address => {
  const parsed = parseAddress(value);
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: 'is not an IP address' });
  return z.NEVER;
});

export const cidr = z.string().transform((value, context): Cidr => {
  const parsed = parseCidr(value);
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: 'is not a CIDR block, or has host bits that are not zero' });
  return z.NEVER;
});

export const metadata = z.object({
  name: subdomain,
  namespace: z
    .string()
    .nullish()
    .transform((value) => value || 'default')
    .pipe(label),
  labels,
  annotations: texts,
  creationTimestamp: text,
});

/** Of what belongs to no namespace. */
export const clusterMetadata = metadata.extend({
  namespace: z
    .unknown()
    .optional()
    .transform(() => ''),
});
