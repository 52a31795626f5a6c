"""An HBONE server that is not ours: the far end of a tunnel, with python3-h2.

  python3 h2-server.py --port N --cert FILE --key FILE --roots FILE [options]

Answers CONNECT with 200 and gives back what comes; Huffman and the dynamic table are always used.

Prints {"event":"listening",port}; of each connection {"event":"session",session,peer,tls} or {"event":"refused",peer,error},
{"event":"settings",session,...} of the peer, and {"event":"closed",session,error?}; of each stream
{"event":"request",session,stream,headers}, {"event":"ended",session,stream,received,...} as h2-client.py, and
{"event":"reset",session,stream,received,code}; {"event":"goaway",code,last,debug}.
Obeys lines of standard input: `stall` (gives no window back), `go` (gives all back), `goaway` (to every session).
"""
import os
import socket
import sys
import threading

from h2_session import (Session, arguments, described, endpoint, headers_of, say, tls_context)

parser = arguments(__doc__)
parser.add_argument("--bind", default="::")
parser.add_argument("--status", type=int, default=200)
parser.add_argument("--silent", action="store_true", help="never answers")
parser.add_argument("--refuse", type=int, default=0, help="of each session, the first streams to refuse: REFUSED_STREAM")
parser.add_argument("--goaway-after", type=int, help="GOAWAY when a session has so many requests")
parser.add_argument("--reset-after", type=int, help="RST_STREAM when so many bytes have come on a stream")
parser.add_argument("--reset", default="CONNECT_ERROR", help="its code")
parser.add_argument("--stall", action="store_true", help="begins as after `stall`")
options = parser.parse_args()
sessions = []


class Server(Session):
    def __init__(self, sock, number):
        super().__init__(sock, options, False)
        self.number = number
        self.requests = 0
        self.stall(options.stall)
        # Other threads speak to it by its pipe: h2 is for one thread.
        self.inbox, self.outbox = os.pipe()
        self.selector.register(self.inbox, 1, self.obey)

    def label(self):
        return {"session": self.number}

    def told(self, settings):
        say({"event": "settings", **self.label(), **settings})

    def requested(self, pipe, headers):
        self.requests += 1
        say({"event": "request", **self.label(), "stream": pipe.number, "headers": headers})
        if self.requests <= options.refuse:
            self.send_reset(pipe, "REFUSED_STREAM")
        elif not options.silent:
            self.answer(pipe)
        if self.requests == options.goaway_after:
            self.send_goaway(pipe.number)

    def answer(self, pipe):
        headers = [(":status", f"{options.status}"), *headers_of(options)]
        is_good = options.status == 200
        self.send_headers(pipe.number, headers, end_stream=not is_good)
        pipe.has_ended = not is_good

    def data(self, pipe, data):
        pipe.write(data)
        if options.reset_after is not None and pipe.received >= options.reset_after and not pipe.closed:
            self.send_reset(pipe, options.reset)

    def ended(self, pipe):
        pipe.ends = True

    def reset(self, pipe, code):
        say({"event": "reset", **self.label(), "stream": pipe.number, "received": pipe.received, "code": code})

    def obey(self):
        command = os.read(self.inbox, 1)
        if command == b"g":
            self.send_goaway(max(self.pipes, default=0))
        else:
            self.stall(command == b"s")


def serve(sock, address, number):
    peer = {"session": number, "peer": endpoint(address)}
    try:
        secure = tls_context(options, True).wrap_socket(sock, server_side=True)
    except OSError as error:
        say({"event": "refused", **peer, "error": described(error)})
        sock.close()
        return
    session = Server(secure, number)
    sessions.append(session)
    say({"event": "session", **peer, "tls": secure.version()})
    session.run()
    sessions.remove(session)
    say({"event": "closed", "session": number, **({"error": session.error} if session.error else {})})


def obey_all():
    for line in sys.stdin:
        letter = {"stall": b"s", "go": b"r", "goaway": b"g"}[line.strip()]
        for session in list(sessions):
            os.write(session.outbox, letter)


is_v6 = ":" in options.bind
listener = socket.create_server(
    (options.bind, options.port), family=socket.AF_INET6 if is_v6 else socket.AF_INET, backlog=128, dualstack_ipv6=is_v6
)
threading.Thread(target=obey_all, daemon=True).start()
say({"event": "listening", "port": listener.getsockname()[1]})
number = 0
while True:
    sock, address = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    number += 1
    threading.Thread(target=serve, args=(sock, address, number), daemon=True).start()
