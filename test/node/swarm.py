"""A great many destinations, and connections to them.

  python3 swarm.py serve --port N --ports N              listens on all of these ports; ends whatever connects
  python3 swarm.py visit --to ADDR --port N --ports N    connects to one port after the other, and waits for the end of each
  python3 swarm.py begin --to ADDR --port N --ports N --count N    begins so many connects in turn, and waits for none

Prints {"event":"listening"}, or {"event":"done","errors"} with how many connects failed, by errno name. What serves, and
what has begun, goes on until the end of standard input.
"""
import argparse
import collections
import errno
import json
import selectors
import socket
import sys

parser = argparse.ArgumentParser()
parser.add_argument("do", choices=["serve", "visit", "begin"])
parser.add_argument("--to", default="::")
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--ports", type=int, default=1)
parser.add_argument("--count", type=int, default=0)
options = parser.parse_args()
family = socket.AF_INET6 if ":" in options.to else socket.AF_INET
ports = range(options.port, options.port + options.ports)
errors = collections.Counter()
kept = []


def say(**event):
    print(json.dumps(event), flush=True)


def serve():
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for port in ports:
        selector.register(socket.create_server(("::", port), family=family, dualstack_ipv6=True), selectors.EVENT_READ)
    say(event="listening")
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return
            key.fileobj.accept()[0].close()


def visit():
    for port in ports:
        try:
            with socket.create_connection((options.to, port), timeout=30) as client:
                client.recv(1)
        except OSError as error:
            errors[errno.errorcode.get(error.errno, str(error))] += 1
    say(event="done", errors=errors)


def begin():
    for at in range(options.count):
        client = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        code = client.connect_ex((options.to, ports[at % len(ports)]))
        if code not in (0, errno.EINPROGRESS):
            errors[errno.errorcode[code]] += 1
        kept.append(client)
    say(event="done", errors=errors)
    sys.stdin.read()


{"serve": serve, "visit": visit, "begin": begin}[options.do]()
