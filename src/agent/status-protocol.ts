/** What `status` tells of the node beside pods, workers and mesh. */
import { z } from 'zod';

export const nodeStatus = z.object({
  /** Seconds since the agent started. */
  uptime: z.number(),
  /** As `culvert log-level` writes it. */
  logLevel: z.string(),
  /** What the agent found of the kernel and its surroundings when it started; the worst of the results, and each. */
  preflight: z.object({
    result: z.enum(['ok', 'warning', 'failed']),
    checks: z.array(z.object({ check: z.string(), result: z.enum(['ok', 'warning', 'failed']), detail: z.string() })),
  }),
  kernel: z.object({
    programs: z.array(z.object({ name: z.string(), state: z.string() })),
    maps: z.array(z.object({ name: z.string(), entries: z.number(), capacity: z.number() })),
  }),
  /** Series of Istio's TCP metrics that are exposed, and how many may be. */
  series: z.object({ series: z.number(), budget: z.number(), evicted: z.number(), overflowed: z.number() }).nullable(),
  /** Where the agent listens for people and tools. */
  ports: z.array(
    z.object({
      name: z.string(),
      address: z.string(),
      listening: z.boolean(),
      /** Why it does not. */
      error: z.string().optional(),
    }),
  ),
  /** Policies that are not enforced as written, or not at all: 100 at most. */
  policyConditions: z.array(
    z.object({
      policy: z.string(),
      condition: z.enum(['unknown', 'partial', 'dry-run']),
      text: z.string(),
    }),
  ),
});

export type NodeStatus = z.infer<typeof nodeStatus>;
export type PolicyConditionStatus = NodeStatus['policyConditions'][number];
export type PortStatus = NodeStatus['ports'][number];
