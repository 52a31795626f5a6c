"""A client that connects whenever it is told to: each connection sends a line and reads a line.

  python3 caller.py

Each line of standard input is one of
  {"id", "to", "port"}          connects, and prints {"id","local","peer","reply"}, or {"id","local","error","at","bytes"}
                                with `at` one of socket, connect, name, send, read, and `bytes` that had come before
  {"id", "to", "port", "hold"}  the same, but stays connected, and prints {"id","event":"over","how"} when it is over: the
                                error, or EOF for a clean end
  {"id", "talk": N}             sends a line on a held connection, and prints {"id","event":"talk","talk": N} when one has
                                come back
  {"id", "close"}               closes a held connection
Prints {"event":"started"} first. The end of a stream before a reply is the error EOF. Connections run side by side.
"""
import errno
import json
import select
import socket
import sys
import threading

PATIENCE_S = 60
printing = threading.Lock()
held = {}
talks = {}


def say(event):
    with printing:
        print(json.dumps(event), flush=True)


def endpoint(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def name_of(error):
    return "ETIMEDOUT" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, str(error))


def lines(client):
    data = b""
    while chunk := client.recv(65536):
        data += chunk
        *whole, data = data.split(b"\n")
        for line in whole:
            yield line.decode()


def connect(client, wanted, seen):
    """Its own name is read before it is connected: of a connection that was reset at once nothing is left afterwards."""
    client.setblocking(False)
    code = client.connect_ex((wanted["to"], wanted["port"]))
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, "connect")
    seen["local"] = endpoint(client.getsockname())
    if not select.select([], [client], [], PATIENCE_S)[1]:
        raise TimeoutError()
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "connect")
    client.settimeout(PATIENCE_S)


def first_call(client, wanted, seen):
    """Connects and asks. Returns the lines that come from then on; None: it failed, and has been told."""
    at = "connect"
    bytes_read = 0
    try:
        connect(client, wanted, seen)
        at = "name"
        seen["peer"] = endpoint(client.getpeername())
        at = "send"
        client.sendall(b"hello\n")
        at = "read"
        bytes_read = len(client.recv(1, socket.MSG_PEEK))
        coming = lines(client)
        reply = next(coming, None)
        if reply is None:
            say({**seen, "error": "EOF", "at": at, "bytes": bytes_read})
            return None
        say({**seen, "reply": reply})
        return coming
    except OSError as error:
        say({**seen, "error": name_of(error), "at": at, "bytes": bytes_read})
        return None


def call(wanted):
    seen = {"id": wanted["id"]}
    with socket.socket(socket.AF_INET6 if ":" in wanted["to"] else socket.AF_INET) as client:
        if "hold" in wanted:
            held[wanted["id"]] = client
        coming = first_call(client, wanted, seen)
        if coming is not None and "hold" in wanted:
            hold(client, coming, wanted["id"])


def hold(client, coming, own_id):
    how = "EOF"
    try:
        client.settimeout(None)
        for _ in coming:
            say({"id": own_id, "event": "talk", "talk": talks.get(own_id)})
    except OSError as error:
        how = name_of(error)
    say({"id": own_id, "event": "over", "how": how})


say({"event": "started"})
for line in sys.stdin:
    wanted = json.loads(line)
    own_id = wanted["id"]
    try:
        if "to" in wanted:
            threading.Thread(target=call, args=(wanted,), daemon=True).start()
        elif "talk" in wanted:
            talks[own_id] = wanted["talk"]
            held[own_id].sendall(b"again\n")
        else:
            held[own_id].shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # its own thread tells
