import type { FlowPage } from '../telemetry/index.ts';
import { AgentError } from './errors.ts';
import { ENDS } from './explain/ends.ts';
import type { FlowsRequest } from './flow-protocol.ts';
import { VERDICTS } from './flow-query.ts';
import type { RecentFlows } from './recent-flows.ts';

export interface NodeFlowsDeps {
  readonly flows: Pick<RecentFlows, 'page' | 'last' | 'podsCalled' | 'onAdded'>;
}

/** Who has waited longest is answered when there are more: it may be gone, and the socket serves no more than 64 at a time. */
const MOST_WAITING = 32;
/** A look at many records costs some milliseconds, which others must have in between. */
const NEXT_LOOK_MS = 20;

/** One who asks. */
interface Asker {
  wake(): void;
  /** Is to be answered, whatever there is. */
  isReleased: boolean;
}

/** Answers who asks for flows, also those who wait for the next one. */
export class NodeFlows {
  readonly #deps: NodeFlowsDeps;
  /** Who has waited longest comes first. */
  readonly #waiting = new Set<Asker>();
  #isReleased = false;

  constructor(deps: NodeFlowsDeps) {
    this.#deps = deps;
  }

  /**
   * Answers at once if something matches; else when something does, or after `waitMs`. That the asker is gone is not noticed
   * before: it may have closed its sending side, and wait.
   *
   * @throws AgentError BAD_REQUEST: no such pod or verdict
   */
  async page(request: Omit<FlowsRequest, 'method'>): Promise<FlowPage> {
    const { waitMs, pod, from, to, verdict, ...rest } = request;
    if (verdict !== undefined) checkVerdict(verdict);
    this.#checkPod(pod);
    const filter = { ...given('pod', pod), ...given('from', from), ...given('to', to), ...given('verdict', verdict) };
    const until = performance.now() + waitMs;
    const asker: Asker = { wake: () => {}, isReleased: this.#isReleased };
    let { after } = rest;
    let missed = 0;
    try {
      for (;;) {
        const page = this.#deps.flows.page({ ...rest, ...filter, after });
        missed += page.missed;
        const left = until - performance.now();
        if (page.flows.length > 0 || left <= 0 || asker.isReleased) return { ...page, missed };
        after = page.next;
        // There was more to look at than one turn has time for; nothing is awaited between the look and the waiting.
        if (after < this.#deps.flows.last) await this.#pause(asker, Math.min(left, NEXT_LOOK_MS));
        else await this.#pause(asker, left, this.#deps.flows);
      }
    } finally {
      this.#waiting.delete(asker);
    }
  }

  /** Answers all who wait, now and from now on at once: the agent stops. */
  release(): void {
    this.#isReleased = true;
    for (const asker of this.#waiting) release(asker);
  }

  /** @param flows wakes earlier when something is added to them */
  async #pause(asker: Asker, ms: number, flows?: Pick<RecentFlows, 'onAdded'>): Promise<void> {
    const { promise, resolve: wake } = Promise.withResolvers<void>();
    const timer = setTimeout(wake, ms);
    timer.unref();
    asker.wake = wake;
    const [longest] = this.#waiting;
    if (longest !== undefined && this.#waiting.size >= MOST_WAITING && !this.#waiting.has(asker)) {
      this.#waiting.delete(longest);
      release(longest);
    }
    this.#waiting.add(asker);
    const stop = flows?.onAdded(wake);
    await promise;
    stop?.();
    clearTimeout(timer);
  }

  #checkPod(pod: string | undefined): void {
    if (pod === undefined || this.#deps.flows.podsCalled(pod).length > 0) return;
    throw new AgentError(
      'BAD_REQUEST',
      `pod: no pod of this node is enrolled as ${JSON.stringify(pod.slice(0, 64))}; culvert status lists them`,
    );
  }
}

function release(asker: Asker): void {
  asker.isReleased = true;
  asker.wake();
}

/** @throws AgentError BAD_REQUEST */
function checkVerdict(verdict: string): void {
  if (VERDICTS.some((each) => each === verdict) || ENDS.has(verdict)) return;
  throw new AgentError(
    'BAD_REQUEST',
    `verdict: ${JSON.stringify(verdict.slice(0, 64))} is none of ${VERDICTS.join(', ')}, nor a reason why a connection ends (docs/errors.md), such as dial-refused`,
  );
}

function given<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]?: string });
}
