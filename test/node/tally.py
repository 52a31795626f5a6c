"""Connects many times and counts who answers.

  python3 tally.py --to ADDR --port N [--count N] [--at-once N] [--wait]

Opens so many at once, asks each, closes them, and begins anew until all were opened. The servers must tell (echo.ts --mode
tell). Prints {"answers": {local endpoint of a server: count}, "asItself": how many clients the servers saw under the
client's own address and port, "errors": {name: count}}. With --wait it says {"event": "open"} when so many are open, and
asks them only after a line of standard input.
"""
import argparse
import collections
import errno
import json
import socket
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--count", type=int, default=1)
parser.add_argument("--at-once", type=int, default=1)
parser.add_argument("--wait", action="store_true")
options = parser.parse_args()
answers = collections.Counter()
errors = collections.Counter()
as_itself = 0


def plain(endpoint):
    return endpoint.replace("[::ffff:", "").replace("]", "") if endpoint.startswith("[::ffff:") else endpoint


def own(client):
    host, port = client.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def failed(error):
    errors[errno.errorcode.get(error.errno, type(error).__name__)] += 1


def connect():
    try:
        return socket.create_connection((options.to, options.port), 30)
    except OSError as error:
        failed(error)
        return None


def ask(client):
    global as_itself
    try:
        client.sendall(b"who are you?\n")
        line = client.makefile().readline()
        if not line:
            raise OSError(errno.EPIPE, "an end before a word")
        said = json.loads(line)
        answers[plain(said["local"])] += 1
        as_itself += plain(said["peer"]) == own(client)
    except OSError as error:
        failed(error)


for begun in range(0, options.count, options.at_once):
    opened = [connect() for _ in range(min(options.at_once, options.count - begun))]
    clients = [client for client in opened if client is not None]
    if options.wait:
        print(json.dumps({"event": "open", "open": len(clients)}), flush=True)
        sys.stdin.readline()
    for client in clients:
        ask(client)
    for client in clients:
        client.close()
print(json.dumps({"answers": answers, "asItself": as_itself, "errors": errors}))
