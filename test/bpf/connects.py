"""Connects sockets of every kind, and says what became of each: one JSON object in, one out, per line.

In: {"to", "port", "mapped"?, "bind"?, "bindPort"?, "device"?, "kind"?: "stream" | "udp" | "mptcp"}.
Out: {"real": where the packets go, as netlink and procfs say, which pass no hook; "peer": getpeername; "local": getsockname}
or {"error"}. `real` is there also while nobody has answered.
"""
import errno
import json
import os
import select
import socket
import sys


def endpoint(address):
    host = address[0].replace("::ffff:", "")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def words(text):
    raw = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def real(client, table):
    inode = str(os.fstat(client.fileno()).st_ino)
    for name in (table, table + "6"):
        with open(f"/proc/net/{name}") as lines:
            for fields in map(str.split, lines):
                if len(fields) > 9 and fields[9] == inode:
                    host, port = fields[2].split(":")
                    return endpoint((words(host), int(port, 16)))
    return None


for line in sys.stdin:
    row = json.loads(line)
    kind = row.get("kind", "stream")
    to = "::ffff:" + row["to"] if row.get("mapped") else row["to"]
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    client = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, 262 if kind == "mptcp" else 0)
    client.setblocking(False)
    said = {}
    try:
        if row.get("device"):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, row["device"].encode() + b"\0")
        if "bind" in row or "bindPort" in row:
            wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"
            source = row.get("bind", wildcard)
            client.bind(("::ffff:" + source if row.get("mapped") and ":" not in source else source, row.get("bindPort", 0)))
        code = client.connect_ex((to, row["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
        if kind != "mptcp":
            said["real"] = real(client, "udp" if kind == "udp" else "tcp")
        if row.get("answered"):
            select.select([], [client], [], 20)
            code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, "connect")
            said["peer"] = endpoint(client.getpeername())
        said["local"] = endpoint(client.getsockname())
    except OSError as error:
        said = {"error": errno.errorcode.get(error.errno, str(error))}
    client.close()
    print(json.dumps(said), flush=True)
