"""Many connections, one side of which writes as fast as it can, while the other does not read before it is told to.

  python3 flood.py --port N --do write|stall                        serves
  python3 flood.py --port N --do write|stall --to ADDR --count N    connects

Prints {"event":"listening"}, or {"event":"open"} when all are connected. Obeys lines of standard input:
  state   prints {"event":"state","open","bytes","least"}: connections, bytes that were written or read on all, and on the
          one with the fewest
  stop    the writer ends what it writes
  read    the reader reads, to the end; prints {"event":"read","bytes","ended","errors":{name: count}} when all have ended
"""
import argparse
import collections
import errno
import json
import selectors
import socket
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--do", choices=["write", "stall"], required=True)
parser.add_argument("--to")
parser.add_argument("--count", type=int, default=1)
options = parser.parse_args()
chunk = b"x" * 65536
selector = selectors.DefaultSelector()
passed = collections.Counter()
errors = collections.Counter()
sockets = []
reading = stopped = False
ended = 0


def say(**event):
    print(json.dumps(event), flush=True)


def attend(connection):
    connection.setblocking(False)
    sockets.append(connection)
    passed[connection] = 0
    if options.do == "write" and not stopped:
        selector.register(connection, selectors.EVENT_WRITE, write)
    elif options.do == "stall" and reading:
        selector.register(connection, selectors.EVENT_READ, read)


def accept(listener):
    attend(listener.accept()[0])


def over(connection, error=None):
    global ended
    selector.unregister(connection)
    if error is not None:
        errors[errno.errorcode.get(error.errno, str(error))] += 1
    ended += 1
    if options.do == "stall" and ended == len(sockets):
        say(event="read", bytes=passed.total(), ended=ended, errors=errors)


def write(connection):
    try:
        passed[connection] += connection.send(chunk)
    except BlockingIOError:
        pass
    except OSError as error:
        over(connection, error)


def read(connection):
    try:
        data = connection.recv(1 << 20)
        passed[connection] += len(data)
        if not data:
            over(connection)
            connection.close()
    except BlockingIOError:
        pass
    except OSError as error:
        over(connection, error)


def obey(stdin):
    global reading, stopped
    line = stdin.readline().strip()
    if line == "":
        sys.exit()
    if line == "state":
        say(event="state", open=len(sockets), bytes=passed.total(), least=min(passed.values(), default=0))
    elif line == "stop":
        stopped = True
        for connection in sockets:
            if connection in selector.get_map():
                selector.unregister(connection)
                connection.shutdown(socket.SHUT_WR)
    elif line == "read":
        reading = True
        for connection in sockets:
            selector.register(connection, selectors.EVENT_READ, read)


selector.register(sys.stdin, selectors.EVENT_READ, obey)
if options.to is None:
    listener = socket.create_server(("::", options.port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True)
    selector.register(listener, selectors.EVENT_READ, accept)
    say(event="listening")
else:
    for _ in range(options.count):
        attend(socket.create_connection((options.to, options.port)))
    say(event="open")
while True:
    for key, _ in selector.select():
        key.data(key.fileobj)
