"""A reader of one WebSocket (RFC 6455): enough to follow a log."""

import base64
import os
import re
import socket
from collections.abc import Iterator
from typing import NamedTuple

_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_QUIET_SECONDS = 30.0  # then we ask whether the other end is still there
_MOST = 16 * 1024 * 1024  # bytes of one frame: a daemon of ours sends far less
_MOST_HEAD = 64 * 1024
_CHUNK = 65536


class Closed(NamedTuple):
    """How the other end took its leave (RFC 6455, 7.4.1); 1006: without a word."""

    code: int
    reason: str


class WebSocket:
    """Reads what comes over ``connection``, which stays the caller's to close.

    Its methods raise OSError: TimeoutError if the other end is silent, ConnectionError if it ended.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._asked = False
        self.closed = Closed(1006, "")

    def open(self, path: str) -> tuple[int, bytes]:
        """Shake hands; gives status (101: well) and, of a refusal, the body."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            *("Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
            *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"),
        ]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode())
        head = self._head()
        status = int(head.split(maxsplit=2)[1])
        length = re.search(r"^content-length:\s*(\d+)", head, re.IGNORECASE | re.MULTILINE)
        return status, self._take(int(length[1])) if length and status != 101 else b""

    def frames(self) -> Iterator[str | bytes]:
        """Messages as they come, until the other end closes; then ``closed`` tells how."""
        self._connection.settimeout(_QUIET_SECONDS)
        parts, kind = b"", 0
        while True:
            final, opcode, data = self._frame()
            if opcode == _CLOSE:
                code = int.from_bytes(data[:2], "big") if len(data) >= 2 else 1005
                self.closed = Closed(code, data[2:].decode(errors="replace"))
                self._send(_CLOSE, data[:2])
                return
            if opcode == _PING:
                self._send(_PONG, data)
            if opcode >= _CLOSE:
                continue
            parts, kind = parts + data, kind or opcode
            if final:
                yield parts.decode(errors="replace") if kind == _TEXT else parts
                parts, kind = b"", 0

    def _head(self) -> str:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise ConnectionError("what answers is no HTTP")
            self._more()
        return self._take(end + 4).decode("latin-1")

    def _frame(self) -> tuple[bool, int, bytes]:
        """Whether it ends a message, its kind, its data. A server's frames bear no mask."""
        first, second = self._take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
        if length > _MOST:
            raise ConnectionError("a frame is too large")
        return bool(first & 0x80), first & 0x0F, self._take(length)

    def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._more()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _more(self) -> None:
        """Read something. After a quiet time a ping asks for a sign of life, once."""
        while True:
            try:
                data = self._connection.recv(_CHUNK)
                break
            except TimeoutError:
                if self._asked:
                    raise
                self._asked = True
                self._send(_PING, b"")
        if not data:
            raise ConnectionResetError
        self._asked = False
        self._buffer += data

    def _send(self, opcode: int, data: bytes) -> None:
        """A short frame. A client's is masked; against whom we mask, ours need not (zeros)."""
        payload = data[:125]
        self._connection.sendall(bytes((0x80 | opcode, 0x80 | len(payload))) + bytes(4) + payload)
