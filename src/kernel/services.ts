import type { BpfMap } from '../../native/addon/index.js';
import * as addon from '../../native/addon/index.js';
import { encodeEndpoint, encodeService, limit } from '../gen/layout.ts';
import { type Endpoint, encodeAddress } from '../mesh/index.ts';
import { deleteEntries, tryPut } from './map-entries.ts';

/** A backend of a service as the kernel chooses it. */
export interface KernelBackend {
  readonly endpoint: Endpoint;
  /** A whole number above 0. */
  readonly weight: number;
}

const mostTotal = 0xffffffff;

const structOf = ({ address, port }: Endpoint): { address: { bytes: Uint8Array }; port: number } => ({
  address: { bytes: encodeAddress(address) },
  port,
});

/** The services of which the connect hook chooses a backend, by the weights that the tunnel's balancer publishes. */
export class Services {
  readonly #map: BpfMap;

  constructor(map: BpfMap) {
    this.#map = map;
  }

  /**
   * Replaces what was there. False when the kernel cannot choose for this service: no room, none or too many backends, or
   * weights that do not add up; then it has nothing to choose from, and asks the tunnel.
   */
  put(at: Endpoint, backends: readonly KernelBackend[]): boolean {
    const value = structOfService(backends);
    if (value !== undefined && tryPut(this.#map, encodeEndpoint(structOf(at)), value)) return true;
    this.delete(at);
    return false;
  }

  delete(at: Endpoint): void {
    addon.mapDelete(this.#map, encodeEndpoint(structOf(at)));
  }

  clear(): void {
    deleteEntries(this.#map);
  }
}

/** The kernel draws a number below the total, and takes the first backend whose sum is above it. */
function structOfService(backends: readonly KernelBackend[]): Uint8Array | undefined {
  if (backends.length === 0 || backends.length > limit.BACKENDS) return undefined;
  let sum = 0;
  const sums = backends.map(({ endpoint, weight }) => {
    if (!Number.isSafeInteger(weight) || weight <= 0) return undefined;
    sum += weight;
    return { endpoint: structOf(endpoint), sum };
  });
  const summed = sums.filter((backend) => backend !== undefined);
  if (summed.length < backends.length || sum > mostTotal) return undefined;
  return encodeService({ count: summed.length, total: sum, backends: summed });
}
