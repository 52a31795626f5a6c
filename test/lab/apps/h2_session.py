"""One HTTP/2 session over TLS, and what h2-client.py and h2-server.py have in common: python3-h2, its flow control kept
by hand, so that nothing of it is ours.

Streams are byte pipes: `out` is sent as the peer's windows allow, what comes is counted and hashed.
"""
import argparse
import hashlib
import json
import os
import random
import selectors
import socket
import ssl
import sys
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from hyperframe.frame import GoAwayFrame

RECEIVE_BYTES = 65536
TEXT_CHARACTERS = 4096
printing = threading.Lock()


def say(event):
    with printing:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def name_of(code):
    """NO_ERROR rather than 0."""
    try:
        return h2.errors.ErrorCodes(code).name
    except ValueError:
        return str(code)


def endpoint(address):
    host = address[0].removeprefix("::ffff:")
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def arguments(description):
    """The parser, with what both ends take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert", help="own certificate chain, PEM")
    parser.add_argument("--key", help="its key, PEM")
    parser.add_argument("--roots", help="trusted roots, PEM; none: the peer is not checked")
    parser.add_argument("--tls", choices=["1.2", "1.3"], default="1.3")
    parser.add_argument("--alpn", default="h2")
    parser.add_argument("--header", action="append", default=[], help="NAME: VALUE, may be given several times")
    parser.add_argument("--window", type=int, default=65535, help="SETTINGS_INITIAL_WINDOW_SIZE")
    parser.add_argument("--frame", type=int, default=16384, help="SETTINGS_MAX_FRAME_SIZE")
    parser.add_argument("--table", type=int, default=4096, help="SETTINGS_HEADER_TABLE_SIZE")
    parser.add_argument("--max-streams", type=int, default=100, help="SETTINGS_MAX_CONCURRENT_STREAMS")
    parser.add_argument("--padding", action="store_true", help="pad DATA at random, and send some that is only padding")
    parser.add_argument("--split", type=int, help="header blocks in pieces of so many bytes: CONTINUATION")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def headers_of(options):
    """The --header options as pairs."""
    return [tuple(part.strip() for part in each.split(":", 1)) for each in options.header]


def tls_context(options, server_side):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    version = ssl.TLSVersion.TLSv1_2 if options.tls == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = version
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if options.roots else ssl.CERT_NONE
    if options.roots:
        context.load_verify_locations(options.roots)
    if options.cert:
        context.load_cert_chain(options.cert, options.key)
    if options.alpn:
        context.set_alpn_protocols([options.alpn])
    return context


def described(error):
    """What went wrong, in a word if there is one."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason
    return type(error).__name__ if isinstance(error, OSError) and not error.strerror else str(error)


class Connection(h2.connection.H2Connection):
    """Streams live on after a GOAWAY, as they should; h2 would take the session for over and forget what it has to send."""

    def _receive_goaway_frame(self, frame):
        event = h2.events.ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data
        return [], [event]


class Pipe:
    """One stream."""

    def __init__(self, number):
        self.number = number
        self.out = bytearray()
        self.ends = False  # END_STREAM is to follow what is in `out`
        self.sent = 0
        self.received = 0
        self.sent_hash = hashlib.sha256()
        self.received_hash = hashlib.sha256()
        self.text = ""
        self.has_ended = False  # we have
        self.peer_ended = False
        self.closed = False

    def write(self, data):
        self.out += data

    def take(self, data):
        self.received += len(data)
        self.received_hash.update(data)
        if len(self.text) < TEXT_CHARACTERS:
            self.text += data.decode("latin1")

    def report(self):
        text = {"text": self.text} if self.received <= TEXT_CHARACTERS else {}
        return {
            "stream": self.number,
            "sent": self.sent,
            "received": self.received,
            "sentHash": self.sent_hash.hexdigest(),
            "receivedHash": self.received_hash.hexdigest(),
            **text,
        }


