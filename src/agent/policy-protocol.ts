/** What the agent's socket says of policy (docs/socket-protocol.md, policy-test and recent-flows): pure, no I/O. */
import { z } from 'zod';
import type { AuthorizationPolicy, Cidr } from '../mesh/index.ts';

/** Somebody who connects or is connected to. Names are empty where they are not known. */
const party = z.object({
  /** Absent: not known, or nobody proves one. */
  identity: z.string().optional(),
  /** `namespace/name` of the pod, where one is meant. */
  pod: z.string().optional(),
  addresses: z.array(z.string()),
});

export const policyAnswer = z.object({
  /** `unknown`: it cannot be told; `text` says why, and what to ask instead. */
  verdict: z.enum(['allowed', 'denied', 'unknown']),
  /** A DecisionReason; or `mesh-unknown`, `no-such-pod`, `not-a-pod`, `not-in-mesh`, `depends-on-address`. */
  reason: z.string(),
  /** A sentence for people. */
  text: z.string(),
  source: party,
  destination: party.extend({ port: z.number() }),
  /** The policy that decided. */
  policy: z.string().optional(),
  /** Which of its rules, from 0. */
  rule: z.number().optional(),
  /** ALLOW policies one of which would have had to match. */
  candidates: z.array(z.string()),
  dryRun: z.array(z.object({ policy: z.string(), would: z.enum(['deny', 'allow', 'not-allow']) })),
  /** What else one should know: sentences. */
  notes: z.array(z.string()),
  /** Every policy that applies, every rule; one line each. Empty unless it was asked for. */
  explanation: z.array(z.string()),
});
export type PolicyAnswer = z.infer<typeof policyAnswer>;

const stringMatch = z.union([
  z.object({ kind: z.enum(['exact', 'prefix', 'suffix']), value: z.string() }),
  z.object({ kind: z.literal('presence') }),
]);
const strings = z.array(stringMatch);
const blocks = z.array(z.string().transform((text) => text as Cidr));
const ports = z.array(z.number());
const accounts = z.array(z.object({ namespace: z.string(), serviceAccount: z.string() }));

/** The noun of src/mesh, as it is. */
const authorizationPolicy: z.ZodType<AuthorizationPolicy> = z.object({
  namespace: z.string(),
  name: z.string(),
  scope: z.enum(['global', 'namespace', 'workload-selector']),
  action: z.enum(['allow', 'deny']),
  dryRun: z.boolean(),
  partial: z.literal(true).optional(),
  rules: z.array(
    z.object({
      unlessThroughWaypoint: z.boolean(),
      clauses: z.array(
        z.object({
          matches: z.array(
            z.object({
              namespaces: strings,
              notNamespaces: strings,
              principals: strings,
              notPrincipals: strings,
              sourceIps: blocks,
              notSourceIps: blocks,
              destinationIps: blocks,
              notDestinationIps: blocks,
              destinationPorts: ports,
              notDestinationPorts: ports,
              serviceAccounts: accounts,
              notServiceAccounts: accounts,
            }),
          ),
        }),
      ),
    }),
  ),
});

/** Connections that are the same to policy. */
const flowGroup = z.object({
  direction: z.enum(['inbound', 'outbound']),
  /** Absent: nobody has proven one. */
  identity: z.string().optional(),
  /** The client's; absent: it was gone before anybody asked. */
  sourceAddress: z.string().optional(),
  destination: z.object({ address: z.string(), port: z.number() }),
  /** Uid of the workload that it went to, as the mesh is now. */
  workload: z.string(),
  /** Whether `identity` is that of a waypoint of the workload. */
  throughWaypoint: z.boolean(),
  count: z.number(),
  /** How many of them policy refused, or ended. */
  refused: z.number(),
  /** When the last one ended, ISO 8601. */
  last: z.string(),
});
export type FlowGroup = z.infer<typeof flowGroup>;

const flowWorkload = z.object({
  uid: z.string(),
  namespace: z.string(),
  name: z.string(),
  protocol: z.enum(['hbone', 'tcp']),
  authorizationPolicies: z.array(z.string()),
});
export type FlowWorkload = z.infer<typeof flowWorkload>;

/** What replay needs of one pod: what went on, to whom, and which policies apply to those. */
export const recentFlowsAnswer = z.object({
  flows: z.array(flowGroup),
  workloads: z.array(flowWorkload),
  policies: z.array(authorizationPolicy),
  /** The mesh's root namespace. */
  rootNamespace: z.string(),
  /** Connections to what is not of the mesh, where no policy is asked. */
  outsideMesh: z.number(),
});
export type RecentFlowsAnswer = z.infer<typeof recentFlowsAnswer>;
