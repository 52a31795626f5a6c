"""A server with a thread per connection, on blocking sockets.

  python3 echo.py --bind ADDR --port N [--mode echo|tell|greet] [--v6only] [--mptcp] [--fastopen] [--device IF]

Modes as in echo.ts. Prints {"event":"listening"}, and of each connection {"event":"accepted", "peer": what getpeername
says, "accepted": what accept said, "local"}; addresses as the operating system writes them. {"event":"error","error"}
and exit code 1 when it cannot bind or listen.
"""
import argparse
import errno
import json
import os
import socket
import threading

parser = argparse.ArgumentParser()
parser.add_argument("--bind", default="::")
parser.add_argument("--port", type=int, default=0)
parser.add_argument("--mode", default="echo", choices=["echo", "tell", "greet"])
parser.add_argument("--v6only", action="store_true")
parser.add_argument("--mptcp", action="store_true")
parser.add_argument("--fastopen", action="store_true")
parser.add_argument("--reuseport", action="store_true")
parser.add_argument("--device")
options = parser.parse_args()
lock = threading.Lock()


def say(**event):
    with lock:
        print(json.dumps(event), flush=True)


def endpoint(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def serve(connection, accepted):
    try:
        seen = {"peer": endpoint(connection.getpeername()), "local": endpoint(connection.getsockname())}
        say(event="accepted", accepted=endpoint(accepted), **seen)
        if options.mode == "greet":
            connection.sendall((json.dumps(seen) + "\n").encode())
        if options.mode == "tell":
            for line in connection.makefile("r"):
                connection.sendall((json.dumps({**seen, "got": line.rstrip("\n")}) + "\n").encode())
        else:
            while chunk := connection.recv(65536):
                connection.sendall(chunk)
    except OSError as error:
        say(event="failed", error=errno.errorcode.get(error.errno, str(error)))
    finally:
        connection.close()


family = socket.AF_INET6 if ":" in options.bind else socket.AF_INET
try:
    server = socket.socket(family, socket.SOCK_STREAM, 262 if options.mptcp else 0)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuseport:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options.v6only))
    if options.device:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode() + b"\0")
    server.bind((options.bind, options.port))
    if options.fastopen:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 64)
    server.listen(1024)
except OSError as error:
    say(event="error", error=errno.errorcode.get(error.errno, str(error)))
    os._exit(1)
say(event="listening", port=server.getsockname()[1])
while True:
    threading.Thread(target=serve, args=server.accept(), daemon=True).start()
