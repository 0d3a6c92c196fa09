"""A host that gets a secret, and a door to it that ends TLS as the proxy does.

The host is a real HTTPS server on loopback, with a certificate of an authority of its own.
"""

import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.host.network.proxy import tls
from csb_mcp.host.network.proxy.tally import Tally

HOST = "api.secret.example"
VALUE = "sk-real/9f8e+7d6c5b4a-the-value"
PLACEHOLDER = "csb-secret-api-" + "0123456789abcdef" * 2


class Handler(BaseHTTPRequestHandler):
    """Answers by path; keeps what it was sent in the server's ``seen``."""

    protocol_version = "HTTP/1.1"
    server: "Server"  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        size = self.headers.get("Content-Length")
        body = self.rfile.read(int(size)) if size else self._chunks()
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))
        name = self.path.split("?")[0].strip("/").split("/")[0]
        getattr(self, "path_" + name, self.path_echo)()

    do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' output."""

    def path_echo(self) -> None:
        body = json.dumps(dict(self.headers.items())).encode()
        self.send_response(200, "got " + self.headers.get("x-api-key", "none"))
        self.send_header("X-Echo", self.headers.get("x-api-key", "none"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def path_pieces(self) -> None:
        """The secret in two chunks, each border of it once."""
        self._begin_chunks("text/plain")
        value = self.headers["x-api-key"]
        for at in range(1, len(value)):
            self._chunk(b"<" + value[:at].encode())
            self._chunk(value[at:].encode() + b">")
        self._chunk(b"")

    def path_events(self) -> None:
        """Each event waits for the test to say that the one before has come."""
        self._begin_chunks("text/event-stream")
        for number in range(3):
            self._chunk(b"data: %d %b\n\n" % (number, self.headers["x-api-key"].encode()))
            assert self.server.next.wait(10)
            self.server.next.clear()
        self._chunk(b"")

    def path_v1(self) -> None:
        """What a model says; each part waits for the test, as above."""
        self._begin_chunks("text/event-stream")
        for event in self.server.events:
            self._chunk(event)
            assert self.server.hurry or self.server.next.wait(10)
            self.server.next.clear()
        self._chunk(b"")

    def path_unsized(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"until the end " + self.headers["x-api-key"].encode())
        self.close_connection = True

    def path_packed(self) -> None:
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"\x1f\x8b\x08\x00")

    def path_large(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.large))
        self.end_headers()
        piece = b"x" * 65536
        for _ in range(self.server.large // len(piece)):
            self.wfile.write(piece)

    def path_repository(self) -> None:
        """A git repository, for who has the secret as a password."""
        word = base64.b64encode(f"agent:{VALUE}".encode()).decode()
        path = self.server.root / self.path.split("?")[0].lstrip("/")
        known = self.headers.get("Authorization") == f"Basic {word}"
        status = 401 if not known else 200 if path.is_file() else 404
        body = path.read_bytes() if status == 200 else b""
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _begin_chunks(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _chunks(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    large = 0
    root = Path("/nowhere")
    events: tuple[bytes, ...] = ()
    hurry = False  # it waits for nobody any more

    def __init__(
        self,
        context: ssl.SSLContext,
        listening: socket.socket | None = None,
        handler: type[BaseHTTPRequestHandler] = Handler,
    ) -> None:
        """``listening``: a socket in another network; it becomes ours."""
        super().__init__(("127.0.0.1", 0), handler, bind_and_activate=not listening)
        if listening:
            self.socket.close()
            self.socket = listening
        self.context = context
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.next = threading.Event()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        sock.settimeout(20)
        # The handshake is the handler's thread's, at its first read.
        made = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return made, address

    def shutdown_request(self, request: Any) -> None:
        try:
            request.unwrap()  # says that this is the end, as servers do
        except (OSError, ValueError):
            pass
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away is nobody's error."""


def server_context(folder: Path, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    file = folder / "server.pem"
    file.write_text(certificate + key)
    context.load_cert_chain(file)
    return context


@contextmanager
def serving(server: Server) -> Generator[Server]:
    """Answers until the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(10)


@dataclass
class Door:
    """Takes CONNECT on ``port`` and serves it as the proxy does; ``ended`` are its results."""

    entry: tls.Entry
    upstream: tuple[str, int]
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    ended: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])
    tally: Tally | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def connected(self) -> socket.socket:
        """A connection to the host, as a program has it after its CONNECT."""
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._relay, args=(theirs,), daemon=True).start()
        return ours

    def _one(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        self._relay(client)

    def _relay(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.upstream) as upstream:
            self.ended.append(tls.serve(client, upstream, self.entry, self.tally))


@dataclass
class World:
    """The host, the door, and what a sandbox trusts."""

    server: Server
    door: Door
    authority: str
    bundle: Path

    def client(self) -> ssl.SSLSocket:
        """A TLS connection to the host as a program inside has it."""
        context = ssl.create_default_context(cadata=self.authority)
        sock = self.door.connected()
        sock.settimeout(20)
        return context.wrap_socket(sock, server_hostname=HOST)

    def ended(self) -> tuple[int, int, str]:
        """What came of the first connection that ended."""
        deadline = time.monotonic() + 10
        while not self.door.ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self.door.ended.pop(0)


@contextmanager
def world(
    folder: Path, *, certified: str = HOST, trusted: bool = True, system: bool = False
) -> Generator[World]:
    """``certified``: the name in the host's certificate; not ``trusted``: by nobody's authority.

    ``system``: the host's authority is left in theirs.pem, and to the system's trust.
    """
    theirs, theirs_key = make_authority("theirs", [certified])
    context = server_context(folder, *make_leaf(theirs, theirs_key, certified))
    other, _ = make_authority("other", [certified])
    ours, ours_key = make_authority("ours", [HOST])
    certificate, key = make_leaf(ours, ours_key, HOST)
    item = {"host": HOST, "placeholder": PLACEHOLDER, "value": VALUE}
    message: dict[str, Any] = {"secrets": [item | {"certificate": certificate, "key": key}]}
    (folder / "theirs.pem").write_text(theirs)
    message["counted"] = [HOST]
    message |= {} if system else {"authorities": {HOST: theirs if trusted else other}}
    bundle = folder / "bundle.pem"
    bundle.write_text(ours)
    with serving(Server(context)) as server:
        door = Door(tls.entries(message)[HOST], server.server_address[:2])  # type: ignore[arg-type]
        listening = threading.Thread(target=door.serve)
        listening.start()
        try:
            yield World(server, door, ours, bundle)
        finally:
            door.listener.shutdown(socket.SHUT_RDWR)
            door.listener.close()
            listening.join(10)
