"""Packets of a TCP connection that claim to come from somebody else. Needs CAP_NET_RAW.

  python3 forge.py --source ADDR --to ADDR --port N [--source-port N] [--mark N] [--count N]

Sends what a client would send, blindly: a SYN, then acknowledgements of guessed numbers with data. With --count, from as many
ports from --source-port on.
"""
import argparse
import random
import socket
import struct

parser = argparse.ArgumentParser()
parser.add_argument("--source", required=True)
parser.add_argument("--to", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--source-port", type=int, default=20000)
parser.add_argument("--mark", type=lambda text: int(text, 0))
parser.add_argument("--count", type=int, default=1)
options = parser.parse_args()
SYN, PUSH, ACK = 2, 8, 16
family = socket.AF_INET6 if ":" in options.to else socket.AF_INET
source, to = (socket.inet_pton(family, each) for each in (options.source, options.to))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def segment(source_port, sequence, acknowledged, flags, payload=b""):
    head = struct.pack("!HHIIBBHHH", source_port, options.port, sequence, acknowledged, 5 << 4, flags, 65535, 0, 0)
    pseudo = source + to + struct.pack("!II", len(head) + len(payload), socket.IPPROTO_TCP)
    return head[:16] + struct.pack("!HH", checksum(pseudo + head + payload), 0) + payload


def packet(tcp):
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + source + to + tcp
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), random.randrange(1 << 16), 0, 64, socket.IPPROTO_TCP, 0)
    head += source + to
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + tcp


with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as wire:
    if options.mark is not None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", options.mark))
    for source_port in range(options.source_port, options.source_port + options.count):
        begin = random.randrange(1 << 30)
        wire.sendto(packet(segment(source_port, begin, 0, SYN)), (options.to, 0))
        for _ in range(8):
            guess = random.randrange(1 << 32)
            wire.sendto(packet(segment(source_port, begin + 1, guess, PUSH | ACK, b"forged\n")), (options.to, 0))
