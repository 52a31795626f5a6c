"""Two sockets with one source port, to two servers that tell their own address: does each get its own?

  python3 pairs.py SOURCE|- FIRST_PORT PAIRS ADDRESS:PORT ADDRESS:PORT

SOURCE is the address to bind, or - to bind the port alone. Connects all without waiting, prints {"event":"started"}, and
{"event":"end","answered","wrong","errors":{name: count}} when every server has answered. The clients speak first: with the
accept queue full the kernel makes SYN cookies, and only the client's data bring back a last ACK that was dropped.
"""
import collections
import errno
import json
import selectors
import socket
import sys

source, first_port, pairs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
targets = [(host.strip("[]"), int(port)) for host, port in (text.rsplit(":", 1) for text in sys.argv[4:6])]
family = socket.AF_INET6 if ":" in targets[0][0] else socket.AF_INET
wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"
errors = collections.Counter()
selector = selectors.DefaultSelector()
heard = {}


def name(error):
    return errno.errorcode.get(error.errno, str(error))


for index in range(pairs):
    for target in targets if index % 2 else reversed(targets):
        client = socket.socket(family)
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            client.bind((wildcard if source == "-" else source, first_port + index))
            code = client.connect_ex(target)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, "connect")
            selector.register(client, selectors.EVENT_WRITE, target)
            heard[client] = b""
        except OSError as error:
            errors[name(error)] += 1
print(json.dumps({"event": "started", "errors": errors}), flush=True)
answered = wrong = 0
while selector.get_map():
    for key, events in selector.select():
        client, target = key.fileobj, key.data
        try:
            if events & selectors.EVENT_WRITE:
                client.sendall(b"who are you?\n")
                selector.modify(client, selectors.EVENT_READ, target)
                continue
            chunk = client.recv(4096)
            if not chunk:
                raise OSError(errno.EPIPE, "an end before a word")
            heard[client] += chunk
            if b"\n" not in heard[client]:
                continue
            answered += 1
            said = json.loads(heard[client])["local"].replace("[::ffff:", "").replace("[", "").replace("]", "")
            shown = client.getpeername()[:2]
            wrong += said != f"{target[0]}:{target[1]}" or tuple(shown) != target
        except OSError as error:
            errors[name(error)] += 1
        selector.unregister(client)
        client.close()
print(json.dumps({"event": "end", "answered": answered, "wrong": wrong, "errors": errors}), flush=True)
