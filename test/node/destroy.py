"""Destroys the TCP socket that the kernel would give a packet to (SOCK_DESTROY), as `ss -K` asks for it, but without its cookie.

  python3 destroy.py LOCAL-ADDRESS PORT REMOTE-ADDRESS PORT

IPv4 only; needs CAP_NET_ADMIN. Prints {"destroyed":true} or {"destroyed":false,"error"}.
"""
import errno
import json
import socket
import struct
import sys

local, local_port, remote, remote_port = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
NETLINK_SOCK_DIAG, SOCK_DESTROY = 4, 21
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NO_COOKIE = 0xFFFFFFFF
body = struct.pack("=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
body += struct.pack("!HH", local_port, remote_port)
body += socket.inet_aton(local).ljust(16, b"\0") + socket.inet_aton(remote).ljust(16, b"\0")
body += struct.pack("=III", 0, NO_COOKIE, NO_COOKIE)
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
netlink.send(struct.pack("=IHHII", 16 + len(body), SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body)
code = -struct.unpack("=i", netlink.recv(4096)[16:20])[0]
print(json.dumps({"destroyed": code == 0, **({"error": errno.errorcode.get(code, code)} if code else {})}))
