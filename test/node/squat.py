"""A process that takes every port it can get, and tells who comes.

  python3 squat.py [--address ADDR]... [--port N | --from N --to N] [--count N] [--reuseport]

Binds each address to each port (port 0: whatever the kernel gives, --count times), listens, and prints
{"event":"listening","taken":["ADDR:PORT"...],"refused":{"EADDRINUSE":N}}; then {"event":"accepted","at","peer"} of each
connection, which is closed at once.
"""
import argparse
import errno
import json
import resource
import selectors
import socket

parser = argparse.ArgumentParser()
parser.add_argument("--address", action="append")
parser.add_argument("--port", type=int, action="append", default=[])
parser.add_argument("--from", type=int, dest="first")
parser.add_argument("--to", type=int, dest="last")
parser.add_argument("--count", type=int, default=1)
parser.add_argument("--reuseport", action="store_true")
parser.add_argument("--udp", action="store_true", help="bind datagram sockets, which accept nobody")
options = parser.parse_args()
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
ports = options.port + (list(range(options.first, options.last + 1)) if options.first else [])
taken, refused = [], {}
selector = selectors.DefaultSelector()


def say(**event):
    print(json.dumps(event), flush=True)


def endpoint(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def take(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0 if port == 0 else 1)
        if options.reuseport:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((address, port))
        if not options.udp:
            server.listen(64)
            selector.register(server, selectors.EVENT_READ)
        taken.append((server, endpoint(server.getsockname())))
    except OSError as error:
        name = errno.errorcode.get(error.errno, str(error))
        refused[name] = refused.get(name, 0) + 1
        server.close()


for address in options.address:
    for port in ports:
        for _ in range(options.count):
            take(address, port)
say(event="listening", taken=[name for _, name in taken], refused=refused)
while True:
    for key, _ in selector.select():
        connection, peer = key.fileobj.accept()
        say(event="accepted", at=endpoint(key.fileobj.getsockname()), peer=endpoint(peer))
        connection.close()
