/** What crossed an interface: a packet capture that can be searched for payload bytes. */
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { LabError } from './names.ts';
import type { LabProcess } from './process.ts';

export interface Packet {
  /** `tcp`, `udp`, or the number of another IP protocol, or `ethertype 0x...` of what is not IP. */
  readonly protocol: string;
  /** Sender and receiver; undefined for what is not IP. */
  readonly source: string | undefined;
  readonly destination: string | undefined;
  readonly sourcePort: number | undefined;
  readonly destinationPort: number | undefined;
  /** TCP flags, e.g. `SA`; empty for anything else. */
  readonly flags: string;
  /** What TCP, UDP, or else the frame carries. */
  readonly payload: Buffer;
  /** TCP sequence number. */
  readonly sequence: number;
}

export type PacketFilter = (packet: Packet) => boolean;

/** Packets of an interface, in order. */
export class Captured {
  readonly packets: readonly Packet[];

  constructor(packets: readonly Packet[]) {
    this.packets = packets;
  }

  /** Only the packets that pass. */
  filter(filter: PacketFilter): Captured {
    return new Captured(this.packets.filter(filter));
  }

  /** Only packets between these two, both ways; an address, or address and port. */
  between(one: string, other: string): Captured {
    const matches = (address: string | undefined, port: number | undefined, wanted: string): boolean =>
      address === wanted || formatted(address, port) === wanted;
    const leads = (packet: Packet, from: string, to: string): boolean =>
      matches(packet.source, packet.sourcePort, from) && matches(packet.destination, packet.destinationPort, to);
    return this.filter((packet) => leads(packet, one, other) || leads(packet, other, one));
  }

  /** True if the bytes occur in a packet, or in a TCP stream across packets. */
  contains(needle: string | Uint8Array): boolean {
    const bytes = typeof needle === 'string' ? Buffer.from(needle) : needle;
    if (bytes.length === 0) throw new LabError('an empty needle is in every capture');
    return (
      this.packets.some((packet) => packet.payload.includes(bytes)) || this.streams().some((run) => run.includes(bytes))
    );
  }

  /** Bytes that TCP and UDP carried. Retransmitted ones count again. */
  payloadBytes(filter: PacketFilter = () => true): number {
    return this.packets
      .filter((packet) => packet.sourcePort !== undefined && filter(packet))
      .reduce((sum, packet) => sum + packet.payload.length, 0);
  }

  /** Each direction of each TCP connection, put together again; a gap in it begins a new run. */
  streams(): Buffer[] {
    return connections(this.packets).flatMap(runs);
  }
}

/** A capture that is running. */
export class Capture {
  readonly #process: LabProcess;
  readonly #file: string;

  constructor(process: LabProcess, file: string) {
    this.#process = process;
    this.#file = file;
  }

