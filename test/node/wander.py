"""Makes a socket in the network namespace it was started in, goes to another, and connects there.

  python3 wander.py NETNS ADDRESS PORT

Prints {"local","peer","reply"} or {"error","at"} as the lab's connect.py does.
"""
import ctypes
import errno
import json
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
netns, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
client.settimeout(30)
target = os.open(netns, os.O_RDONLY)
if ctypes.CDLL(None, use_errno=True).setns(target, CLONE_NEWNET):
    print(json.dumps({"error": errno.errorcode[ctypes.get_errno()], "at": "setns"}))
    sys.exit(1)


def endpoint(name):
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


at = "connect"
try:
    client.connect((address, port))
    seen = {"local": endpoint(client.getsockname()), "peer": endpoint(client.getpeername())}
    at = "send"
    client.sendall(b"hello\n")
    at = "read"
    reply = client.recv(4096)
    print(json.dumps({**seen, "reply": reply.decode().strip()} if reply else {**seen, "error": "EOF", "at": at}))
except OSError as error:
    name = "ETIMEDOUT" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))
    print(json.dumps({"error": name, "at": at}))
    sys.exit(1)
