"""Holds the namespaces it was started in, and makes sockets there for whoever is at the other end.

``namespace.py FD``: a Unix socket. Each request is a line ``FAMILY TYPE``; the answer is a dot with
a descriptor, or an error in words. It ends when the other end is closed.
"""

import socket
import sys


def main() -> None:
    """Tell that we are here, then serve until the other end is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as asker:
        for name in ("ipv4/ip_unprivileged_port_start", "ipv4/ip_nonlocal_bind"):
            with open(f"/proc/sys/net/{name}", "w") as switch:
                switch.write("0")
        asker.send(b".")
        while request := asker.recv(100):
            try:
                family, kind = map(int, request.split())
                with socket.socket(family, kind) as made:
                    socket.send_fds(asker, [b"."], [made.fileno()])
            except (OSError, ValueError) as error:
                asker.send(str(error).encode())


main()
