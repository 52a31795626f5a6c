/**
 * Istio's objects that say who may connect (security.istio.io). Whom one applies to, and how, must be understood, or nobody
 * could tell what is safe: so there nothing unknown is taken, and null is a value like any other. What its rules ask of a
 * connection is read as far as it goes, and judged when the mesh is built.
 */
import { z } from 'zod';
import { labelValue, metadata, optional } from './fields.ts';
import { sayIssue } from './issue.ts';

/** Fields of `rules[].from[].source`. */
export const SOURCE_FIELDS = [
  'principals',
  'notPrincipals',
  'requestPrincipals',
  'notRequestPrincipals',
  'namespaces',
  'notNamespaces',
  'serviceAccounts',
  'notServiceAccounts',
  'ipBlocks',
  'notIpBlocks',
  'remoteIpBlocks',
  'notRemoteIpBlocks',
] as const;
export type SourceField = (typeof SOURCE_FIELDS)[number];

/** Fields of `rules[].to[].operation`. */
export const OPERATION_FIELDS = [
  'hosts',
  'notHosts',
  'ports',
  'notPorts',
  'methods',
  'notMethods',
  'paths',
  'notPaths',
] as const;
export type OperationField = (typeof OPERATION_FIELDS)[number];

/** What one source or operation says. */
export interface SaidFields<Field extends string> {
  readonly values: ReadonlyMap<Field, readonly string[]>;
  /** Fields that nobody knows. */
  readonly unknown: readonly string[];
}

const strings = z.array(z.string());

/** Lists of texts by the names of their fields. */
function lists<Field extends string>(names: readonly Field[]) {
  return z.record(z.string(), z.unknown()).transform((said, context): SaidFields<Field> => {
    const values = new Map<Field, readonly string[]>();
    const unknown: string[] = [];
    for (const [key, value] of Object.entries(said)) {
      const name = names.find((each) => each === key);
      const read = strings.safeParse(value, { error: sayIssue });
      if (name === undefined) unknown.push(key);
      else if (read.success) values.set(name, read.data);
      else
        for (const { message, path } of read.error.issues)
          context.addIssue({ code: 'custom', message, path: [key, ...path] });
    }
    return { values, unknown };
  });
}

const from = z
  .looseObject({ source: lists(SOURCE_FIELDS).optional() })
  .transform(({ source, ...others }) => ({ said: source, unknown: Object.keys(others) }));

const to = z
  .looseObject({ operation: lists(OPERATION_FIELDS).optional() })
  .transform(({ operation, ...others }) => ({ said: operation, unknown: Object.keys(others) }));

const when = z
  .looseObject({ key: z.string(), values: strings.optional(), notValues: strings.optional() })
  .transform(({ key, values = [], notValues = [], ...others }) => ({
    key,
    values,
    notValues,
    unknown: Object.keys(others),
  }));
export type SaidCondition = z.output<typeof when>;

const rule = z
  .looseObject({ from: z.array(from).optional(), to: z.array(to).optional(), when: z.array(when).optional() })
  .transform(({ from: sources = [], to: operations = [], when: conditions = [], ...others }) => ({
    from: sources,
    to: operations,
    when: conditions,
    unknown: Object.keys(others),
  }));
export type SaidRule = z.output<typeof rule>;

/** Labels that a pod must have; none at all: it selects nothing in particular, so all. */
const selector = z
  .strictObject({ matchLabels: z.record(z.string().min(1, 'must not be empty'), labelValue).optional() })
  .optional()
  .transform((value): Readonly<Record<string, string>> => value?.matchLabels ?? {});

const targetRef = z.looseObject({ kind: z.string(), name: z.string() });

const authorizationSpec = z
  .strictObject({
    selector,
    targetRef: targetRef.optional(),
    targetRefs: z.array(targetRef).default([]),
    action: z.enum(['ALLOW', 'DENY', 'AUDIT', 'CUSTOM']).default('ALLOW'),
    rules: z.array(rule).default([]),
    provider: z.unknown().optional(),
  })
  .transform(({ targetRef: single, targetRefs, provider: _, ...spec }) => ({
    ...spec,
    isForWaypoints: single !== undefined || targetRefs.length > 0,
  }))
  .refine((spec) => !spec.isForWaypoints || Object.keys(spec.selector).length === 0, {
    error: 'must not be there beside targetRefs: it is either for workloads or for waypoints',
    path: ['selector'],
  });

/** One without a spec allows nothing. */
export const authorizationPolicy = z.object({
  kind: z.literal('AuthorizationPolicy'),
  metadata,
  spec: optional(authorizationSpec).transform((spec) => spec ?? authorizationSpec.parse({})),
});
export type AuthorizationPolicy = z.output<typeof authorizationPolicy>;

const mtls = z.strictObject({ mode: z.enum(['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT']).default('UNSET') });
export type MtlsMode = z.output<typeof mtls>['mode'];

const portText = z.string().refine((text) => isPort(text), { error: 'must be a port number, 1 to 65535' });

const authenticationSpec = z
  .strictObject({
    selector,
    mtls: mtls.optional().transform((value): MtlsMode => value?.mode ?? 'UNSET'),
    /** By port, in the order of their numbers. */
    portLevelMtls: z
      .record(portText, mtls)
      .optional()
      .transform((value): ReadonlyMap<number, MtlsMode> => {
        const ports = Object.entries(value ?? {}).map(([port, { mode }]) => [Number(port), mode] as const);
        return new Map(ports.toSorted(([one], [other]) => one - other));
      }),
  })
  .refine((spec) => spec.portLevelMtls.size === 0 || Object.keys(spec.selector).length > 0, {
    error: 'needs a selector',
    path: ['portLevelMtls'],
  });

export const peerAuthentication = z.object({
  kind: z.literal('PeerAuthentication'),
  metadata,
  spec: optional(authenticationSpec).transform((spec) => spec ?? authenticationSpec.parse({})),
});
export type PeerAuthentication = z.output<typeof peerAuthentication>;

/** As policies write one: decimal digits, 1 to 65535. */
export function isPort(text: string): boolean {
  return /^[1-9]\d{0,4}$/.test(text) && Number(text) <= 65_535;
}
