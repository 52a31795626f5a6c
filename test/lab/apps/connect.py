"""A client with every option a socket can have: connects, sends a line, reads a line.

  python3 connect.py --to ADDR --port N [options]

Prints {"peer","local","reply"}, or {"error","at"} with `at` one of socket, option, bind, connect, send, read; ends with
0 or 1. An end of the stream before a reply is the error EOF. Addresses as the operating system writes them.
With --hold it prints {"event":"connected",peer,local} first, and then takes lines from standard input: each is sent, and
{"reply"} printed; the end of standard input ends it.
"""
import argparse
import array
import errno
import json
import os
import selectors
import socket
import struct
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--mapped", action="store_true", help="AF_INET6 socket to the v4-mapped form of --to")
parser.add_argument("--bind", help="source address")
parser.add_argument("--bind-port", type=int, default=0)
parser.add_argument("--reuse", action="store_true", help="SO_REUSEADDR and SO_REUSEPORT, to share a source port")
parser.add_argument("--no-port", action="store_true", help="IP_BIND_ADDRESS_NO_PORT")
parser.add_argument("--nonblocking", action="store_true", help="connect without blocking, then wait with epoll")
parser.add_argument("--mark", type=lambda text: int(text, 0), help="SO_MARK")
parser.add_argument("--device", help="SO_BINDTODEVICE")
parser.add_argument("--mptcp", action="store_true")
parser.add_argument("--fastopen", action="store_true", help="sendto with MSG_FASTOPEN instead of connect")
parser.add_argument("--fastopen-connect", action="store_true", help="TCP_FASTOPEN_CONNECT")
parser.add_argument("--send", default="hello")
parser.add_argument("--listen-first", action="store_true", help="send nothing, wait for the server to speak")
parser.add_argument("--timeout", type=float, default=30)
parser.add_argument("--hold", action="store_true")
parser.add_argument("--wait", action="store_true", help="make the socket, print {event: made}, connect at a line of input")
parser.add_argument("--give", help="send the made socket to the process that takes at this path, and end")
parser.add_argument("--take", help="take the socket from the process that gives at this path")
options = parser.parse_args()
TCP_FASTOPEN_CONNECT = 30
IP_BIND_ADDRESS_NO_PORT = 24
at = "socket"
seen = {}


def say(event):
    print(json.dumps(event), flush=True)


def endpoint(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def wait_writable(client):
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_WRITE)
        if not selector.select(options.timeout):
            raise OSError(errno.ETIMEDOUT, "no answer")
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def read_line(client):
    data = b""
    while b"\n" not in data:
        if options.nonblocking:
            with selectors.DefaultSelector() as selector:
                selector.register(client, selectors.EVENT_READ)
                if not selector.select(options.timeout):
                    raise OSError(errno.ETIMEDOUT, "no reply")
        chunk = client.recv(65536)
        if not chunk:
            return None
        data += chunk
    return data.split(b"\n")[0].decode()


def taken_socket():
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.bind(options.take)
        door.listen(1)
        say({"event": "waiting"})
        giver, _ = door.accept()
        with giver:
            _, fds, _, _ = socket.recv_fds(giver, 1, 1)
        return socket.socket(fileno=fds[0])


def made_socket(family):
    global at
    client = socket.socket(family, socket.SOCK_STREAM, 262 if options.mptcp else 0)
    at = "option"
    if options.mark is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("I", options.mark))
    if options.device:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode() + b"\0")
    if options.reuse:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.no_port:
        client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    if options.fastopen_connect:
        client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
    return client


def ends_of(client):
    """Whom it is connected to, and as whom. One that was reset already has no peer any more: then the reset is the error."""
    try:
        return {"peer": endpoint(client.getpeername()), "local": endpoint(client.getsockname())}
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or errno.ECONNRESET
        raise OSError(code, os.strerror(code)) from error


def run():
    global at, seen
    to = f"::ffff:{options.to}" if options.mapped else options.to
    client = taken_socket() if options.take else made_socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    if options.give:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as taker:
            taker.connect(options.give)
            socket.send_fds(taker, [b"."], [client.fileno()])
        say({"event": "given"})
        return
    if options.wait:
        say({"event": "made"})
        sys.stdin.readline()
    at = "bind"
    if options.bind is not None or options.bind_port:
        source = options.bind or ("::" if ":" in to else "0.0.0.0")
        client.bind((f"::ffff:{source}" if options.mapped and ":" not in source else source, options.bind_port))
    request = (options.send + "\n").encode()
    at = "connect"
    client.settimeout(options.timeout)
    if options.fastopen:
        client.settimeout(None)  # without a cookie yet, a socket that does not block gets EINPROGRESS
        client.sendto(request, socket.MSG_FASTOPEN, (to, options.port))
    elif options.nonblocking:
        client.setblocking(False)
        code = client.connect_ex((to, options.port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        wait_writable(client)
    else:
        client.connect((to, options.port))
    if not options.fastopen_connect:  # which is not connected before it has sent
        seen = ends_of(client)
    if options.hold:
        say({"event": "connected", **seen})
        for line in sys.stdin:
            at = "send"
            client.sendall(line.encode())
            at = "read"
            say({"reply": read_line(client)})
        return
    at = "send"
    if not options.listen_first and not options.fastopen:
        client.sendall(request)
    at = "read"
    reply = read_line(client)
    if options.fastopen_connect:
        seen = ends_of(client)
    if reply is None:
        say({**seen, "error": "EOF", "at": at})
        sys.exit(1)
    say({**seen, "reply": reply})


began = time.monotonic()
try:
    run()
except OSError as error:
    name = "ETIMEDOUT" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))
    say({**seen, "error": name, "at": at, "after_ms": round((time.monotonic() - began) * 1000)})
    sys.exit(1)
