import type { Address, ReadModel } from '../mesh/index.ts';
import type { PolicyBook } from './policy-book.ts';
import type { Rules } from './rules.ts';

/**
 * What connections in the clear to an address are subject to. They prove nothing, so they are nobody's.
 *
 * @returns undefined: nobody is there who takes the tunnel, so nobody has a say
 */
export function plaintextRules(
  model: Pick<ReadModel, 'workloadAt'>,
  book: Pick<PolicyBook, 'rulesFor'>,
  network: string,
  address: Address,
): Rules | undefined {
  const workload = model.workloadAt(network, address);
  return workload?.protocol === 'hbone' ? book.rulesFor(workload) : undefined;
}
