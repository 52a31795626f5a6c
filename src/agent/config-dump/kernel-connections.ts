import type { NetnsCookie } from '../../mesh/index.ts';
import type { KernelFlow, Place } from '../kernel-path/ports.ts';
import type { ShownConnection } from './config-dump.ts';

/** Connections on the kernel path as each of this node's pods has them: one between two of them is there twice. */
export function kernelConnections(
  flows: ReadonlyArray<Pick<KernelFlow, 'state' | 'source' | 'destination' | 'client' | 'server'>>,
  most: number,
): ShownConnection[] {
  const shown: ShownConnection[] = [];
  for (const { state, source, destination, client, server } of flows) {
    if (shown.length >= most) break;
    if (state === 'approved') continue;
    const both = { client, actual: server, isTunnelled: false };
    if (isPod(source)) shown.push({ pod: source, direction: 'outbound', asked: server, ...both });
    if (isPod(destination)) shown.push({ pod: destination, direction: 'inbound', asked: undefined, ...both });
  }
  return shown;
}

function isPod(place: Place): place is NetnsCookie {
  return place !== 0n;
}
