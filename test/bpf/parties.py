"""Both ends of connections, told line by line what to do: one JSON object in, one out.

Each {"do": ...}; {"error": NAME} where a call fails. A connection has the name that connect gave it, or, accepted, the address
of its peer as the operating system has it.
  listen   {bind, port, defer?, fastopen?, mptcp?}: everybody who is accepted there is told {who: "app", peer, local}
  connect  {name, to, port, mapped?, bind?, bindPort?, device?, mptcp?, fastopen?: "connect"|"sendto", again?, start?,
           userMs?: TCP_USER_TIMEOUT}
           {peer, local} once there is an answer; `again`: the same socket, after AF_UNSPEC if it is connected; `start`: no
           waiting; `finish` with the same name waits
  tell     {name, text}; hear {name}: reads a line; peek {name}: waits until there is something to read; drain {name}: reads to the end
  datagram {name, to, port, mapped?, connect?}: sends one by the UDP socket of that name, made if need be
  refused  {to, port, count}: so many connects, one after the other, that nobody answers
  shut, close, reset {name}; real {name}: the other end as procfs says, which no hook changes
"""
import ctypes
import errno
import json
import os
import select
import socket
import struct
import sys
import threading

TCP_FASTOPEN_CONNECT = 30
sockets = {}
accepted = threading.Condition()
libc = ctypes.CDLL(None, use_errno=True)


def plain(address):
    host = address[0].replace("::ffff:", "")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def words(text):
    raw = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def serve(listener):
    while True:
        connection, _ = listener.accept()
        connection.settimeout(20)
        try:
            seen = {"who": "app", "peer": plain(connection.getpeername()), "local": plain(connection.getsockname())}
            with accepted:
                sockets[seen["peer"]] = connection
                accepted.notify_all()
            connection.sendall(json.dumps(seen).encode() + b"\n")
        except OSError:
            pass  # It was reset meanwhile.


def of(order):
    with accepted:
        accepted.wait_for(lambda: order["name"] in sockets, 20)
        return sockets[order["name"]]


def listen(order):
    family = socket.AF_INET6 if ":" in order["bind"] else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, 262 if order.get("mptcp") else 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if order.get("fastopen"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    if order.get("defer"):
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, order["defer"])
    listener.bind((order["bind"], order["port"]))
    listener.listen(4096)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    return {}


def connect(order):
    to = "::ffff:" + order["to"] if order.get("mapped") else order["to"]
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    if order.get("again"):
        client = sockets[order["name"]]
        client.setblocking(False)
        libc.connect(client.fileno(), struct.pack("H14x", socket.AF_UNSPEC), 16)
    else:
        client = socket.socket(family, socket.SOCK_STREAM, 262 if order.get("mptcp") else 0)
        client.setblocking(False)
        sockets[order["name"]] = client
    if order.get("device"):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, order["device"].encode() + b"\0")
    if "bind" in order or "bindPort" in order:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"
        source = order.get("bind", wildcard)
        client.bind(("::ffff:" + source if order.get("mapped") and ":" not in source else source, order.get("bindPort", 0)))
    if order.get("userMs"):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, order["userMs"])
    if order.get("fastopen") == "connect":
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    if order.get("fastopen") == "sendto":
        try:
            client.sendto(b"early\n", socket.MSG_FASTOPEN, (to, order["port"]))
        except BlockingIOError:
            pass
    else:
        code = client.connect_ex((to, order["port"]))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, "connect")
    if order.get("start") or order.get("fastopen") == "connect":
        return {"local": plain(client.getsockname())}
    return finish(order)


def finish(order):
    client = sockets[order["name"]]
    select.select([], [client], [], 20)
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connect")
    client.settimeout(20)
    return {"peer": plain(client.getpeername()), "local": plain(client.getsockname())}


def datagram(order):
    to = "::ffff:" + order["to"] if order.get("mapped") else order["to"]
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    if order["name"] not in sockets:
        sockets[order["name"]] = socket.socket(family, socket.SOCK_DGRAM)
    if order.get("connect"):
        sockets[order["name"]].connect((to, order["port"]))
        try:
            sockets[order["name"]].send(b"hello")
        except ConnectionRefusedError:
            pass  # The answer to the one before.
    else:
        sockets[order["name"]].sendto(b"hello", (to, order["port"]))
    return {}


def refused(order):
    for _ in range(order["count"]):
        client = socket.socket()
        if client.connect_ex((order["to"], order["port"])) != errno.ECONNREFUSED:
            raise OSError(errno.EISCONN, "connect")
        client.close()
    return {}


def tell(order):
    of(order).sendall(order["text"].encode())
    return {}


def hear(order):
    client = of(order)
    client.settimeout(20)
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            return {"line": None}
        line += byte
    return {"line": line.decode().rstrip("\n")}


def peek(order):
    select.select([of(order)], [], [], 20)
    return {}


def drain(order):
    client = of(order)
    length = 0
    while True:
        chunk = client.recv(65536)
        if not chunk:
            return {"length": length}
        length += len(chunk)


def shut(order):
    of(order).shutdown(socket.SHUT_WR)
    return {}


def close(order):
    of(order).close()
    del sockets[order["name"]]
    return {}


def reset(order):
    of(order).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return close(order)


def real(order):
    inode = str(os.fstat(sockets[order["name"]].fileno()).st_ino)
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}") as lines:
            for fields in map(str.split, lines):
                if len(fields) > 9 and fields[9] == inode:
                    host, port = fields[2].split(":")
                    return {"to": plain((words(host), int(port, 16)))}
    return {"to": None}


for line in sys.stdin:
    order = json.loads(line)
    try:
        said = globals()[order["do"]](order)
    except OSError as error:
        said = {"error": errno.errorcode.get(error.errno, str(error))}
    print(json.dumps(said), flush=True)
