"""A TLS 1.3 server that wants a client certificate under a root of its own: `alert-server.py <chain> <key> <roots>`.

Says its port, and for each connection what it read of it before it refused. It leaves it to the client to close: a client that
writes to a closed connection may find that broken before it has read the alert.
"""

import socket
import ssl
import sys

chain, key, roots = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(chain, key)
context.load_verify_locations(roots)
context.verify_mode = ssl.CERT_REQUIRED
context.set_alpn_protocols(["h2"])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    held = connection.dup()
    try:
        print("read", context.wrap_socket(connection, server_side=True).recv(65536), flush=True)
    except ssl.SSLError as error:
        print("refused", error.reason, flush=True)
    try:
        while held.recv(65536):
            pass
    except ConnectionResetError:
        pass
    held.close()
