import { type Address, type Cidr, encodeAddress, encodeCidr, familyOf } from './address.ts';
import { ServiceRecord } from './service-record.ts';
import { type Service, type ServiceName, serviceName, type Workload } from './workload.ts';

/** Services by name, by address, by block and by hostname, with their endpoints. */
export class ServiceIndex {
  readonly #byName = new Map<ServiceName, ServiceRecord>();
  /** The outer keys are networks. Records in the order in which they were first seen. */
  readonly #byAddress = new Map<string, Map<Address, ServiceRecord[]>>();
  /** The outer keys are networks; longer prefixes first. */
  readonly #byBlock = new Map<string, Prefix[]>();
  /** Wildcards too, as they are written. */
  readonly #byHostname = new Map<string, ServiceRecord[]>();

  /** Without a service, if there are only endpoints that wait for it. */
  record(name: ServiceName): ServiceRecord | undefined {
    return this.#byName.get(name);
  }

  *services(): Generator<Service> {
    for (const { service } of this.#byName.values()) if (service !== undefined) yield service;
  }

  /** Wire contract, section 6.2: an address of its own before a block; `namespace` is the client's. */
  at(network: string, address: Address, namespace: string | undefined): Service | undefined {
    const exact = preferred(this.#byAddress.get(network)?.get(address), namespace);
    if (exact !== undefined) return exact;
    const prefixes = this.#byBlock.get(network);
    return prefixes && preferredBlock(prefixes, address, namespace);
  }

  /** The hostname itself, else the wildcard with the most labels. */
  withHostname(hostname: string, namespace: string | undefined): Service | undefined {
    const wanted = hostname.toLowerCase();
    const exact = preferred(this.#byHostname.get(wanted), namespace);
    if (exact !== undefined) return exact;
    for (let dot = wanted.indexOf('.'); dot !== -1; dot = wanted.indexOf('.', dot + 1)) {
      const wild = preferred(this.#byHostname.get(`*${wanted.slice(dot)}`), namespace);
      if (wild !== undefined) return wild;
    }
    return undefined;
  }

  /** Endpoints stay, and so does the place among those seen first. */
  put(service: Service): void {
    const record = this.#recordOf(serviceName(service));
    const old = record.service;
    record.service = service;
    if (old !== undefined && hasSamePlaces(old, service)) return;
    if (old !== undefined) this.#unlist(old, record);
    this.#list(service, record);
  }

  /** Its endpoints wait from then on. Returns whether it was known. */
  delete(name: ServiceName): boolean {
    const record = this.#byName.get(name);
    if (record?.service === undefined) return false;
    this.#unlist(record.service, record);
    record.service = undefined;
    if (record.isEmpty) this.#byName.delete(name);
    return true;
  }

  attach(workload: Workload): void {
    for (const [name, ports] of Object.entries(workload.services))
      this.#recordOf(name as ServiceName).add(workload, ports);
  }

  detach(workload: Workload): void {
    for (const key of Object.keys(workload.services)) {
      const name = key as ServiceName;
      const record = this.#byName.get(name);
      record?.delete(workload.uid);
      if (record?.isEmpty === true) this.#byName.delete(name);
    }
  }

  #recordOf(name: ServiceName): ServiceRecord {
    const found = this.#byName.get(name);
    if (found !== undefined) return found;
    const made = new ServiceRecord();
    this.#byName.set(name, made);
    return made;
  }

  #list(service: Service, record: ServiceRecord): void {
    add(this.#byHostname, service.hostname.toLowerCase(), record);
    for (const { network, address } of service.addresses) {
      const addresses = this.#byAddress.get(network) ?? new Map<Address, ServiceRecord[]>();
      this.#byAddress.set(network, addresses);
      add(addresses, address, record);
    }
    for (const { network, cidr } of service.addressBlocks) {
      const prefixes = this.#byBlock.get(network) ?? [];
      this.#byBlock.set(network, prefixes);
      addBlock(prefixes, cidr, record);
    }
  }

  #unlist(service: Service, record: ServiceRecord): void {
    remove(this.#byHostname, service.hostname.toLowerCase(), record);
    for (const { network, address } of service.addresses) {
      const addresses = this.#byAddress.get(network);
      if (addresses === undefined) continue;
      remove(addresses, address, record);
      if (addresses.size === 0) this.#byAddress.delete(network);
    }
    for (const { network, cidr } of service.addressBlocks) {
      const prefixes = this.#byBlock.get(network);
      if (prefixes === undefined) continue;
      removeBlock(prefixes, cidr, record);
      if (prefixes.length === 0) this.#byBlock.delete(network);
    }
  }
}

function hasSamePlaces(one: Service, other: Service): boolean {
  return (
    one.addresses.length === other.addresses.length &&
    one.addressBlocks.length === other.addressBlocks.length &&
    one.addresses.every((each, index) => {
      const twin = other.addresses[index];
      return each.network === twin?.network && each.address === twin.address;
    }) &&
    one.addressBlocks.every((each, index) => {
      const twin = other.addressBlocks[index];
      return each.network === twin?.network && each.cidr === twin.cidr;
    })
  );
}

function add<Key>(map: Map<Key, ServiceRecord[]>, key: Key, record: ServiceRecord): void {
  const records = map.get(key);
  if (records === undefined) map.set(key, [record]);
  else if (!records.includes(record)) records.push(record);
}

function remove<Key>(map: Map<Key, ServiceRecord[]>, key: Key, record: ServiceRecord): void {
  const rest = map.get(key)?.filter((each) => each !== record) ?? [];
  if (rest.length === 0) map.delete(key);
  else map.set(key, rest);
}

function isVisible(service: Service, namespace: string | undefined): boolean {
  return service.visibility === 'public' || namespace === undefined || service.namespace === namespace;
}

/** Of the client's own namespace; else canonical; else the first (wire contract, section 6.2). */
function preferred(records: readonly ServiceRecord[] | undefined, namespace: string | undefined): Service | undefined {
  let best: Service | undefined;
  let bestRank = -1;
  for (const { service } of records ?? []) {
    if (service === undefined || !isVisible(service, namespace)) continue;
    const rank = service.namespace === namespace ? 2 : service.canonical ? 1 : 0;
    if (rank <= bestRank) continue;
    best = service;
    bestRank = rank;
  }
  return best;
}

/** The blocks of one prefix length, by the bits that count. */
interface Prefix {
  readonly family: 4 | 6;
  /** Of the 16 bytes, so 96 more for IPv4. */
  readonly bits: number;
  readonly blocks: Map<string, ServiceRecord[]>;
}

function addBlock(prefixes: Prefix[], cidr: Cidr, record: ServiceRecord): void {
  const { address, bits, family } = encodeCidr(cidr);
  let prefix = prefixes.find((each) => each.bits === bits && each.family === family);
  if (prefix === undefined) {
    prefix = { bits, family, blocks: new Map() };
    prefixes.push(prefix);
    prefixes.sort((one, other) => other.bits - one.bits);
  }
  add(prefix.blocks, leadingBits(address, bits), record);
}

function removeBlock(prefixes: Prefix[], cidr: Cidr, record: ServiceRecord): void {
  const { address, bits, family } = encodeCidr(cidr);
  const place = prefixes.findIndex((each) => each.bits === bits && each.family === family);
  const prefix = prefixes[place];
  if (prefix === undefined) return;
  remove(prefix.blocks, leadingBits(address, bits), record);
  if (prefix.blocks.size === 0) prefixes.splice(place, 1);
}

/** Of the client's own namespace first, then the longest prefix, then canonical (wire contract, section 6.2). */
function preferredBlock(
  prefixes: readonly Prefix[],
  address: Address,
  namespace: string | undefined,
): Service | undefined {
  const bytes = encodeAddress(address);
  const family = familyOf(address);
  let best: Service | undefined;
  for (const prefix of prefixes) {
    if (prefix.family !== family) continue;
    // Within one prefix length: own namespace, canonical, first. A shorter one only wins by the namespace.
    const found = preferred(prefix.blocks.get(leadingBits(bytes, prefix.bits)), namespace);
    if (found === undefined) continue;
    if (found.namespace === namespace) return found;
    best ??= found;
  }
  return best;
}

function leadingBits(address: Uint8Array, bits: number): string {
  const length = Math.ceil(bits / 8);
  const bytes = Buffer.from(address.subarray(0, length));
  const over = length * 8 - bits;
  const last = bytes[length - 1];
  if (over > 0 && last !== undefined) bytes[length - 1] = (last >> over) << over;
  return bytes.toString('latin1');
}
