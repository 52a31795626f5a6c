/**
 * The agent socket's protocol, as docs/socket-protocol.md describes it: pure, no I/O.
 * One JSON object per line in each direction, one reply per request, in order.
 */
import { posix } from 'node:path';
import { z } from 'zod';
import {
  type Address,
  type Cidr,
  codeOf,
  isHostAddress,
  messageOf,
  type Pod,
  parseAddress,
  parseCidr,
} from '../mesh/index.ts';
import { AgentError, agentErrorCodes } from './errors.ts';
import {
  type ExplainRequest,
  explainRequest,
  explanation,
  type FlowsRequest,
  flowPage,
  flowsRequest,
} from './flow-protocol.ts';
import { policyAnswer, recentFlowsAnswer } from './policy-protocol.ts';
import { MAX_QUESTION_LENGTH } from './policy-question.ts';
import { nodeStatus } from './status-protocol.ts';

/** Longest request line, without its newline. */
export const MAX_REQUEST_BYTES = 65_536;
const MAX_EXCLUDED_PORTS = 256;
const MAX_EXCLUDED_CIDRS = 256;
const MAX_ADDRESSES = 4;

/** Lower-case DNS labels with dots: what Kubernetes allows for names of pods and service accounts. */
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const UID = /^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$/;

const uid = z.string().min(1).max(128).regex(UID, 'must consist of letters, digits, "-", "_" and "."');
const port = z.int().min(1).max(65_535);
const ports = z.array(port).max(MAX_EXCLUDED_PORTS).default([]);

const address = z.string().transform((text, context): Address => {
  const parsed = parseAddress(text);
  if (parsed !== undefined) return parsed;
  context.addIssue({ code: 'custom', message: `${quote(text)} is not an IPv4 or IPv6 address` });
  return z.NEVER;
});

const podAddress = address.refine(isHostAddress, {
  error: ({ input }) =>
    `${quote(String(input))} is no address that others can reach a pod at (unspecified, loopback, link-local, multicast or broadcast)`,
});

const cidr = z.string().transform((text, context): Cidr => {
  const parsed = parseCidr(text);
  if (parsed !== undefined) return parsed;
  context.addIssue({
    code: 'custom',
    message: `${quote(text)} is not an address block such as 10.0.0.0/8 (bits after the prefix must be zero)`,
  });
  return z.NEVER;
});
const cidrs = z.array(cidr).max(MAX_EXCLUDED_CIDRS).default([]);

const netns = z
  .string()
  .min(2)
  .max(4096)
  .refine((path) => posix.isAbsolute(path) && posix.normalize(path) === path && !path.includes('\0'), {
    error: 'must be an absolute path without "." or ".." segments, such as /run/netns/cni-1234',
  });

const wirePod = z.strictObject({
  uid,
  name: z.string().min(1).max(253).regex(SUBDOMAIN, 'must be a Kubernetes name'),
  namespace: z.string().min(1).max(63).regex(LABEL, 'must be a Kubernetes namespace name'),
  serviceAccount: z.string().min(1).max(253).regex(SUBDOMAIN, 'must be a Kubernetes name'),
  netns,
  addresses: z
    .array(podAddress)
    .min(1)
    .max(MAX_ADDRESSES)
    .refine((all) => new Set(all).size === all.length, { error: 'names an address twice' }),
  excludeOutboundPorts: ports,
  excludeOutboundCidrs: cidrs,
  excludeInboundPorts: ports,
  excludeInboundCidrs: cidrs,
});

const question = z.string().max(MAX_QUESTION_LENGTH);

const wireRequest = z.discriminatedUnion(
  'method',
  [
    z.strictObject({ method: z.literal('enrol'), pod: wirePod }),
    z.strictObject({ method: z.literal('withdraw'), uid }),
    z.strictObject({ method: z.literal('status') }),
    z.strictObject({ method: z.literal('metrics') }),
    z.strictObject({
      method: z.literal('policy-test'),
      from: question,
      to: question,
      explain: z.boolean().default(false),
    }),
    z.strictObject({ method: z.literal('recent-flows'), uid }),
    z.strictObject({ method: z.literal('config-dump') }),
    z.strictObject({
      method: z.literal('log-level'),
      level: z.string().max(1024).optional(),
      reset: z.boolean().default(false),
    }),
    flowsRequest,
    explainRequest,
  ],
  {
    error:
      'must be one of "enrol", "withdraw", "status", "metrics", "policy-test", "recent-flows", "config-dump", "log-level", "flows", "explain"',
  },
);

