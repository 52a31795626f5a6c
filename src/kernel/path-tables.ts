import type { BpfMap } from '../../native/addon/index.js';
import type { Address, NetnsCookie } from '../mesh/index.ts';
import { PodAddresses } from './addresses.ts';
import { Epochs } from './epochs.ts';
import { forgetFlows } from './flows.ts';
import { OpenPorts } from './open-ports.ts';
import type { Maps } from './programs.ts';
import { Services } from './services.ts';
import type { Tables } from './tables.ts';
import { Verdicts } from './verdicts.ts';

/** What the agent writes down for the kernel path. Of each pod: from its capture until it is closed. */
export class PathTables {
  readonly epochs: Epochs;
  readonly verdicts: Verdicts;
  readonly services: Services;
  readonly openPorts: OpenPorts;
  readonly #addresses: PodAddresses;
  readonly #flows: BpfMap;
  readonly #tables: Tables;

  constructor(maps: Maps, tables: Tables) {
    this.epochs = new Epochs(maps.epochs);
    this.verdicts = new Verdicts(maps.verdicts);
    this.services = new Services(maps.services);
    this.openPorts = new OpenPorts(maps.open_ports);
    this.#addresses = new PodAddresses(maps.addresses);
    this.#flows = maps.flows;
    this.#tables = tables;
  }

  /**
   * For a pod that is captured, or has other addresses than when it was: what was decided about it before is void.
   *
   * @param before the addresses that it had
   * @throws KernelError TOO_MANY_PODS
   */
  begin(cookie: NetnsCookie, before: readonly Address[], after: readonly Address[]): void {
    this.epochs.begin(cookie);
    this.#addresses.replace(cookie, before, after);
  }

  /** To be called while the pod still stands in `pods`: an agent that dies meanwhile leaves one that is forgotten again. */
  forget(cookie: NetnsCookie): void {
    // First what begins flows.
    this.epochs.forget(cookie);
    this.openPorts.forget(cookie);
    this.#addresses.forget(cookie, this.#tables.addressesOf(cookie));
    this.verdicts.forget(cookie);
    // One that is begun at this moment is swept.
    if (this.#tables.flowsOf(cookie) !== 0n) forgetFlows(this.#flows, cookie);
  }

  /** Deletes what is left of pods that are not enrolled. */
  forgetStrangers(enrolled: ReadonlySet<bigint>): void {
    this.epochs.forgetStrangers(enrolled);
    this.openPorts.forgetStrangers(enrolled);
    this.#addresses.forgetStrangers(enrolled);
  }

  /** Back to nothing: all is void, everything goes through the tunnel. Established flows live on. */
  clear(): void {
    this.epochs.raiseAll();
    this.#tables.clearKernelPath();
    this.openPorts.clear();
    this.verdicts.clear();
    this.services.clear();
  }
}
