"""An HBONE client that is not ours: CONNECT over mutual TLS, with python3-h2.

  python3 h2-client.py --to ADDR --port N --cert FILE --key FILE --roots FILE --authority HOST:PORT [options]

Huffman and the dynamic table are always used. Every stream sends its bytes when it is answered with 200, then END_STREAM,
and reads to the other's.

Prints {"event":"connected",local,tls,cipher}, {"event":"settings",...} of the peer, and of each stream
{"event":"answer",stream,status,headers} and {"event":"ended",stream,sent,received,sentHash,receivedHash,text?} or
{"event":"reset",stream,code}; {"event":"goaway",code,last,debug}; last {"event":"over",local,error?,at?}, `at` one of
connect, tls, session. Ends with 0 if every stream was answered with 200 and has ended.
With --hold lines of standard input are sent on every stream, and {"event":"data",stream,text} is printed of what comes;
the end of standard input is END_STREAM.
"""
import random
import socket
import ssl
import sys

from h2_session import (Session, arguments, described, endpoint, headers_of, lines_of, say, tls_context)

parser = arguments(__doc__)
parser.add_argument("--to", required=True)
parser.add_argument("--bind", help="source address")
parser.add_argument("--method", default="CONNECT")
parser.add_argument("--authority", default="", help="empty: none is sent")
parser.add_argument("--streams", type=int, default=1, help="all are opened at once")
parser.add_argument("--bytes", type=int, help="random bytes that each sends")
parser.add_argument("--send", default="hello\n", help="what each sends, unless --bytes")
parser.add_argument("--end-last", action="store_true", help="END_STREAM only after the peer's")
parser.add_argument("--reset", help="RST_STREAM with this code once something has come back")
parser.add_argument("--tables", help="sizes of the dynamic table, comma-separated; the next one for each request")
parser.add_argument("--hold", action="store_true")
options = parser.parse_args()
seen = {}


class Client(Session):
    def __init__(self, sock):
        super().__init__(sock, options, True)
        self.good = 0
        self.opened = False

    def open(self):
        sizes = [int(size) for size in options.tables.split(",")] if options.tables else []
        request = [(":method", options.method)]
        if options.method != "CONNECT":
            request += [(":scheme", "https"), (":path", "/")]
        if options.authority:
            request.append((":authority", options.authority))
        for index in range(options.streams):
            if sizes:
                self.connection.encoder.header_table_size = sizes[index % len(sizes)]
            number = self.connection.get_next_available_stream_id()
            fields = [(name, value.replace("%", f"{index}")) for name, value in headers_of(options)]
            self.send_headers(number, request + fields)
            self.pipe(number)

    def told(self, settings):
        say({"event": "settings", **settings})
        # Only now is it known how many streams there may be, and how large the table.
        if not self.opened:
            self.opened = True
            self.open()

    def answered(self, pipe, headers):
        status = int(headers.pop(":status"))
        say({"event": "answer", "stream": pipe.number, "status": status, "headers": headers})
        if status != 200:
            return
        self.good += 1
        if options.bytes is not None:
            pipe.write(random.Random(options.seed * 1000 + pipe.number).randbytes(options.bytes))
        elif not options.hold:
            pipe.write(options.send.encode())
        pipe.ends = not options.end_last and not options.hold and options.reset is None

    def data(self, pipe, data):
        if options.hold:
            say({"event": "data", "stream": pipe.number, "text": data.decode("latin1")})
        if options.reset is not None and not pipe.closed:
            self.send_reset(pipe, options.reset)
            self.finish_if_done()

    def ended(self, pipe):
        # A refusal ends the stream; nothing is to be said on it.
        pipe.ends = True

    def reset(self, pipe, code):
        say({"event": "reset", "stream": pipe.number, "code": code})
        self.finish_if_done()

    def close_if_done(self, pipe):
        super().close_if_done(pipe)
        self.finish_if_done()

    def finish_if_done(self):
        if not self.over and all(pipe.closed for pipe in self.pipes.values()):
            self.finish()

    def obey(self, line):
        for pipe in self.pipes.values():
            pipe.write(f"{line}\n".encode())

    def release(self):
        self.selector.unregister(sys.stdin)
        for pipe in self.pipes.values():
            pipe.ends = True


def over(**failure):
    say({"event": "over", **seen, **failure})


at = "connect"
try:
    sock = socket.create_connection((options.to, options.port), 30, (options.bind, 0) if options.bind else None)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seen["local"] = endpoint(sock.getsockname())
    at = "tls"
    secure = tls_context(options, False).wrap_socket(sock)
except OSError as error:
    over(error=described(error), at=at)
    sys.exit(1)
say({"event": "connected", **seen, "tls": secure.version(), "cipher": secure.cipher()[0]})
client = Client(secure)
if options.hold:
    client.selector.register(sys.stdin, 1, lines_of(sys.stdin.fileno(), client.obey, client.release))
client.run()
finished = client.opened and all(pipe.closed for pipe in client.pipes.values())
lost = client.error or (None if finished else "ended by the peer")
over(**({"error": lost, "at": "session"} if lost else {}))
sys.exit(0 if lost is None and client.good == options.streams else 1)