  /**
   * Ends the capture with everything that has crossed up to now.
   *
   * @throws LabError if the kernel had to drop packets: such a capture proves nothing
   */
  async stop(): Promise<Captured> {
    this.#process.end();
    const { dropped } = await this.#process.json();
    await this.#process.exit;
    if (dropped !== 0) throw new LabError(`the capture missed ${dropped} packets`);
    return new Captured(parsePcap(readFileSync(this.#file)));
  }
}

function formatted(address: string | undefined, port: number | undefined): string {
  return address === undefined || isIPv4(address) ? `${address}:${port}` : `[${address}]:${port}`;
}

/** Splits the TCP packets by connection and direction; a SYN begins a new one. */
function connections(packets: readonly Packet[]): Packet[][] {
  const all: Packet[][] = [];
  const open = new Map<string, Packet[]>();
  for (const packet of packets) {
    if (packet.protocol !== 'tcp') continue;
    const key = `${packet.source} ${packet.sourcePort} ${packet.destination} ${packet.destinationPort}`;
    let flow = open.get(key);
    if (!flow || (packet.flags.includes('S') && flow.at(0)?.sequence !== packet.sequence)) {
      flow = [];
      open.set(key, flow);
      all.push(flow);
    }
    flow.push(packet);
  }
  return all;
}

/** The bytes of one direction, in the order of their sequence numbers, each once. */
function runs(flow: readonly Packet[]): Buffer[] {
  const first = flow.at(0);
  if (!first) return [];
  let latest = 0;
  const segments = flow
    .map((packet) => {
      // Sequence numbers wrap at 32 bits: unwrap each against the one before it.
      const syn = packet.flags.includes('S') ? 1 : 0;
      latest += (packet.sequence + syn - first.sequence - latest) | 0;
      return { at: latest, bytes: packet.payload };
    })
    .filter(({ bytes }) => bytes.length > 0)
    .sort((a, b) => a.at - b.at);
  const done: Buffer[] = [];
  let run: Buffer[] = [];
  let end: number | undefined;
  for (const { at, bytes } of segments) {
    if (end === undefined || at > end) {
      if (run.length > 0) done.push(Buffer.concat(run));
      run = [];
      end = at;
    }
    if (at + bytes.length <= end) continue;
    run.push(bytes.subarray(end - at));
    end = at + bytes.length;
  }
  if (run.length > 0) done.push(Buffer.concat(run));
  return done;
}

const pcapHeaderBytes = 24;
const recordHeaderBytes = 16;

/** Reads a pcap file of Ethernet frames in this machine's byte order (little endian). */
export function parsePcap(file: Buffer): Packet[] {
  const packets: Packet[] = [];
  for (let at = pcapHeaderBytes; at + recordHeaderBytes <= file.length; ) {
    const bytes = file.readUInt32LE(at + 8);
    at += recordHeaderBytes;
    packets.push(parseFrame(file.subarray(at, at + bytes)));
    at += bytes;
  }
  return packets;
}

const ethernetBytes = 14;
const ipv6Extensions = new Set([0, 43, 60]);

function parseFrame(frame: Buffer): Packet {
  if (frame.length >= ethernetBytes) {
    const type = frame.readUInt16BE(12);
    const packet = frame.subarray(ethernetBytes);
    if (type === 0x0800 && packet.length >= 20) return parseIpv4(packet);
    if (type === 0x86dd && packet.length >= 40) return parseIpv6(packet);
    return opaque(`ethertype 0x${type.toString(16).padStart(4, '0')}`, packet);
  }
  return opaque('ethertype none', frame);
}

function opaque(protocol: string, payload: Buffer, source?: string, destination?: string): Packet {
  return {
    protocol,
    source,
    destination,
    sourcePort: undefined,
    destinationPort: undefined,
    flags: '',
    payload,
    sequence: 0,
  };
}

function parseIpv4(packet: Buffer): Packet {
  const headerBytes = ((packet[0] ?? 0) & 0x0f) * 4;
  // Zero in a segment that was too long to say so.
  const totalBytes = packet.readUInt16BE(2) || packet.length;
  const body = packet.subarray(headerBytes, totalBytes);
  const source = [...packet.subarray(12, 16)].join('.');
  const destination = [...packet.subarray(16, 20)].join('.');
  const fragmentOffset = packet.readUInt16BE(6) & 0x1fff;
  return parseTransport(fragmentOffset ? -1 : (packet[9] ?? 0), body, source, destination);
}

function parseIpv6(packet: Buffer): Packet {
  const length = packet.readUInt16BE(4) || packet.length - 40;
  let body = packet.subarray(40, 40 + length);
  let next = packet[6] ?? 0;
  while (ipv6Extensions.has(next) && body.length >= 8) {
    next = body[0] ?? 0;
    body = body.subarray(((body[1] ?? 0) + 1) * 8);
  }
  return parseTransport(next, body, ipv6Text(packet.subarray(8, 24)), ipv6Text(packet.subarray(24, 40)));
}

function ipv6Text(bytes: Buffer): string {
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16));
  // The URL parser writes the canonical form.
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
}

function parseTransport(protocol: number, body: Buffer, source: string, destination: string): Packet {
  if (protocol === 6 && body.length >= 20) {
    const bits = body[13] ?? 0;
    return {
      protocol: 'tcp',
      source,
      destination,
      sourcePort: body.readUInt16BE(0),
      destinationPort: body.readUInt16BE(2),
      flags: [...'FSRPAUEC'].filter((_, bit) => bits & (1 << bit)).join(''),
      payload: body.subarray(((body[12] ?? 0) >> 4) * 4),
      sequence: body.readUInt32BE(4),
    };
  }
  if (protocol === 17 && body.length >= 8)
    return {
      ...opaque('udp', body.subarray(8), source, destination),
      sourcePort: body.readUInt16BE(0),
      destinationPort: body.readUInt16BE(2),
    };
  return opaque(`${protocol}`, body, source, destination);
}
