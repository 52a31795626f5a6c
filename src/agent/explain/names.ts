/** What people call pods, services and addresses, and what they mean by it. */
import {
  type Address,
  familyOf,
  formatEndpoint,
  identityOf,
  parseAddress,
  parseSpiffeId,
  type Service,
  serviceName,
  type Workload,
} from '../../mesh/index.ts';
import { AgentError } from '../errors.ts';
import type { PodRecord } from '../reconcile.ts';
import { nearNames } from './near-names.ts';
import type { ExplainMesh, ExplainWorld, Source, Target } from './world.ts';

/** `namespace/name`. */
export function nameOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}

/** The record of a pod that was enrolled on this node. */
export function recordOf({ pods, node }: ExplainWorld, workload: Workload | undefined): PodRecord | undefined {
  if (workload === undefined || workload.node !== node) return undefined;
  return pods.find(({ pod }) => pod.namespace === workload.namespace && pod.name === workload.name);
}

// --- who connects -----------------------------------------------------------------------------------------------------

/** @throws AgentError BAD_REQUEST: nobody is called so */
export function findSource(world: ExplainWorld, text: string): Source {
  if (text.startsWith('spiffe://')) return withIdentity(world, text);
  const address = parseAddress(/^\[(.*)\]$/.exec(text)?.[1] ?? text);
  if (address !== undefined) return sourceAt(world, address);
  const here = unknownPod(world, text);
  if (here !== undefined)
    return { name: nameOf(here.pod), workload: undefined, here, addresses: here.pod.addresses, notes: [] };
  const found = find(world, text, 'from');
  if (found.kind === 'workload') return sourceOf(world, found.workload, []);
  const { service } = found;
  const behind = world.mesh.endpoints(service).map(({ workload }) => workload);
  const chosen = preferLocal(world, behind);
  if (chosen === undefined)
    throw bad(`from: ${nameOf(service)} is a service without an endpoint, so nobody connects from it; name a pod`);
  return sourceOf(world, chosen, [
    `${nameOf(chosen)} stands for the ${many(behind.length, 'endpoint')} of that service`,
  ]);
}

/** A pod that was enrolled here, and that the mesh does not know at all. */
function unknownPod({ mesh, pods }: ExplainWorld, text: string): PodRecord | undefined {
  const record = pods.find(({ pod }) => text === nameOf(pod) || text === pod.name);
  if (record === undefined) return undefined;
  return inNamespace(mesh, record.pod.namespace, record.pod.name) === undefined ? record : undefined;
}

function withIdentity(world: ExplainWorld, text: string): Source {
  const parsed = parseSpiffeId(text);
  if (parsed === undefined)
    throw bad(`from: ${quote(text)} is not of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`);
  const those = world.mesh.snapshot().workloads.filter((each) => identityOf(each) === text);
  const chosen = preferLocal(world, those);
  if (chosen === undefined)
    throw bad(`from: no pod of the mesh has the identity ${text}; ${hint(text, identities(world.mesh))}`);
  const alone = those.length === 1 ? 'is the pod with' : `stands for the ${many(those.length, 'pod')} with`;
  return sourceOf(world, chosen, [`${nameOf(chosen)} ${alone} that identity`]);
}

function sourceAt(world: ExplainWorld, address: Address): Source {
  const { mesh } = world;
  const workload = mesh.workloadAt(mesh.settings.network, address);
  if (workload !== undefined) return sourceOf(world, workload, []);
  const service = mesh.serviceAt(mesh.settings.network, address, undefined);
  if (service !== undefined)
    throw bad(
      `from: ${address} is the address of the service ${nameOf(service)}, and nobody connects from it; name a pod`,
    );
  return { name: address, workload: undefined, here: undefined, addresses: [address], notes: [] };
}

function sourceOf(world: ExplainWorld, workload: Workload, notes: readonly string[]): Source {
  const here = recordOf(world, workload);
  return { name: nameOf(workload), workload, here, addresses: workload.addresses, notes };
}

/** Of several that mean the same: one that this node knows most of. */
function preferLocal(world: ExplainWorld, workloads: readonly Workload[]): Workload | undefined {
  return (
    workloads.find((each) => recordOf(world, each)?.kind === 'enrolled') ??
    workloads.find(({ node }) => node === world.node) ??
    workloads[0]
  );
}

// --- where to ---------------------------------------------------------------------------------------------------------

/** @throws AgentError BAD_REQUEST: nobody is called so, or it needs a port */
export function findTarget(world: ExplainWorld, text: string, source: Source): Target {
  const { host, port } = splitPort(text);
  const address = parseAddress(host);
  return address === undefined ? named(world, host, port, source) : targetAt(world, address, port, source);
}

