import type { FromControl } from './wire.ts';

/** How a link to the control process ended, in the words of Istio's metric (wire contract, section 9.1). */
export type LinkEnd = 'ConnectionError' | 'Error' | 'Complete';

/** Messages of the link, by what they are; where the Workload API has the same thing, by its type URL. */
const ADDRESSES = 'type.googleapis.com/istio.workload.Address';
const POLICIES = 'type.googleapis.com/istio.security.Authorization';
const OTHERS: Readonly<Record<Exclude<FromControl['kind'], 'update'>, string>> = {
  roots: 'culvert.dev/roots',
  signed: 'culvert.dev/certificate',
  refused: 'culvert.dev/certificate',
  heartbeat: 'culvert.dev/heartbeat',
};

export interface LinkTraffic {
  /** Since the client was made. */
  readonly ends: Readonly<Record<LinkEnd, number>>;
  /** Messages that came in and their bytes, newlines left out. One that carries both addresses and policies counts as addresses. */
  readonly messages: Readonly<Record<string, { readonly messages: number; readonly bytes: number }>>;
}

/** What came over the links of one client, one after the other. */
export class LinkCounts {
  readonly #ends = { ConnectionError: 0, Error: 0, Complete: 0 };
  readonly #messages = new Map<string, { messages: number; bytes: number }>();

  heard(message: FromControl, bytes: number): void {
    const url = urlOf(message);
    const counts = this.#messages.get(url) ?? { messages: 0, bytes: 0 };
    counts.messages += 1;
    counts.bytes += bytes;
    this.#messages.set(url, counts);
  }

  ended(how: LinkEnd): void {
    this.#ends[how] += 1;
  }

  traffic(): LinkTraffic {
    return {
      ends: { ...this.#ends },
      messages: Object.fromEntries(Array.from(this.#messages, ([url, counts]) => [url, { ...counts }])),
    };
  }
}

function urlOf(message: FromControl): string {
  if (message.kind !== 'update') return OTHERS[message.kind];
  const { workloads, services, removed, policies, removedPolicies } = message.update;
  const hasAddresses = workloads.length + services.length + removed.length > 0;
  return !hasAddresses && policies.length + removedPolicies.length > 0 ? POLICIES : ADDRESSES;
}