/** A pod as it is written on the wire and in the state file. */
export type WirePod = z.input<typeof wirePod>;

export type Request =
  | { readonly method: 'enrol'; readonly pod: Pod }
  | { readonly method: 'withdraw'; readonly uid: string }
  | { readonly method: 'status' }
  | { readonly method: 'metrics' }
  /** Whether one may connect to another; `explain`: every policy and rule too. */
  | { readonly method: 'policy-test'; readonly from: string; readonly to: string; readonly explain: boolean }
  /** Connections of one pod that ended last. */
  | { readonly method: 'recent-flows'; readonly uid: string }
  /** What the agent knows, as `istioctl ztunnel-config` reads it. */
  | { readonly method: 'config-dump' }
  /** Tells the log's level; before that sets it, or has it as it was at the start. */
  | { readonly method: 'log-level'; readonly level?: string | undefined; readonly reset: boolean }
  /** Connections that ended last, of all pods. */
  | FlowsRequest
  /** What would become of a connection, or what became of one. */
  | ExplainRequest;

export type EnrolResult = 'enrolled' | 'updated' | 'unchanged';
export type WithdrawResult = 'withdrawn' | 'unchanged';

const podStatus = z.object({
  uid: z.string(),
  name: z.string(),
  namespace: z.string(),
  netns: z.string(),
  addresses: z.array(z.string()),
  /** `failed`: captured but not served, so its connections are refused; `error` says why. */
  path: z.enum(['enrolling', 'enrolled', 'failed', 'withdrawing']),
  error: z.string().optional(),
  netnsCookie: z.string().optional(),
  openConnections: z.number(),
  /** What the kernel did with its connections since it was enrolled, by reason (docs/kernel.md). */
  kernelEvents: z.record(z.string(), z.number()),
  /** Of these, what went past the mesh, by the reasons of `culvert_uncaptured_total`. */
  uncaptured: z.record(z.string(), z.number()),
});

const meshStatus = z.object({
  /** This node's name. */
  node: z.string(),
  /** Whether the control process is there; `since` when it has been or not been, `reason`: why not. */
  connected: z.boolean(),
  since: z.string(),
  reason: z.string().optional(),
  /** Absent: nothing is known of the mesh yet. */
  lastUpdate: z.string().optional(),
  workloads: z.number(),
  services: z.number(),
  /** Authorization policies of the whole mesh. */
  policies: z.number(),
  /** Policies that pods of this node name and nobody knows: nobody is let in to these pods. */
  unknownPolicies: z.array(z.string()),
  /** Policies of which something could not be understood, so that they deny more, or allow less, than is written; 100 at most. */
  partialPolicies: z.array(z.string()),
  certificates: z.array(
    z.object({
      identity: z.string(),
      state: z.string(),
      /** Its validity. Absent: there is none. */
      validFrom: z.string().optional(),
      expires: z.string().optional(),
      /** Why the last attempt failed; absent if it did not. */
      lastError: z.string().optional(),
    }),
  ),
});

const kernelPathStatus = z.object({
  /** `off`: every connection goes through the tunnel; `failed`: so it does until the kernel takes what it is told again. */
  state: z.enum(['new', 'off', 'on', 'failed', 'stopped']),
  /** Why it failed. */
  error: z.string().optional(),
  /** Pairs of pod and destination that need no tunnel. */
  verdicts: z.number(),
  /** Addresses and ports of services of which the kernel chooses a backend. */
  services: z.number(),
  /** Connections on the kernel path at this moment. */
  flows: z.number(),
  /** Signs of life that the kernel has been given. */
  heartbeats: z.number(),
  /** The kubelet's control group. Null: none is found, so policy decides about its probes. */
  kubelet: z.string().nullable(),
});