function splitPort(text: string): { host: string; port: number | undefined } {
  const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text);
  const plain = text.includes(':') && parseAddress(text) === undefined ? /^(.*):([^:]*)$/.exec(text) : null;
  const [, host = text, portText] = bracketed ?? plain ?? [];
  if (portText === undefined) return { host, port: undefined };
  const port = /^\d{1,5}$/.test(portText) ? Number(portText) : 0;
  if (port >= 1 && port <= 65_535) return { host, port };
  throw bad(`to: ${quote(portText)} is not a port, a whole number from 1 to 65535`);
}

function targetAt(world: ExplainWorld, address: Address, port: number | undefined, source: Source): Target {
  const { mesh } = world;
  const network = source.workload?.network ?? mesh.settings.network;
  const workload = mesh.workloadAt(network, address);
  const service = workload === undefined ? mesh.serviceAt(network, address, source.workload?.namespace) : undefined;
  const chosen = choosePort(address, port, service, workload);
  const endpoint = { address, port: chosen.port };
  const whose = workload === undefined ? service && `the service ${nameOf(service)}` : nameOf(workload);
  const name = whose === undefined ? formatEndpoint(endpoint) : `${whose} at ${formatEndpoint(endpoint)}`;
  return { name, destination: endpoint, service, workload, notes: chosen.notes };
}

function named(world: ExplainWorld, host: string, port: number | undefined, source: Source): Target {
  const found = find(world, host, 'to', source.workload?.namespace);
  return found.kind === 'service'
    ? targetService(world, found.service, port, source)
    : targetPod(world, found.workload, port, source);
}

function targetPod(world: ExplainWorld, workload: Workload, port: number | undefined, source: Source): Target {
  const name = nameOf(workload);
  const address = ofFamily(workload.addresses, source);
  if (address === undefined) throw bad(`to: ${name} has no address, so nobody connects to it directly`);
  const chosen = choosePort(name, port, undefined, workload);
  const service = world.mesh.service(
    serviceName({ namespace: workload.namespace, hostname: hostOf(world.mesh, name) }),
  );
  const also =
    service === undefined
      ? []
      : [`there is a service of this name, too; to ask for it, write its host, ${service.hostname}`];
  return {
    name: `${name}, port ${chosen.port}`,
    destination: { address, port: chosen.port },
    service: undefined,
    workload,
    notes: [...chosen.notes, ...also],
  };
}

function targetService(world: ExplainWorld, service: Service, port: number | undefined, source: Source): Target {
  const { mesh } = world;
  const network = source.workload?.network ?? mesh.settings.network;
  const chosen = choosePort(nameOf(service), port, service, undefined);
  const name = `the service ${nameOf(service)}, port ${chosen.port}`;
  const own = service.addresses.filter((each) => each.network === network).map(({ address }) => address);
  const address = ofFamily(own, source);
  if (address !== undefined)
    return { name, destination: { address, port: chosen.port }, service, workload: undefined, notes: chosen.notes };
  const behind = mesh.endpoints(service)[0];
  const direct = behind && ofFamily(behind.workload.addresses, source);
  if (behind === undefined || direct === undefined)
    throw bad(
      `to: the service ${nameOf(service)} has neither an address nor an endpoint, so there is nothing to connect to`,
    );
  const declared = service.ports.find(({ servicePort }) => servicePort === chosen.port);
  const target = behind.ports.get(chosen.port) || declared?.targetPort || chosen.port;
  return {
    name: `${nameOf(behind.workload)}, port ${target}`,
    destination: { address: direct, port: target },
    service: undefined,
    workload: behind.workload,
    notes: [
      ...chosen.notes,
      `the service ${nameOf(service)} has no address of its own, so the app chooses among its pods; ${nameOf(behind.workload)} stands for them`,
    ],
  };
}

/** The one that was given; else the only one that there is. */
function choosePort(
  name: string,
  port: number | undefined,
  service: Service | undefined,
  workload: Workload | undefined,
): { port: number; notes: readonly string[] } {
  if (port !== undefined) return { port, notes: [] };
  const known =
    service === undefined
      ? Object.values(workload?.services ?? {}).flatMap((ports) => ports.map(({ targetPort }) => targetPort))
      : service.ports.map(({ servicePort }) => servicePort);
  const [only, ...others] = [...new Set(known)].filter((each) => each > 0).sort((a, b) => a - b);
  if (only !== undefined && others.length === 0)
    return { port: only, notes: [`port ${only} is the only one known of it`] };
  const choice = only === undefined ? 'such as :8080' : `one of ${[only, ...others].slice(0, 10).join(', ')}`;
  throw bad(`to: say which port of ${name}: write ${name.includes(':') ? `[${name}]` : name}:PORT, ${choice}`);
}

