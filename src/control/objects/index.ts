import type { z } from 'zod';
import {
  type ConfigMap,
  configMap,
  type EndpointSlice,
  endpointSlice,
  type Namespace,
  type Node,
  namespace,
  node,
  type Pod,
  pod,
  type Service,
  type ServiceAccount,
  service,
  serviceAccount,
} from './core.ts';
import { type Gateway, type GatewayClass, gateway, gatewayClass } from './gateway.ts';
import { type FieldPath, fieldsOf, sayIssue } from './issue.ts';
import { type ServiceEntry, serviceEntry, type WorkloadEntry, workloadEntry } from './istio.ts';
import {
  type AuthorizationPolicy,
  authorizationPolicy,
  type PeerAuthentication,
  peerAuthentication,
} from './policy.ts';

export type { ConfigMap, EndpointSlice, Namespace, Node, Pod, Service } from './core.ts';
export type { Gateway, GatewayClass, LabelSelector } from './gateway.ts';
export type { FieldPath } from './issue.ts';
export { formatField, lineOf } from './issue.ts';
export type { ServiceEntry, WorkloadEntry, WorkloadEntrySpec } from './istio.ts';
export type { MeshConfig } from './mesh-config.ts';
export type {
  AuthorizationPolicy,
  MtlsMode,
  OperationField,
  PeerAuthentication,
  SaidCondition,
  SaidFields,
  SaidRule,
  SourceField,
} from './policy.ts';
export { isPort } from './policy.ts';

/** Every kind that the mesh is built of. */
export type KubernetesObject =
  | Namespace
  | Node
  | ServiceAccount
  | Pod
  | Service
  | EndpointSlice
  | ConfigMap
  | ServiceEntry
  | WorkloadEntry
  | Gateway
  | GatewayClass
  | AuthorizationPolicy
  | PeerAuthentication;

/** By API group and kind. The version is not looked at: those in use differ in nothing that is read here. */
const schemas: Readonly<Record<string, z.ZodType<KubernetesObject>>> = {
  '/Namespace': namespace,
  '/Node': node,
  '/ServiceAccount': serviceAccount,
  '/Pod': pod,
  '/Service': service,
  '/ConfigMap': configMap,
  'discovery.k8s.io/EndpointSlice': endpointSlice,
  'networking.istio.io/ServiceEntry': serviceEntry,
  'networking.istio.io/WorkloadEntry': workloadEntry,
  'gateway.networking.k8s.io/Gateway': gateway,
  'gateway.networking.k8s.io/GatewayClass': gatewayClass,
  'security.istio.io/AuthorizationPolicy': authorizationPolicy,
  'security.istio.io/PeerAuthentication': peerAuthentication,
};

export type ReadObject =
  | { readonly kind: 'object'; readonly object: KubernetesObject }
  /** Of a kind that the mesh is not built of. */
  | { readonly kind: 'foreign'; readonly apiVersion: string; readonly name: string }
  | { readonly kind: 'wrong'; readonly issues: readonly FieldIssue[] };

export interface FieldIssue {
  readonly path: FieldPath;
  /** To go after the field's name. */
  readonly text: string;
  /** Line within the text that the field holds, if it is one of many lines. */
  readonly innerLine?: number;
}

/** Checks one object of any kind. */
export function readObject(value: unknown): ReadObject {
  if (!isMap(value))
    return { kind: 'wrong', issues: [{ path: [], text: 'is not an object with apiVersion and kind' }] };
  const { apiVersion, kind } = value;
  const missing = Object.entries({ apiVersion, kind }).filter(([, each]) => typeof each !== 'string' || each === '');
  if (typeof apiVersion !== 'string' || typeof kind !== 'string' || missing.length > 0)
    return {
      kind: 'wrong',
      issues: missing.map(([field, each]) => ({
        path: [field],
        text: each === undefined ? 'is missing' : 'must be a text',
      })),
    };
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  const schema = schemas[`${group}/${kind}`];
  if (schema === undefined) return { kind: 'foreign', apiVersion, name: kind };
  const read = schema.safeParse(value, { error: sayIssue });
  return read.success
    ? { kind: 'object', object: read.data }
    : { kind: 'wrong', issues: read.error.issues.flatMap(issuesOf) };
}

/** `Service/shop/cart`: one object of that kind, namespace and name. */
export function objectKey({ kind, metadata }: KubernetesObject): string {
  return `${kind}/${metadata.namespace}/${metadata.name}`;
}

/** `Service shop/cart`, as people are told of it. */
export function objectName({ kind, metadata }: KubernetesObject): string {
  return metadata.namespace === '' ? `${kind} ${metadata.name}` : `${kind} ${metadata.namespace}/${metadata.name}`;
}

function issuesOf(issue: z.core.$ZodIssue): FieldIssue[] {
  const { line }: { line?: unknown } = (issue.code === 'custom' && issue.params) || {};
  const inner = typeof line === 'number' ? { innerLine: line } : {};
  return fieldsOf(issue).map((path) => ({ path, text: issue.message, ...inner }));
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
