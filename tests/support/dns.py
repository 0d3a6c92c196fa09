"""A DNS server in threads, whose answers a test sets and changes."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self

TYPES = {"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28}
NAME_ERROR = 3


def _name(text: str) -> bytes:
    labels = [label.encode() for label in text.rstrip(".").split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _data(kind: str, value: str) -> bytes:
    if kind == "A":
        return socket.inet_aton(value)
    if kind == "AAAA":
        return socket.inet_pton(socket.AF_INET6, value)
    if kind == "MX":
        return struct.pack(">H", 10) + _name(value)
    if kind == "TXT":
        raw = value.encode()
        parts = [raw[at : at + 255] for at in range(0, len(raw), 255)] or [b""]
        return b"".join(bytes([len(part)]) + part for part in parts)
    return _name(value)


def _record(name: str, kind: str, value: str) -> bytes:
    data = _data(kind, value)
    return _name(name) + struct.pack(">HHIH", TYPES[kind], 1, 0, len(data)) + data


class Names:
    """``answer`` sets what is told. ``asked``: each question, (name, type), oldest first."""

    def __init__(self, datagrams: socket.socket, listening: socket.socket) -> None:
        self.asked: list[tuple[str, str]] = []
        self._answers: dict[str, dict[str, list[Sequence[str]]]] = {}
        self._silent: set[str] = set()
        self._sockets = (datagrams, listening)
        loops: tuple[Callable[[], None], ...] = (self._datagrams, self._connections)
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]
        for thread in self._threads:
            thread.start()

    def answer(self, name: str, *values: str, **more: str) -> None:
        """Addresses of a name, always the same: ``answer("a.test", "198.51.100.7")``.

        Other records by type, one each: ``TXT="..."``. What was set for the name before is gone.
        """
        told: dict[str, list[Sequence[str]]] = {kind: [(value,)] for kind, value in more.items()}
        for kind in ("A", "AAAA"):
            found = [value for value in values if (":" in value) == (kind == "AAAA")]
            if found:
                told[kind] = [found]
        self._answers[name.lower()] = told

    def answer_in_turn(self, name: str, *addresses: str) -> None:
        """IPv4 addresses of which each question gets the next, and the last for ever."""
        self._answers[name.lower()] = {"A": [(address,) for address in addresses]}

    def silence(self, name: str) -> None:
        """Questions for this name get no answer at all."""
        self._silent.add(name.lower())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for one in self._sockets:
            one.close()

    def _datagrams(self) -> None:
        datagrams, _ = self._sockets
        while True:
            try:
                question, peer = datagrams.recvfrom(4096)
            except OSError:
                return
            if not peer:  # shut down
                return
            if reply := self._reply(question):
                datagrams.sendto(reply, peer)

    def _connections(self) -> None:
        _, listening = self._sockets
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                size = int.from_bytes(connection.recv(2))
                if reply := self._reply(connection.recv(size)):
                    connection.sendall(struct.pack(">H", len(reply)) + reply)

    def _reply(self, message: bytes) -> bytes:
        labels, at = list[str](), 12
        while size := message[at]:
            labels.append(message[at + 1 : at + 1 + size].decode("latin-1").lower())
            at += 1 + size
        name, number = ".".join(labels), int.from_bytes(message[at + 1 : at + 3])
        kind = next((kind for kind, value in TYPES.items() if value == number), str(number))
        self.asked.append((name, kind))
        if name in self._silent:
            return b""
        told = self._answers.get(name)
        records = self._records(name, kind)
        code = NAME_ERROR if told is None else 0
        header = message[:2] + struct.pack(">5H", 0x8180 | code, 1, len(records), 0, 0)
        return header + message[12 : at + 5] + b"".join(records)

    def _records(self, name: str, kind: str) -> list[bytes]:
        """Those of this type; or an alias, and those of the name that it leads to."""
        told = self._answers.get(name, {})
        if kind not in told and "CNAME" in told:
            alias = told["CNAME"][0][0]
            return [_record(name, "CNAME", alias), *self._records(alias.lower(), kind)]
        turns = told.get(kind, [])
        values = turns.pop(0) if len(turns) > 1 else turns[0] if turns else ()
        return [_record(name, kind, value) for value in values]
