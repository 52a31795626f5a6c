"""One socket that connects to one destination after the other; in between it is disconnected (AF_UNSPEC).

  python3 reconnect.py ADDR PORT [ADDR PORT]...

All of one family. Sends a line to each, and prints a line of JSON for each: {"to","reply"} or {"to","error"}.
"""
import ctypes
import errno
import json
import socket
import sys

libc = ctypes.CDLL(None)
hops = list(zip(sys.argv[1::2], map(int, sys.argv[2::2])))
client = socket.socket(socket.AF_INET6 if ":" in hops[0][0] else socket.AF_INET, socket.SOCK_STREAM)
client.settimeout(20)
for to, port in hops:
    said = {"to": to}
    try:
        client.connect((to, port))
        client.sendall(b"hello\n")
        reply = client.recv(4096).decode()
        said |= {"reply": reply.strip()} if reply else {"error": "EOF"}
    except OSError as error:
        said["error"] = "ETIMEDOUT" if isinstance(error, TimeoutError) else errno.errorcode[error.errno]
    print(json.dumps(said), flush=True)
    libc.connect(client.fileno(), bytes(16), 16)
