import { parsePod, type WirePod } from '../../../src/agent/index.ts';
import type { Address, Pod } from '../../../src/mesh/index.ts';

/** A pod in its wire form, with everything optional left out. */
export function wirePod(changes: Partial<WirePod> = {}): WirePod {
  return {
    uid: 'uid-a',
    name: 'web-0',
    namespace: 'shop',
    serviceAccount: 'web',
    netns: '/run/netns/a',
    addresses: ['10.0.0.1' as Address],
    ...changes,
  };
}

export function pod(changes: Partial<WirePod> = {}): Pod {
  return parsePod(wirePod(changes));
}
