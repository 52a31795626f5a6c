import type { NetnsCookie } from '../mesh/index.ts';
import type { PodName } from './node-view.ts';
import type { PathRequests } from './path-requests.ts';
import type { PodProxy } from './pod-proxy.ts';

/** A pod's network namespace in a worker: what is new in it is its proxy's, and former ones may have something open. */
export class ServedPod {
  readonly cookie: string;
  /** The same as a number. */
  readonly netns: NetnsCookie;
  /** Its line in the ledger. */
  readonly line: number;
  /** The last `serve` of it. */
  served = 0;
  /** Descriptors of its connections and sessions. */
  held = 0;
  /** False once the main thread has said stop; room in the budget does not change that. */
  wanted = false;
  listeners = 0;
  /** Undefined: nobody wants to know. */
  paths: PathRequests | undefined;
  /** `held`: it has its share of the places; `asking`: there is room in it again and the main thread knows. */
  share: 'open' | 'held' | 'asking' = 'open';
  readonly #makeProxy: (served: ServedPod, pod: PodName) => PodProxy;
  readonly #idle: (served: ServedPod) => void;
  #proxy: PodProxy;
  readonly #former = new Set<PodProxy>();

  /**
   * @param makeProxy for the pod that is in the namespace now
   * @param idle nothing is open any more of a pod that has left
   */
  constructor(
    { cookie, line, pod }: { readonly cookie: string; readonly line: number; readonly pod: PodName },
    makeProxy: (served: ServedPod, pod: PodName) => PodProxy,
    idle: (served: ServedPod) => void,
  ) {
    this.cookie = cookie;
    this.netns = BigInt(cookie) as NetnsCookie;
    this.line = line;
    this.#makeProxy = makeProxy;
    this.#idle = idle;
    this.#proxy = makeProxy(this, pod);
  }

  get proxy(): PodProxy {
    return this.#proxy;
  }

  get proxies(): PodProxy[] {
    return [this.#proxy, ...this.#former];
  }

  get openConnections(): number {
    let open = this.#proxy.openConnections;
    for (const proxy of this.#former) open += proxy.openConnections;
    return open;
  }

  /** Neither a connection nor a session is open. */
  get isEmpty(): boolean {
    return this.proxies.every((proxy) => proxy.isEmpty);
  }

  /**
   * A proxy has one pod, whose identity it speaks with, and one life. If there is another pod in the namespace now, or the
   * same one again, the proxy before it only finishes what is open.
   */
  become(pod: PodName): void {
    if (this.#proxy.serves(pod)) return;
    const before = this.#proxy;
    this.#former.add(before);
    before.leave();
    void before.emptied().then(() => {
      this.#former.delete(before);
      this.#idle(this);
    });
    this.#proxy = this.#makeProxy(this, pod);
  }

  /** What is open lives on, and nothing more is taken. Idempotent. */
  leave(): void {
    this.#proxy.leave();
    void this.#proxy.emptied().then(() => this.#idle(this));
  }
}
