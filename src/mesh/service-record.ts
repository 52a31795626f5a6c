import type { Service, ServicePort, Workload } from './workload.ts';

/** An endpoint of a service: a workload and its own port map (service port -> target port). */
export interface ServiceEndpoint {
  readonly workload: Workload;
  readonly ports: ReadonlyMap<number, number>;
}

/** A service and its endpoints. Without a service it is where endpoints wait until theirs is known. */
export class ServiceRecord {
  readonly #endpoints = new Map<string, ServiceEndpoint>();
  #service: Service | undefined;
  /** What `attached` says; undefined after a change. Never altered, so whoever holds one may keep it. */
  #attached: readonly ServiceEndpoint[] | undefined;
  /** Endpoints of one service mostly have the same ports: they share the map. */
  #lastPorts: ReadonlyMap<number, number> = new Map();

  get service(): Service | undefined {
    return this.#service;
  }

  set service(service: Service | undefined) {
    this.#service = service;
    this.#attached = undefined;
  }

  get isEmpty(): boolean {
    return this.#service === undefined && this.#endpoints.size === 0;
  }

  /** The endpoints that may be chosen: by the health policy, all or the healthy ones. The same array until something changes. */
  get attached(): readonly ServiceEndpoint[] {
    this.#attached ??=
      this.#service?.loadBalancing?.healthPolicy === 'allow-all'
        ? [...this.#endpoints.values()]
        : [...this.#endpoints.values()].filter(({ workload }) => workload.status === 'healthy');
    return this.#attached;
  }

  /** Whatever their health. */
  endpoints(): Iterable<ServiceEndpoint> {
    return this.#endpoints.values();
  }

  /** Whatever its health. */
  endpoint(uid: string): ServiceEndpoint | undefined {
    return this.#endpoints.get(uid);
  }

  add(workload: Workload, ports: readonly ServicePort[]): void {
    if (!isSame(ports, this.#lastPorts))
      this.#lastPorts = new Map(ports.map(({ servicePort, targetPort }) => [servicePort, targetPort]));
    this.#endpoints.set(workload.uid, { workload, ports: this.#lastPorts });
    this.#attached = undefined;
  }

  delete(uid: string): void {
    this.#endpoints.delete(uid);
    this.#attached = undefined;
  }
}

function isSame(ports: readonly ServicePort[], map: ReadonlyMap<number, number>): boolean {
  return ports.length === map.size && ports.every(({ servicePort, targetPort }) => map.get(servicePort) === targetPort);
}