const statusReply = z.object({
  agent: z.object({ version: z.string(), pid: z.number(), state: z.string(), startedAt: z.string() }),
  pods: z.array(podStatus),
  /** Cookies of namespaces that an earlier agent captured and nobody has enrolled again: their connections are refused. */
  unclaimed: z.array(z.string()),
  workers: z.array(
    z.object({
      slot: z.number(),
      state: z.string(),
      openConnections: z.number(),
      restarts: z.number(),
      descriptorStops: z.number(),
      eventLoopDelayMs: z.object({ p50: z.number(), p99: z.number(), max: z.number() }),
    }),
  ),
  totals: z.object({
    accepted: z.number(),
    closed: z.number(),
    failed: z.number(),
    unattributed: z.number(),
    bytesFromClients: z.number(),
    bytesFromServers: z.number(),
  }),
  /** Connections ended, by reason. */
  ended: z.record(z.string(), z.number()),
  /** Connections relayed, by direction and path. */
  paths: z.object({
    outbound: z.object({ tunnel: z.number(), plain: z.number(), passthrough: z.number() }),
    inbound: z.object({ tunnel: z.number(), plain: z.number() }),
  }),
  /** Of the tunnel, both directions. */
  sessions: z.object({ open: z.number(), opened: z.number(), handshakesFailed: z.number() }),
  descriptors: z.object({ open: z.number(), limit: z.number() }),
  /** Null: the agent follows no control process, so it only relays. */
  mesh: meshStatus.nullable(),
  /** Null: the agent follows no control process. */
  kernelPath: kernelPathStatus.nullable(),
  /** Null: the agent has been put together without it. */
  node: nodeStatus.nullable(),
});

export type PodStatusReply = z.infer<typeof podStatus>;
export type MeshStatusReply = z.infer<typeof meshStatus>;
export type KernelPathStatusReply = z.infer<typeof kernelPathStatus>;
export type StatusReply = z.infer<typeof statusReply>;

const errorReply = z.object({
  ok: z.literal(false),
  error: z.object({ code: z.enum(agentErrorCodes), message: z.string(), cause: z.string().optional() }),
});

const replySchemas = {
  enrol: z.object({
    ok: z.literal(true),
    result: z.enum(['enrolled', 'updated', 'unchanged']),
    netnsCookie: z.string(),
  }),
  withdraw: z.object({ ok: z.literal(true), result: z.enum(['withdrawn', 'unchanged']) }),
  status: z.object({ ok: z.literal(true), status: statusReply }),
  metrics: z.object({ ok: z.literal(true), metrics: z.string() }),
  'policy-test': z.object({ ok: z.literal(true), answer: policyAnswer }),
  'recent-flows': z.object({ ok: z.literal(true), recent: recentFlowsAnswer }),
  'config-dump': z.object({ ok: z.literal(true), dump: z.record(z.string(), z.unknown()) }),
  'log-level': z.object({ ok: z.literal(true), level: z.string() }),
  flows: z.object({ ok: z.literal(true), page: flowPage }),
  explain: z.object({ ok: z.literal(true), explanation }),
};

/** What each method answers with. */
export type Replies = { [M in keyof typeof replySchemas]: z.infer<(typeof replySchemas)[M]> };
export type Method = keyof Replies;
export type Reply<M extends Method> = Replies[M];

const replies: { readonly [M in Method]: z.ZodType<Replies[M]> } = replySchemas;

/**
 * Reads one request.
 *
 * @param line the bytes before the newline
 * @throws AgentError TOO_LARGE, NOT_JSON or BAD_REQUEST
 */
export function parseRequest(line: Uint8Array): Request {
  if (line.byteLength > MAX_REQUEST_BYTES) throw tooLarge();
  const request = wireRequest.safeParse(parseJson(line));
  if (!request.success) throw new AgentError('BAD_REQUEST', describe(request.error));
  return request.data.method === 'enrol' ? { method: 'enrol', pod: fromWire(request.data.pod) } : request.data;
}

/** The error for a line that has grown past the bound. */
export function tooLarge(): AgentError {
  return new AgentError(
    'TOO_LARGE',
    `the request is longer than ${MAX_REQUEST_BYTES} bytes; send one JSON object per line, each ending with a newline`,
  );
}

