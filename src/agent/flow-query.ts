/** Which of the flows somebody wants to see. */
import { type FlowParty, type FlowRecord, type FlowService, parseAddress } from '../mesh/index.ts';
import type { FlowFilter } from '../telemetry/index.ts';
import { type FlowValues, WORD } from './flow-columns.ts';
import type { KeptFlows } from './kept-flows.ts';

/** Ends that are policy's doing (docs/errors.md, why a connection ended). */
const REFUSED: ReadonlySet<string> = new Set(['policy-denied', 'policy-changed']);

/** Verdicts that can be asked for besides the reasons of docs/errors.md. */
export const VERDICTS = ['allowed', 'denied', 'failed', 'clean'] as const;

/**
 * Whether a flow of this node was refused, or ended, by policy: by its own, or by that of the other end, whose agent answers
 * CONNECT with 401.
 */
export function isDenied({ ended, error, decision }: Pick<FlowRecord, 'ended' | 'error' | 'decision'>): boolean {
  // What ended well was not refused, whatever policy says by the time at which it is asked.
  if (ended === 'clean') return false;
  return REFUSED.has(ended) || decision?.allowed === false || isDeniedThere(ended, error);
}

function isDeniedThere(ended: string, error: string | undefined): boolean {
  return ended === 'tunnel-refused' && /\b401\b/.test(error ?? '');
}

/** @param at a place of `kept` */
type Test = (kept: KeptFlows, at: number) => boolean;

/**
 * Looks at records where they are kept: what a text or a workload is to the question is found out once, and compared by
 * number from then on. Good for one turn of the loop, while nothing is added.
 */
export class FlowQuery {
  readonly #values: FlowValues;
  readonly #tests: Test[] = [];

  /** @param filter its `pod` is not looked at: that is whose records they are */
  constructor(values: FlowValues, { from, to, verdict }: FlowFilter) {
    this.#values = values;
    if (from !== undefined) this.#tests.push(this.#from(from));
    if (to !== undefined) this.#tests.push(this.#to(to));
    if (verdict !== undefined) this.#tests.push(this.#verdict(verdict));
  }

  matches(kept: KeptFlows, at: number): boolean {
    for (const test of this.#tests) if (!test(kept, at)) return false;
    return true;
  }

  #from(text: string): Test {
    const { texts, parties } = this.#values;
    const address = texts.numberOf(parseAddress(text) ?? text);
    const party = remembered(parties, (each) => isParty(each, text));
    return (kept, at) =>
      isSame(kept.word(at, WORD.client), address) ||
      isSame(kept.word(at, WORD.sourceIdentity), address) ||
      party(kept.word(at, WORD.source));
  }

  #to(text: string): Test {
    const { texts, parties, services } = this.#values;
    const address = texts.numberOf(parseAddress(text) ?? text);
    const party = remembered(parties, (each) => isParty(each, text));
    const service = remembered(services, (each) => isService(each, text));
    return (kept, at) =>
      isSame(kept.word(at, WORD.asked), address) ||
      isSame(kept.word(at, WORD.server), address) ||
      isSame(kept.word(at, WORD.destinationIdentity), address) ||
      party(kept.word(at, WORD.destination)) ||
      service(kept.word(at, WORD.service));
  }

  #verdict(verdict: string): Test {
    const { texts } = this.#values;
    const clean = texts.numberOf('clean');
    const refused = remembered(texts, (ended) => REFUSED.has(ended));
    const other = texts.numberOf('tunnel-refused');
    const error = remembered(texts, (each) => isDeniedThere('tunnel-refused', each));
    const denied: Test = (kept, at) => {
      const ended = kept.word(at, WORD.ended);
      if (isSame(ended, clean)) return false;
      return kept.allowed(at) === false || refused(ended) || (isSame(ended, other) && error(kept.word(at, WORD.error)));
    };
    switch (verdict) {
      case 'denied':
        return denied;
      case 'allowed':
        return (kept, at) => (kept.isConnected(at) || kept.allowed(at) === true) && !denied(kept, at);
      case 'failed':
        return (kept, at) => kept.word(at, WORD.ended) !== clean;
      default: {
        const wanted = texts.numberOf(verdict);
        return (kept, at) => isSame(kept.word(at, WORD.ended), wanted);
      }
    }
  }
}

/** Number 0, no text, is the same as nothing. */
function isSame(number: number, wanted: number): boolean {
  return number !== 0 && number === wanted;
}

/** The test's answers, by number: each value is looked at once. */
function remembered<T>(
  values: { readonly end: number; read(number: number): T | undefined },
  test: (value: T) => boolean,
): (number: number) => boolean {
  const known = new Uint8Array(values.end);
  return (number) => {
    if (known[number] === UNKNOWN) {
      const value = values.read(number);
      known[number] = value !== undefined && test(value) ? YES : NO;
    }
    return known[number] === YES;
  };
}

const [UNKNOWN, NO, YES] = [0, 1, 2];

function isParty({ workload, workloadName, namespace }: FlowParty, text: string): boolean {
  if (text === `${namespace}/`) return true;
  return [workload, workloadName].some(
    (name) => name !== undefined && (text === name || text === `${namespace}/${name}`),
  );
}

function isService({ name, namespace, hostname }: FlowService, text: string): boolean {
  return text === hostname || text === name || text === `${namespace}/${name}` || text === `${namespace}/`;
}