/** Of the source's family, if there is one. */
function ofFamily(addresses: readonly Address[], { addresses: own }: Source): Address | undefined {
  const families = own.map(familyOf);
  return addresses.find((each) => families.includes(familyOf(each))) ?? addresses[0];
}

// --- names ------------------------------------------------------------------------------------------------------------

type Found =
  | { readonly kind: 'workload'; readonly workload: Workload }
  | { readonly kind: 'service'; readonly service: Service };

function find(world: ExplainWorld, text: string, field: 'from' | 'to', clientNamespace?: string): Found {
  const { mesh } = world;
  const [first = '', second, ...more] = text.split('/');
  if (more.length === 0 && second !== undefined) {
    const found = inNamespace(mesh, first, second);
    if (found !== undefined) return found;
  } else if (second === undefined) {
    const found = anywhere(mesh, text, field, clientNamespace);
    if (found !== undefined) return found;
  }
  throw bad(`${field}: the mesh knows no pod and no service called ${quote(text)}; ${hint(text, names(mesh))}`);
}

function inNamespace(mesh: ExplainMesh, namespace: string, name: string): Found | undefined {
  const { clusterId } = mesh.settings;
  const workload =
    mesh.workload(`${clusterId}//Pod/${namespace}/${name}`) ??
    mesh.workload(`${clusterId}/networking.istio.io/WorkloadEntry/${namespace}/${name}`);
  if (workload !== undefined) return { kind: 'workload', workload };
  const host = mesh.service(serviceName({ namespace, hostname: hostOf(mesh, `${namespace}/${name}`) }));
  const service = host ?? mesh.snapshot().services.find((each) => each.namespace === namespace && each.name === name);
  return service && { kind: 'service', service };
}

function anywhere(
  mesh: ExplainMesh,
  name: string,
  field: string,
  clientNamespace: string | undefined,
): Found | undefined {
  if (name.includes('.')) {
    const { clusterDomain } = mesh.settings;
    for (const host of [name, `${name}.${clusterDomain}`, `${name}.svc.${clusterDomain}`]) {
      const service = mesh.serviceByHostname(host, clientNamespace);
      if (service !== undefined) return { kind: 'service', service };
    }
  }
  const { workloads, services } = mesh.snapshot();
  const pods = workloads.filter((each) => each.name === name);
  const [pod] = pods;
  if (pods.length > 1) throw bad(`${field}: ${several(name, pods.map(nameOf))}`);
  if (pod !== undefined) return { kind: 'workload', workload: pod };
  const called = services.filter((each) => each.name === name);
  const near = called.find(({ namespace }) => namespace === clientNamespace);
  if (called.length > 1 && near === undefined) throw bad(`${field}: ${several(name, called.map(nameOf))}`);
  const service = near ?? called[0];
  return service && { kind: 'service', service };
}

function several(name: string, all: readonly string[]): string {
  const some = [...all].sort().slice(0, 5).join(', ');
  return `${all.length} are called ${quote(name)}: ${some}${all.length > 5 ? ' and more' : ''}; say which`;
}

function hostOf({ settings }: ExplainMesh, named: string): string {
  const [namespace, name] = named.split('/');
  return `${name}.${namespace}.svc.${settings.clusterDomain}`;
}

function names(mesh: ExplainMesh): readonly string[] {
  const { workloads, services } = mesh.snapshot();
  return [...workloads.map(nameOf), ...services.map(nameOf), ...services.map(({ hostname }) => hostname)];
}

function identities(mesh: ExplainMesh): readonly string[] {
  return [...new Set(mesh.snapshot().workloads.map((each) => identityOf(each)))];
}

function hint(text: string, all: readonly string[]): string {
  const near = nearNames(text, all);
  return near.length > 0
    ? `did you mean ${near.join(' or ')}?`
    : 'write NAMESPACE/NAME, the host of a service, or an address';
}

export function many(count: number, noun: string): string {
  return count === 1 ? `one ${noun}` : `${count} ${noun}s`;
}

function bad(message: string): AgentError {
  return new AgentError('BAD_REQUEST', message);
}

/** Text of a stranger, shortened and escaped for a message. */
function quote(text: string): string {
  return JSON.stringify(text.length > 64 ? `${text.slice(0, 64)}...` : text);
}