/**
 * Reads a pod in its wire form.
 *
 * @throws AgentError BAD_REQUEST
 */
export function parsePod(value: unknown): Pod {
  const pod = wirePod.safeParse(value);
  if (!pod.success) throw new AgentError('BAD_REQUEST', describe(pod.error));
  return fromWire(pod.data);
}

/** The wire form of a pod; parsePod reads it back. */
export function encodePod(pod: Pod): WirePod {
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    serviceAccount: pod.serviceAccount,
    netns: pod.netns,
    addresses: [...pod.addresses],
    excludeOutboundPorts: [...pod.exclusions.outboundPorts],
    excludeOutboundCidrs: [...pod.exclusions.outboundCidrs],
    excludeInboundPorts: [...pod.exclusions.inboundPorts],
    excludeInboundCidrs: [...pod.exclusions.inboundCidrs],
  };
}

/** A reply line, newline included. */
export function encodeReply(reply: Reply<Method>): string {
  return `${JSON.stringify(reply)}\n`;
}

/** A reply line for a request that failed. Errors that are not the agent's own become INTERNAL. */
export function encodeError(error: unknown): string {
  const known = error instanceof AgentError ? error : new AgentError('INTERNAL', messageOf(error), { cause: error });
  const cause = codeOf(known.cause);
  const body = { code: known.code, message: known.message, ...(cause === undefined ? {} : { cause }) };
  return `${JSON.stringify({ ok: false, error: body })}\n`;
}

/**
 * Reads the reply to a request, on the caller's side.
 *
 * @throws AgentError the agent's own error, or BAD_REPLY
 */
export function parseReply<M extends Method>(method: M, line: Uint8Array): Reply<M> {
  let value: unknown;
  try {
    value = parseJson(line);
  } catch (cause) {
    throw new AgentError('BAD_REPLY', 'the agent answered with something that is not JSON', { cause });
  }
  const failure = errorReply.safeParse(value);
  if (failure.success) {
    const { code, message, cause } = failure.data.error;
    throw new AgentError(
      code,
      message,
      cause === undefined ? undefined : { cause: Object.assign(new Error(message), { code: cause }) },
    );
  }
  const reply = replies[method].safeParse(value);
  if (!reply.success) {
    throw new AgentError(
      'BAD_REPLY',
      `the agent's answer is not understood: ${describe(reply.error)}; are both of one version?`,
    );
  }
  return reply.data;
}

function fromWire(pod: z.output<typeof wirePod>): Pod {
  return {
    uid: pod.uid,
    name: pod.name,
    namespace: pod.namespace,
    serviceAccount: pod.serviceAccount,
    netns: pod.netns,
    addresses: pod.addresses,
    exclusions: {
      outboundPorts: sortedOnce(pod.excludeOutboundPorts, (a, b) => a - b),
      outboundCidrs: sortedOnce(pod.excludeOutboundCidrs),
      inboundPorts: sortedOnce(pod.excludeInboundPorts, (a, b) => a - b),
      inboundCidrs: sortedOnce(pod.excludeInboundCidrs),
    },
  };
}

/** Exclusions are sets: the same set always has the same form, so that equal pods compare equal. */
function sortedOnce<T>(values: readonly T[], compare?: (a: T, b: T) => number): T[] {
  return [...new Set(values)].sort(compare);
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw new AgentError('NOT_JSON', 'the request is not JSON; send one JSON object per line, in UTF-8', { cause });
  }
}

/** The first thing that is wrong: where, and what. */
function describe(error: z.ZodError): string {
  const [issue] = error.issues;
  if (issue === undefined) return 'the request is not valid';
  const where = issue.path.length === 0 ? '' : `${formatPath(issue.path)}: `;
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.slice(0, 4).map(quote).join(', ');
    return `${where}unknown field ${names}; remove it (docs/socket-protocol.md lists the fields)`;
  }
  return `${where}${issue.message}`;
}

function formatPath(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    '',
  );
}

/** Text of a stranger, shortened and escaped for a message. */
function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}...` : text);
}
