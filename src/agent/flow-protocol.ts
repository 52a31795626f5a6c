/** What the agent's socket says of flows (docs/socket-protocol.md, flows and explain): pure, no I/O. */
import { z } from 'zod';
import type { Explanation, FlowPage, FlowView } from '../telemetry/index.ts';
import { MAX_QUESTION_LENGTH } from './policy-question.ts';

/** Longest that a request may wait for a flow. */
export const MOST_WAIT_MS = 30_000;
/** Most flows of one reply. */
export const MOST_FLOWS = 1_000;

const text = z.string().min(1).max(MAX_QUESTION_LENGTH);

/** What is wanted; all that is given must be so. */
export const flowsRequest = z.strictObject({
  method: z.literal('flows'),
  pod: text.optional(),
  from: text.optional(),
  to: text.optional(),
  verdict: text.optional(),
  after: z.int().min(0).max(Number.MAX_SAFE_INTEGER).default(0),
  limit: z.int().min(1).max(MOST_FLOWS).default(100),
  waitMs: z.int().min(0).max(MOST_WAIT_MS).default(0),
});
export type FlowsRequest = z.output<typeof flowsRequest>;

export const explainRequest = z.strictObject({
  method: z.literal('explain'),
  from: text.optional(),
  to: text.optional(),
  flow: text.optional(),
});
export type ExplainRequest = z.output<typeof explainRequest>;

const endpoint = z.object({ address: z.string(), port: z.number() });
const name = z.string().optional();
const party = z.object({
  ...{ workload: name, namespace: name, cluster: name, workloadName: name, canonicalName: name },
  ...{ canonicalRevision: name, region: name, zone: name, identity: name },
});

const flowView = z
  .object({
    sequence: z.number(),
    podUid: z.string(),
    podName: z.string(),
    podNamespace: z.string(),
    id: z.string(),
    direction: z.enum(['inbound', 'outbound']),
    path: z.enum(['kernel', 'tunnel', 'plain', 'passthrough']),
    stage: z.enum(['early', 'addressed', 'connected']),
    client: endpoint.optional(),
    asked: endpoint,
    server: endpoint,
    dialled: endpoint,
    authority: name,
    source: party.optional(),
    destination: party.optional(),
    sourceIdentity: name,
    destinationIdentity: name,
    service: z.object({ name: z.string(), namespace: z.string(), hostname: z.string() }).optional(),
    waypoint: name,
    security: z.enum(['mutual_tls', 'kernel', 'none']),
    endedAt: z.number(),
    durationMs: z.number(),
    ended: z.string(),
    error: name,
    decision: z.object({ allowed: z.boolean(), reason: z.string(), policy: name, text: z.string() }).optional(),
    dryRun: z.array(z.object({ policy: z.string(), would: z.enum(['deny', 'allow', 'not-allow']) })),
    attempts: z.number(),
    bytesSent: z.number(),
    bytesReceived: z.number(),
    connectMs: z.number().optional(),
    firstByteMs: z.number().optional(),
    roundTripUs: z.number().optional(),
    retransmits: z.number().optional(),
    kind: name,
  })
  // What is not known is left out in JSON, and undefined here.
  .transform((view) => view as unknown as FlowView);

export const flowPage: z.ZodType<FlowPage> = z.object({
  flows: z.array(flowView),
  next: z.number(),
  missed: z.number(),
});

export const explanation: z.ZodType<Explanation> = z.object({
  connects: z.boolean(),
  steps: z.array(
    z.object({
      topic: z.string(),
      state: z.enum(['good', 'bad', 'unknown', 'note']),
      text: z.string(),
      details: z.array(z.string()),
    }),
  ),
  conclusion: z.string(),
});
