/** What the explanations are made of: what they ask of the agent, and the case that they explain. */
import type { Address, Endpoint, NetnsCookie, ReadModel, Service, SpiffeId, Workload } from '../../mesh/index.ts';
import type { PolicyBook } from '../../policy/index.ts';
import type { ExplainStep } from '../../telemetry/index.ts';
import type { PathAnswer } from '../kernel-path/answer.ts';
import type { CertificateStatus } from '../ports.ts';
import type { RecentFlows } from '../recent-flows.ts';
import type { PodRecord } from '../reconcile.ts';

export type ExplainMesh = Pick<
  ReadModel,
  | 'isComplete'
  | 'settings'
  | 'snapshot'
  | 'workload'
  | 'workloadAt'
  | 'service'
  | 'serviceAt'
  | 'serviceByHostname'
  | 'endpoints'
  | 'members'
  | 'gateway'
  | 'localWorkload'
>;

interface Led {
  readonly workload: Workload;
  readonly service: Service | undefined;
  /** Key of the endpoint, where there was one to be chosen. */
  readonly endpoint: string | undefined;
  readonly destination: Endpoint;
}

/** Where the tunnel leads a connection; `route` of src/ztunnel fits. */
export type ExplainedRoute =
  | { readonly kind: 'passthrough'; readonly destination: Endpoint }
  | (Led & { readonly kind: 'plain' | 'self' })
  | (Led & {
      readonly kind: 'hbone';
      readonly nextHop: Endpoint;
      readonly acceptable: readonly SpiffeId[];
      readonly via: 'workload' | 'waypoint';
    })
  | { readonly kind: 'refuse'; readonly reason: string; readonly text: string };

/** One of the endpoints that a service has for a port. */
export interface ExplainedEndpoint {
  readonly workload: Workload;
  readonly endpoint: Endpoint;
  /** What its health is kept under. */
  readonly key: string;
  /** How often it is chosen, in comparison to the others; 0: it gets nothing but a trial now and then. */
  readonly weight: number;
  /** What this node has seen of it; undefined: nothing yet. */
  readonly health:
    | {
        readonly isEjected: boolean;
        /** In a row. */
        readonly failures: number;
        /** Averaged; undefined: not known. */
        readonly connectMs: number | undefined;
        readonly open: number;
      }
    | undefined;
}

/** The tunnel's own routing over the main thread's read model. It decides and counts nothing. */
export interface ExplainRouting {
  route(source: Workload, destination: Endpoint): ExplainedRoute;
  endpointsOf(service: Service, port: number, source: Workload): readonly ExplainedEndpoint[];
}

/** All that is known for good. `PathAnswer` is KernelPath's. */
export interface ExplainDeps {
  readonly mesh: ExplainMesh;
  readonly book: Pick<PolicyBook, 'rulesFor'>;
  readonly routing: ExplainRouting;
  readonly path: { answerOn(source: NetnsCookie, destination: Endpoint): PathAnswer };
  readonly certificates: { status(): readonly CertificateStatus[] };
  readonly link: {
    status(): { readonly connected: boolean; readonly since: number; readonly reason?: string };
  };
  readonly flows: Pick<RecentFlows, 'page' | 'find'>;
}

/** The node as it is at this moment. */
export interface ExplainNode {
  /** The pods that were enrolled here. */
  readonly pods: readonly PodRecord[];
  /** Programs of ours that do not run. */
  readonly faults: ReadonlyArray<{ readonly name: string; readonly fault: string }>;
  /** What the kernel did with connections of a pod, by its reasons. */
  counts(cookie: NetnsCookie): Readonly<Record<string, number>>;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

export interface ExplainWorld extends ExplainDeps, ExplainNode {
  /** This node's name. */
  readonly node: string;
}

/** Who connects. */
export interface Source {
  /** As one would call it. */
  readonly name: string;
  /** Undefined: nobody of the mesh. */
  readonly workload: Workload | undefined;
  /** Its record, where it is a pod of this node that was enrolled. */
  readonly here: PodRecord | undefined;
  readonly addresses: readonly Address[];
  /** It stands for several, or is not what it seems: sentences. */
  readonly notes: readonly string[];
}

/** Where to. */
export interface Target {
  readonly name: string;
  /** What the app connects to. */
  readonly destination: Endpoint;
  readonly service: Service | undefined;
  /** Undefined: a service, or nobody of the mesh. */
  readonly workload: Workload | undefined;
  readonly notes: readonly string[];
}

/** How the connection leaves the source. */
export type Departure =
  /** This node's agent leads it. */
  | { readonly kind: 'captured' }
  /** Another node's agent does, by the same rules. */
  | { readonly kind: 'elsewhere'; readonly node: string }
  /** Nobody does: it goes as the app sends it. */
  | { readonly kind: 'direct' }
  /** It never leaves. */
  | { readonly kind: 'refused' };

/** The case that is explained: one connection. */
export interface Case {
  readonly source: Source;
  readonly target: Target;
  readonly departure: Departure;
  /** Undefined: nobody routes it. */
  readonly route: ExplainedRoute | undefined;
  /** Whom it reaches, as far as it is known. */
  readonly arrival: Arrival | undefined;
}

export interface Arrival {
  readonly workload: Workload;
  readonly destination: Endpoint;
  /** Its record, where it is a pod of this node that was enrolled. */
  readonly here: PodRecord | undefined;
}

/** A step before it is told: with what the last sentence says of it. */
export interface Finding extends ExplainStep {
  /** Why it would not connect: part of a sentence. Of bad steps. */
  readonly because?: string;
}
