/** What the agent tells of its node beside what it does for pods: for `culvert status`, `culvert config-dump` and the admin port. */
import type { ReadModel } from '../mesh/index.ts';
import type { ShownCertificate } from './config-dump/certificates.ts';
import { configDump, type ShownConnection, type ShownPod } from './config-dump/config-dump.ts';
import { jsonStream } from './config-dump/json-stream.ts';
import { policyConditions } from './policy-conditions.ts';
import type { KernelInventory } from './ports.ts';
import type { NodeStatus, PortStatus } from './status-protocol.ts';

type PreflightCheck = NodeStatus['preflight']['checks'][number];

export interface NodeReportDeps {
  /** As found when the agent started. */
  readonly preflight: readonly PreflightCheck[];
  readonly kernel: Pick<KernelInventory, 'programs' | 'maps'>;
  readonly levels: { text(): string };
  /** Undefined: the agent follows no control process. */
  readonly mesh:
    | {
        readonly model: Pick<ReadModel, 'snapshot' | 'service' | 'members' | 'policies'>;
        certificates(): readonly ShownCertificate[];
        unknownPolicies(): readonly string[];
      }
    | undefined;
  /** Undefined: nothing is counted. */
  series?(): NonNullable<NodeStatus['series']>;
  /** Where the agent listens for people and tools. */
  ports(): readonly PortStatus[];
  /** Connections that are open, of both paths; a bounded number. */
  connections(): Promise<readonly ShownConnection[]>;
}

export interface NodeReportOptions {
  /** The effective settings, in camel case, as the config dump shows them. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly version: string;
}

export class NodeReport {
  readonly #deps: NodeReportDeps;
  readonly #options: NodeReportOptions;

  constructor(deps: NodeReportDeps, options: NodeReportOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  status(uptimeMs: number): NodeStatus {
    const { preflight, kernel, levels, mesh, series, ports } = this.#deps;
    return {
      uptime: Math.max(0, Math.round(uptimeMs / 1000)),
      logLevel: levels.text(),
      preflight: { result: worstOf(preflight), checks: [...preflight] },
      kernel: { programs: [...kernel.programs()], maps: [...kernel.maps()] },
      series: series?.() ?? null,
      ports: [...ports()],
      policyConditions: mesh === undefined ? [] : policyConditions(mesh.model.policies(), mesh.unknownPolicies()),
    };
  }

  /** JSON text in pieces (wire contract, section 9.5), which yields to the event loop in between. */
  async *configDump(pods: readonly ShownPod[], pretty: boolean): AsyncGenerator<string, void, undefined> {
    const { mesh } = this.#deps;
    const sources = {
      mesh: mesh?.model,
      pods,
      connections: await this.#deps.connections(),
      certificates: mesh?.certificates() ?? [],
      ...this.#options,
    };
    yield* jsonStream(configDump(sources), { pretty });
  }
}

function worstOf(checks: readonly PreflightCheck[]): PreflightCheck['result'] {
  const results = new Set(checks.map(({ result }) => result));
  return results.has('failed') ? 'failed' : results.has('warning') ? 'warning' : 'ok';
}
