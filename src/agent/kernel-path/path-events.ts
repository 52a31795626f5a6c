import type { Log } from '../../telemetry/index.ts';
import type { LiveFlows } from './live-flows.ts';
import type { MasqueradedPairs } from './masqueraded.ts';
import type { PathPods } from './pods.ts';
import type { PathEvent, PathSignals } from './ports.ts';
import type { Verdicts } from './verdicts.ts';

interface PathEventsDeps {
  readonly signals: Pick<PathSignals, 'events'>;
  readonly live: Pick<LiveFlows, 'lookAgain' | 'endUnrecorded'>;
  readonly verdicts: Pick<Verdicts, 'forgetPair'>;
  readonly masqueraded: MasqueradedPairs;
  readonly pods: Pick<PathPods, 'get' | 'at'>;
  readonly log: Log;
}

/** Events that nobody has asked for yet, and such that cannot be judged yet; beyond that the oldest go. */
const MOST_HELD = 4096;

/** What the kernel tells the agent: what is the kernel path's is done at once, the rest is for the operator. */
export class PathEvents {
  readonly #deps: PathEventsDeps;
  #forOperator: PathEvent[] = [];
  #toBeJudged: PathEvent[] = [];

  constructor(deps: PathEventsDeps) {
    this.#deps = deps;
  }

  /** What an operator should be told of, since the last call. */
  take(): readonly PathEvent[] {
    const events = this.#forOperator;
    this.#forOperator = [];
    return events;
  }

  /** @param canJudge false: not all is known yet that decisions are made of; what is to be judged waits */
  read(canJudge: boolean): void {
    const unrecorded: PathEvent[] = [];
    for (const event of this.#deps.signals.events()) {
      if (event.reason === 'masqueraded') this.#avoid(event);
      else if (event.reason === 'flow_unrecorded') unrecorded.push(event);
      else (event.reason === 'flow_forbidden' ? this.#toBeJudged : this.#forOperator).push(event);
    }
    if (unrecorded.length > 0) this.#deps.live.endUnrecorded(unrecorded);
    this.#forOperator = this.#forOperator.slice(-MOST_HELD);
    this.#toBeJudged = this.#toBeJudged.slice(-MOST_HELD);
    if (!canJudge || this.#toBeJudged.length === 0) return;
    const events = this.#toBeJudged;
    this.#toBeJudged = [];
    this.#deps.live.lookAgain(events);
  }

  /** What left the client is not what arrived: directly the destination cannot tell who it is. */
  #avoid({ cookie, client, server }: PathEvent): void {
    const { pods, masqueraded, verdicts, log } = this.#deps;
    const named = pods.get(cookie);
    const found = named?.pod.addresses.includes(client.address) ? named : pods.at(client.address);
    if (found === undefined || found === 'several') return;
    masqueraded.add(found.cookie, server.address);
    verdicts.forgetPair(found.cookie, server.address);
    const { namespace, name } = found.pod;
    log.warn(
      { namespace, name, netns_cookie: String(found.cookie), server },
      'somebody rewrites the source of connections between two pods of this node: they use the tunnel for 10 minutes',
    );
  }
}
