import type { Address } from '../../mesh/index.ts';
import type { Concern } from './concern.ts';
import type { PastDestinations } from './destinations.ts';
import type { LiveFlows } from './live-flows.ts';
import type { PodSwitches } from './pod-switches.ts';
import type { PathPods } from './pods.ts';
import type { Place } from './ports.ts';
import type { PublishedServices } from './services.ts';
import type { Verdicts } from './verdicts.ts';

interface PathChangesDeps {
  readonly pods: Pick<PathPods, 'values' | 'allAt'>;
  readonly past: PastDestinations;
  readonly verdicts: Pick<Verdicts, 'revoke' | 'leadsOutside' | 'leadsAstray'>;
  readonly live: Pick<LiveFlows, 'judge' | 'outdated' | 'collect'>;
  readonly services: Pick<PublishedServices, 'seenFrom' | 'withdraw'>;
  readonly switches: Pick<PodSwitches, 'update' | 'vantage'>;
}

/**
 * What a change of the mesh or of the pods takes away, in one turn of the loop: verdicts, services, open ports and living
 * flows. What is still right is written again by others, later.
 */
export class PathChanges {
  readonly #deps: PathChangesDeps;
  #hasJudged = false;

  constructor(deps: PathChangesDeps) {
    this.#deps = deps;
  }

  /** Whether the living flows have been judged by all that there is to know. */
  get hasJudged(): boolean {
    return this.#hasJudged;
  }

  /**
   * First void, then shut, then end what lives.
   *
   * @param changed pods that are to be treated otherwise than before
   * @param isOn whether anything may be on the kernel path
   */
  apply(changed: ReadonlySet<Place>, { all, addresses }: Concern, isOn: boolean): void {
    const { verdicts, services, switches } = this.#deps;
    const places = this.#placesOf(changed, all, addresses);
    for (const place of places) verdicts.revoke(place);
    const ledTo = this.#ledTo(addresses);
    if (all || this.#isAstray(addresses)) verdicts.revoke(0n);
    switches.update(isOn);
    services.seenFrom(isOn ? switches.vantage() : undefined);
    services.withdraw();
    if (this.#hasJudged) this.#judge(all, places, ledTo);
  }

  /** All pods and the mesh are known: what lives is judged, if it has not been. */
  judgeFirst(): void {
    if (this.#hasJudged) return;
    this.#hasJudged = true;
    this.#deps.live.judge({ all: true, places: new Set(), addresses: new Set() });
  }

  /** What lives is to be judged once more by all that there is to know. */
  forgetJudged(): void {
    this.#hasJudged = false;
  }

  /** Forgets where connections no longer lead to, if it is too much to be remembered. True: verdicts must be written again. */
  collect(): boolean {
    const { past, verdicts, live } = this.#deps;
    if (!past.isOverfull) return false;
    // What is half-way is in no list yet.
    verdicts.revoke(0n);
    past.clear();
    live.collect();
    return true;
  }

  #placesOf(changed: ReadonlySet<Place>, all: boolean, addresses: ReadonlySet<Address>): ReadonlySet<Place> {
    const { pods } = this.#deps;
    const places = new Set(changed);
    if (all) for (const { cookie } of pods.values()) places.add(cookie);
    for (const address of addresses) for (const cookie of pods.allAt(address)) places.add(cookie);
    return places;
  }

  /** Those of the addresses that connections may lead to from here, outside. */
  #ledTo(addresses: ReadonlySet<Address>): ReadonlySet<Address> {
    const { past, verdicts } = this.#deps;
    return new Set([...addresses].filter((each) => past.mayHave(each) || verdicts.leadsOutside(each)));
  }

  /** Whether something half-way outside must not arrive. If its verdict has gone meanwhile, nobody knows. */
  #isAstray(addresses: ReadonlySet<Address>): boolean {
    const { past, verdicts } = this.#deps;
    for (const each of addresses) if (past.mayHave(each) || verdicts.leadsAstray(each)) return true;
    return false;
  }

  #judge(all: boolean, places: ReadonlySet<Place>, ledTo: ReadonlySet<Address>): void {
    const { past, live } = this.#deps;
    const outdated = live.outdated();
    const addresses = new Set([...ledTo, ...(outdated ?? [])]);
    // Nothing half-way counts any more, so what is listed is all there is.
    if (all) past.clear();
    if (all || outdated === undefined || places.size + addresses.size > 0)
      live.judge({ all: all || outdated === undefined, places, addresses });
  }
}
