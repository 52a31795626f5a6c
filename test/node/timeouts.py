"""An app that sets keepalive or a user time-out on its socket, and tells how its connection ends.

timeouts.py connect HOST PORT before|after NAME=VALUE...
timeouts.py serve HOST PORT after NAME=VALUE...

Prints {event: listening} (serve), {event: ready} when something has gone both ways and all is set, and at last
{event: ended, error}. A line of standard input makes it send once more: only then is there something to acknowledge.
"""
import errno
import json
import socket
import sys
import threading

names = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
}


def say(**fields):
    print(json.dumps(fields), flush=True)


def set_all(connection, settings):
    for setting in settings:
        name, value = setting.split("=")
        connection.setsockopt(*names[name], int(value))


def send_when_told(connection):
    for _ in sys.stdin:
        try:
            connection.sendall(b"more")
        except OSError:
            return


role, host, port, when, *settings = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
connection = socket.socket(family)
if role == "serve":
    listener = connection
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen()
    say(event="listening")
    connection, _ = listener.accept()
    connection.recv(16)
    connection.sendall(b"hello")
else:
    if when == "before":
        set_all(connection, settings)
    connection.connect((host, int(port)))
    connection.sendall(b"hello")
    connection.recv(16)
if when == "after":
    set_all(connection, settings)
say(event="ready")
threading.Thread(target=send_when_told, args=(connection,), daemon=True).start()
try:
    ended = "end" if connection.recv(16) == b"" else "answer"
except OSError as error:
    ended = errno.errorcode.get(error.errno, str(error))
say(event="ended", error=ended)
