import type { LimitedLog } from './limited-log.ts';
import type { LiveFlows } from './live-flows.ts';
import { LostEvents } from './lost-events.ts';
import type { MasqueradedPairs } from './masqueraded.ts';
import type { PathPods } from './pods.ts';
import type { PathEvent, PathSignals, Place } from './ports.ts';
import type { Verdicts } from './verdicts.ts';

interface PathEventsDeps {
  readonly signals: Pick<PathSignals, 'events' | 'counts'>;
  readonly live: Pick<LiveFlows, 'judge' | 'lookAgain' | 'endUnrecorded' | 'endUnproven'>;
  readonly verdicts: Pick<Verdicts, 'leadsTo' | 'forgetPair'>;
  readonly masqueraded: Pick<MasqueradedPairs, 'add'>;
  readonly pods: Pick<PathPods, 'get' | 'at'>;
  readonly log: Pick<LimitedLog, 'warn'>;
}

/** Events that nobody has asked for yet, and such that cannot be judged yet; beyond that the oldest go. */
const MOST_HELD = 4096;
/** Before losses are counted the ring is emptied: so often, since one call takes only some. */
const MOST_CALLS = 32;

/** What the kernel tells the agent: what is the kernel path's is done at once, the rest is for the operator. */
export class PathEvents {
  readonly #deps: PathEventsDeps;
  readonly #lost = new LostEvents();
  #forOperator: PathEvent[] = [];
  #toBeJudged: PathEvent[] = [];
  #unrecorded: PathEvent[] = [];

  constructor(deps: PathEventsDeps) {
    this.#deps = deps;
  }

  /** To be called once, before anything is read. */
  begin(): void {
    this.#lost.begin(this.#deps.signals.counts());
  }

  /** What an operator should be told of, since the last call. */
  take(): readonly PathEvent[] {
    const events = this.#forOperator;
    this.#forOperator = [];
    return events;
  }

  /** @param canJudge false: not all is known yet that decisions are made of; what is to be judged waits */
  read(canJudge: boolean): void {
    this.#take();
    if (canJudge) this.#judge();
  }

  /** As `read`; and if the kernel had no room for what it asks, all flows of those pods are judged. */
  audit(canJudge: boolean): void {
    const { signals, live, log } = this.#deps;
    const counts = signals.counts();
    for (let calls = 0; calls < MOST_CALLS && this.#take(); calls += 1);
    if (canJudge) this.#judge();
    const lost = this.#lost.look(counts);
    for (const { cookie, reason, count } of lost)
      log.warn(
        { netns_cookie: String(cookie), reason, count },
        'the kernel had no room to tell of connections: all that are listed of the pod are judged again',
      );
    // Else all of them are judged sooner or later in any case.
    if (canJudge && lost.length > 0)
      live.judge({ all: false, places: new Set<Place>(lost.map(({ cookie }) => cookie)), addresses: new Set() });
  }

  /** False: there was nothing. */
  #take(): boolean {
    const events = this.#deps.signals.events();
    for (const event of events) {
      this.#lost.heard(event);
      if (event.reason === 'masqueraded') this.#avoid(event);
      else this.#heldFor(event).push(event);
    }
    this.#forOperator = this.#forOperator.slice(-MOST_HELD);
    this.#toBeJudged = this.#toBeJudged.slice(-MOST_HELD);
    this.#unrecorded = this.#unrecorded.slice(-MOST_HELD);
    return events.length > 0;
  }

  #heldFor({ reason }: PathEvent): PathEvent[] {
    if (reason === 'flow_forbidden') return this.#toBeJudged;
    return reason === 'flow_unrecorded' ? this.#unrecorded : this.#forOperator;
  }

  #judge(): void {
    const [unrecorded, toBeJudged] = [this.#unrecorded, this.#toBeJudged];
    this.#unrecorded = [];
    this.#toBeJudged = [];
    if (unrecorded.length > 0) this.#deps.live.endUnrecorded(unrecorded);
    if (toBeJudged.length > 0) this.#deps.live.lookAgain(toBeJudged);
  }

  /**
   * What left the client is not what arrived: directly the destination cannot tell who it is, nor the client who has
   * answered, so this connection ends. Unless another pod has the address by now the pair is remembered; then it did not
   * arrive where the verdict said, and nobody has rewritten anything.
   */
  #avoid(event: PathEvent): void {
    const { cookie, client, server } = event;
    const { pods, live, masqueraded, verdicts, log } = this.#deps;
    live.endUnproven(event);
    const named = pods.get(cookie);
    const found = named?.pod.addresses.includes(client.address) ? named : pods.at(client.address);
    const there = pods.at(server.address);
    if (found === undefined || found === 'several' || there === undefined || there === 'several') return;
    if (verdicts.leadsTo(found.cookie, server) !== there.cookie) return;
    masqueraded.add(found.cookie, there.cookie, server.address);
    verdicts.forgetPair(found.cookie, server.address);
    const { namespace, name } = found.pod;
    log.warn(
      { namespace, name, netns_cookie: String(found.cookie), server },
      'somebody rewrites the source of connections between two pods of this node: they use the tunnel for 10 minutes',
    );
  }
}