class Session:
    """Who inherits overrides what concerns it: requested, answered, data, ended, reset, told."""

    def __init__(self, sock, options, client_side):
        self.sock = sock
        self.options = options
        self.random = random.Random(options.seed)
        self.pipes = {}
        self.stalled = {}  # bytes by stream that were received and not given back
        self.is_stalled = False
        self.goaway = None
        self.error = None
        self.over = False
        # What h2 checks of a request is not what a CONNECT is.
        self.connection = Connection(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding="latin1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        codes = h2.settings.SettingCodes
        self.connection.local_settings = h2.settings.Settings(
            client=client_side,
            initial_values={
                codes.INITIAL_WINDOW_SIZE: options.window,
                codes.MAX_FRAME_SIZE: options.frame,
                codes.HEADER_TABLE_SIZE: options.table,
                codes.MAX_CONCURRENT_STREAMS: options.max_streams,
                **({codes.ENABLE_PUSH: 0} if client_side else {}),
            },
        )
        self.connection.max_inbound_frame_size = options.frame
        self.connection.decoder.max_allowed_table_size = options.table
        self.connection.initiate_connection()
        self.selector = selectors.DefaultSelector()
        sock.setblocking(False)
        self.selector.register(sock, selectors.EVENT_READ, self.receive)
        self.raw = bytearray()

    # --- what happens ---

    def requested(self, pipe, headers):
        pass

    def answered(self, pipe, headers):
        pass

    def data(self, pipe, data):
        pass

    def ended(self, pipe):
        pass

    def reset(self, pipe, code):
        pass

    def told(self, settings):
        pass

    # --- what can be done ---

    def pipe(self, number):
        return self.pipes.setdefault(number, Pipe(number))

    def send_headers(self, number, headers, end_stream=False):
        """As one frame, or in pieces."""
        usual = self.connection.max_outbound_frame_size
        if self.options.split:
            self.connection.max_outbound_frame_size = self.options.split
            if number in self.connection.streams:
                self.connection.streams[number].max_outbound_frame_size = self.options.split
        self.connection.send_headers(number, headers, end_stream=end_stream)
        self.connection.max_outbound_frame_size = usual

    def send_reset(self, pipe, code):
        self.connection.reset_stream(pipe.number, error_code=h2.errors.ErrorCodes[code])
        pipe.closed = True

    def send_goaway(self, last, code="NO_ERROR"):
        """h2's own would let nothing more be sent."""
        frame = GoAwayFrame(0, last_stream_id=last, error_code=h2.errors.ErrorCodes[code])
        self.flush()
        self.raw += frame.serialize()

    def stall(self, is_stalled):
        """Gives nothing back of what it receives, or does so again."""
        self.is_stalled = is_stalled
        if is_stalled:
            return
        for number, count in self.stalled.items():
            if not self.pipes[number].closed:
                self.connection.acknowledge_received_data(count, number)
        self.stalled = {}

    # --- the loop ---

    def run(self):
        """Until it is over; the socket is closed then."""
        try:
            while not self.over:
                self.pump()
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.raw else 0)
                if self.selector.get_key(self.sock).events != wanted:
                    self.selector.modify(self.sock, wanted, self.receive)
                for key, _ in self.selector.select(0 if self.sock.pending() else None):
                    key.data()
                if self.sock.pending():
                    self.receive()
        except (OSError, h2.exceptions.H2Error) as error:
            self.error = described(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            self.flush_quietly()
        finally:
            self.selector.close()
            self.sock.close()

    def flush_quietly(self):
        try:
            self.pump()
        except (OSError, h2.exceptions.H2Error):
            pass

    def finish(self):
        """GOAWAY and the end."""
        self.connection.close_connection()
        self.flush()
        self.sock.setblocking(True)
        self.sock.settimeout(5)
        self.sock.sendall(bytes(self.raw))
        self.over = True

    def flush(self):
        self.raw += self.connection.data_to_send()

    def pump(self):
        """Whatever may be sent now is."""
        for pipe in list(self.pipes.values()):
            self.fill(pipe)
        self.flush()
        while self.raw:
            try:
                sent = self.sock.send(self.raw[:RECEIVE_BYTES])
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            del self.raw[:sent]

    def fill(self, pipe):
        """DATA of one stream, within the windows, and not too much ahead of the socket."""
        while pipe.out and not pipe.closed and len(self.raw) < 1 << 20:
            room = min(self.connection.local_flow_control_window(pipe.number), self.connection.max_outbound_frame_size)
            if room <= 0:
                return
            padding = None
            if self.options.padding and room > 2:
                padding = self.random.randrange(min(256, room - 1))
                if self.random.random() < 0.05:
                    self.connection.send_data(pipe.number, b"", pad_length=padding)
                    self.flush()
                    continue
            chunk = bytes(pipe.out[: room if padding is None else room - padding - 1])
            if not chunk:
                continue
            self.connection.send_data(pipe.number, chunk, pad_length=padding)
            del pipe.out[: len(chunk)]
            pipe.sent += len(chunk)
            pipe.sent_hash.update(chunk)
            self.flush()
        if pipe.ends and not pipe.out and not pipe.has_ended and not pipe.closed:
            self.connection.end_stream(pipe.number)
            pipe.has_ended = True
            self.close_if_done(pipe)

    def receive(self):
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        if not data:
            self.over = True
            return
        for event in self.connection.receive_data(data):
            self.handle(event)

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.requested(self.pipe(event.stream_id), dict_of(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            self.answered(self.pipe(event.stream_id), dict_of(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self.received(self.pipe(event.stream_id), event.data, event.flow_controlled_length)
        elif isinstance(event, h2.events.StreamEnded):
            pipe = self.pipe(event.stream_id)
            pipe.peer_ended = True
            self.ended(pipe)
            self.close_if_done(pipe)
        elif isinstance(event, h2.events.StreamReset):
            pipe = self.pipe(event.stream_id)
            pipe.closed = True
            self.reset(pipe, name_of(event.error_code))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = {"code": name_of(event.error_code), "last": event.last_stream_id}
            say({"event": "goaway", **self.goaway, "debug": (event.additional_data or b"").decode("latin1")})
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self.told({setting_name(code): change.new_value for code, change in event.changed_settings.items()})

    def received(self, pipe, data, length):
        pipe.take(data)
        if self.is_stalled:
            self.stalled[pipe.number] = self.stalled.get(pipe.number, 0) + length
        elif not pipe.closed and length > 0:
            self.connection.acknowledge_received_data(length, pipe.number)
        self.data(pipe, data)

    def close_if_done(self, pipe):
        if pipe.has_ended and pipe.peer_ended and not pipe.closed:
            pipe.closed = True
            say({"event": "ended", **self.label(), **pipe.report()})

    def label(self):
        """What its events are marked with."""
        return {}


def setting_name(code):
    try:
        return h2.settings.SettingCodes(code).name
    except ValueError:
        return str(code)


def dict_of(headers):
    """Of several with one name the values are joined by a comma."""
    found = {}
    for name, value in headers:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def lines_of(descriptor, take, ended):
    """A reader for a selector: calls `take` with every line, `ended` at the end."""
    held = bytearray()

    def read():
        data = os.read(descriptor, RECEIVE_BYTES)
        held.extend(data)
        while b"\n" in held:
            line, rest = bytes(held).split(b"\n", 1)
            held[:] = rest
            take(line.decode())
        if not data:
            ended()

    return read
