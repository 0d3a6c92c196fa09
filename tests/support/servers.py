"""Servers in threads for the tests' own internet: a handler is a function of one connection."""

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

Handler = Callable[["Server", socket.socket], None]
BLOCK = bytes(1 << 16)


class Server:
    """Accepts on ``listening``, a thread for each connection; ``heard`` is what ``echo`` took."""

    def __init__(self, listening: socket.socket, handler: Handler) -> None:
        self.heard: list[bytes] = []
        self.peers: list[str] = []
        self.total = 0  # bytes that a sink took
        self._listening = listening
        self._handler = handler
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No more connections, and those that are open are cut. Idempotent."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join(5)
        self._listening.close()
        self.cut()

    def cut(self) -> None:
        """End the connections that are open."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listening.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        try:
            self._handler(self, connection)
        except OSError:
            pass  # it was cut, or the peer is what the test is about
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


def read_head(connection: socket.socket, limit: int = 1 << 18) -> tuple[bytes, bytes]:
    """Up to and with the empty line, and what came behind it; no empty line: all of it, nothing."""
    got = b""
    while b"\r\n\r\n" not in got and len(got) < limit:
        more = connection.recv(65536)
        if not more:
            return got, b""
        got += more
    head, mark, rest = got.partition(b"\r\n\r\n")
    return head + mark, rest


def fields(head: bytes) -> list[tuple[str, str]]:
    """The header fields of a request, names in lower case."""
    pairs = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:] if line)
    return [(name.lower(), value.strip()) for name, _, value in pairs]


def _body(connection: socket.socket, head: bytes, body: bytes) -> bytes:
    values = dict(fields(head))
    if values.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in values.get("transfer-encoding", ""):
        while not body.endswith(b"0\r\n\r\n") and (more := connection.recv(65536)):
            body += more
        return body
    wanted = int(values.get("content-length", "0"))
    parts, size = [body], len(body)
    while size < wanted and (more := connection.recv(1 << 18)):
        parts.append(more)
        size += len(more)
    return b"".join(parts)


def echo(server: Server, connection: socket.socket) -> None:
    """One HTTP request; the answer tells what it was, in JSON. ``heard``: each byte that came."""
    head, rest = read_head(connection)
    if not head.endswith(b"\r\n\r\n"):
        server.heard.append(head)
        return
    body = _body(connection, head, rest)
    method, target, _ = head.decode("latin-1").split("\r\n")[0].split(" ")
    told = {
        "method": method,
        "target": target,
        "headers": fields(head),
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    answer = json.dumps(told).encode()
    connection.sendall(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(answer) + (b"" if method == "HEAD" else answer)
    )
    with contextlib.suppress(OSError):  # cut, or TLS, where this would not be in the clear
        connection.shutdown(socket.SHUT_WR)
    surplus = b""
    with contextlib.suppress(OSError):
        connection.settimeout(2)
        while more := connection.recv(65536):
            surplus += more
    server.heard.append(head + body + surplus)


def with_tls(certificate: Path, handler: Handler = echo) -> Handler:
    """``handler`` inside TLS (http/1.1) with a PEM file that holds a key and its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["http/1.1"])

    def handle(server: Server, connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inside:
            handler(server, inside)

    return handle


def sink(server: Server, connection: socket.socket) -> None:
    """Takes everything, then tells how much that was, in decimal."""
    took = 0
    while more := connection.recv(1 << 18):
        took += len(more)
        server.total += len(more)
    connection.sendall(str(took).encode())


def source(size: int) -> Handler:
    """Sends ``size`` bytes of zeros, then ends its half."""

    def handle(_: Server, connection: socket.socket) -> None:
        left = size
        while left:
            left -= connection.send(BLOCK[: min(left, len(BLOCK))])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return handle


def back(_: Server, connection: socket.socket) -> None:
    """Sends back what comes; ends its half when the other ends."""
    while more := connection.recv(1 << 18):
        connection.sendall(more)
    connection.shutdown(socket.SHUT_WR)


def mute(server: Server, connection: socket.socket) -> None:
    """Takes what comes into ``heard`` and says nothing."""
    while more := connection.recv(65536):
        server.heard.append(more)
