"""A TCP client without TCP sockets: makes its own packets, on a raw or a packet socket.

  python3 handmade.py raw|packet SOURCE-ADDRESS ADDRESS PORT

IPv4 only. The kernel, which knows nothing of the connection, would reset it: a rule that drops its resets must be there.
Prints {"reply"} to its line "hello", or {"error","at"}.
"""
import json
import os
import random
import socket
import struct
import sys
import time

kind, source, address, port = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
own_port = random.randrange(20000, 30000)
SYN, PUSH, ACK = 2, 8, 16
TIMEOUT_S, TRIES = 5, 200


def fail(error, at):
    print(json.dumps({"error": error, "at": at}))
    sys.exit(1)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(sequence, acknowledged, flags, payload=b""):
    head = struct.pack("!HHIIBBHHH", own_port, port, sequence, acknowledged, 5 << 4, flags, 65535, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(address) + struct.pack("!BBH", 0, 6, len(head) + len(payload))
    return head[:16] + struct.pack("!HH", checksum(pseudo + head + payload), 0) + payload


def datagram(tcp):
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0)
    head += socket.inet_aton(source) + socket.inet_aton(address)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


class Raw:
    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)

    def send(self, tcp):
        self.socket.sendto(tcp, (address, 0))


class Packet:
    def __init__(self):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.socket.bind(("eth0", 0x0800))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.sendto(b"", (address, 9))  # so that the kernel asks for the neighbour's address
        self.neighbour = self.find_neighbour()

    def find_neighbour(self):
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with open("/proc/net/arp") as table:
                rows = [line.split() for line in table]
            for row in rows:
                if row[0] == address and row[3] != "00:00:00:00:00:00":
                    return bytes.fromhex(row[3].replace(":", ""))
            time.sleep(0.01)
        return fail("no neighbour entry", "send")

    def send(self, tcp):
        self.socket.sendto(datagram(tcp), ("eth0", 0x0800, 0, 0, self.neighbour))


def receive(wire, at):
    """The next segment of the connection: flags, sequence number, payload."""
    for _ in range(TRIES):
        try:
            packet = wire.socket.recv(65535)
        except TimeoutError:
            fail("ETIMEDOUT", at)
        tcp = packet[(packet[0] & 15) * 4 : struct.unpack("!H", packet[2:4])[0]]
        if packet[9] != 6 or packet[12:16] != socket.inet_aton(address) or struct.unpack("!HH", tcp[:4]) != (port, own_port):
            continue
        if tcp[13] & 4:
            fail("ECONNREFUSED" if at == "connect" else "ECONNRESET", at)
        return tcp[13], struct.unpack("!I", tcp[4:8])[0], tcp[(tcp[12] >> 4) * 4 :]
    fail("too much else", at)


wire = Raw() if kind == "raw" else Packet()
wire.socket.settimeout(TIMEOUT_S)
begin = random.randrange(1 << 30)
wire.send(segment(begin, 0, SYN))
flags, theirs, _ = receive(wire, "connect")
wire.send(segment(begin + 1, theirs + 1, ACK))
wire.send(segment(begin + 1, theirs + 1, PUSH | ACK, b"hello\n"))
while True:
    flags, _, payload = receive(wire, "read")
    if payload:
        print(json.dumps({"reply": payload.decode().strip()}), flush=True)
        os._exit(0)
