"""A round of traffic from one pod. Arguments: KIND:COUNT:ADDRESS:PORT, taken in turn. Prints how many came to their end as
{"done": N, "failed": N}; that some fail is the purpose.

tcp    an exchange that both sides end in good order
reset  an exchange that the client ends by a reset
udp    a datagram
raw    a raw socket for TCP is made (needs CAP_NET_RAW)
"""

import json
import socket
import struct
import sys

TIMEOUT_SECONDS = 10


def exchange(address, port, is_reset):
    with socket.create_connection((address, port), TIMEOUT_SECONDS) as client:
        client.sendall(b"plum" * 256)
        if not is_reset:
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
            return
        if not client.recv(1):
            raise ConnectionError("no answer")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def once(kind, address, port):
    if kind == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect((address, port))
            sender.send(b"plum")
    elif kind == "raw":
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP).close()
    else:
        exchange(address, port, kind == "reset")


result = {"done": 0, "failed": 0}
for argument in sys.argv[1:]:
    kind, count, address, port = argument.split(":")
    for _ in range(int(count)):
        try:
            once(kind, address, int(port))
            result["done"] += 1
        except OSError:
            result["failed"] += 1
print(json.dumps(result))
