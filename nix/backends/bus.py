"""Stands between xdg-dbus-proxy and the session bus: ``bus.py UID PROXY RULE...``, as PID 1.

A client says in its greeting which user it is, by the number that it has inside; the bus compares
that with who connects. So the number is replaced by the real one. And no descriptors are passed:
what is talked of here needs none. All else is carried as it is; filtering is the proxy's business.

Standard library only; prints one line, ``ready``. Ends when the proxy does.
"""

import os
import re
import selectors
import socket
import subprocess
import sys

_BUS, _OURS, _DOOR = "/run/bus", "/tmp/bus", "/run/door/bus"
_CLIENTS = 64
_BUFFER = 256 * 1024
_GREETING = 16 * 1024
_IDENTITY = re.compile(rb"^(\0?AUTH EXTERNAL )[0-9a-fA-F]+$")


class Way:
    """One direction of a connection: what was read from ``source`` and is still to be sent."""

    def __init__(self, source: socket.socket, target: socket.socket, uid: bytes | None) -> None:
        self.source, self.target = source, target
        self._uid = uid  # while the greeting lasts; None: nothing is changed
        self._unread = b""
        self.waiting = bytearray()
        self.open = True

    def read(self) -> None:
        """Take what is there. Raises OSError, ValueError: cut the connection."""
        data = self.source.recv(65536)
        self.open = bool(data)
        self.waiting += data if self._uid is None else self._greet(data)

    def send(self) -> None:
        """Give what is taken."""
        if self.waiting:
            del self.waiting[: self.target.send(self.waiting)]

    def _greet(self, data: bytes) -> bytes:
        lines = (self._unread + data).split(b"\r\n")
        told = b""
        for i, line in enumerate(lines[:-1]):
            told += self._line(line) + b"\r\n"
            if line.lstrip(b"\0") == b"BEGIN":
                self._uid = None
                return told + b"\r\n".join(lines[i + 1 :])
        self._unread = lines[-1]
        if len(self._unread) > _GREETING:
            raise ValueError("no greeting")
        return told

    def _line(self, line: bytes) -> bytes:
        if line == b"NEGOTIATE_UNIX_FD":
            return b"NEGOTIATE_NOTHING"  # an error, which is a polite no
        return _IDENTITY.sub(rb"\g<1>" + (self._uid or b""), line)


class Relay:
    """All connections, in one loop."""

    def __init__(self, listener: socket.socket, uid: int) -> None:
        self._listener = listener
        self._uid = str(uid).encode().hex().encode()
        self._ways: dict[socket.socket, tuple[Way, Way]] = {}  # by source: this one and its twin
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, proxy: int) -> None:
        """Until the descriptor ``proxy`` (a pidfd) says that it has ended."""
        self._selector.register(proxy, selectors.EVENT_READ)
        while True:
            for key, events in self._selector.select():
                if key.fileobj == proxy:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ways:
                    self._carry(key.fileobj, events)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        bus = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(self._ways) >= 2 * _CLIENTS:
                raise OSError("too many")
            bus.connect(_BUS)
        except OSError:
            client.close()
            bus.close()
            return
        for end in (client, bus):
            end.setblocking(False)
        out, back = Way(client, bus, self._uid), Way(bus, client, None)
        self._ways |= {client: (out, back), bus: (back, out)}
        for end in (client, bus):
            self._selector.register(end, selectors.EVENT_READ)

    def _carry(self, end: socket.socket, events: int) -> None:
        out, back = self._ways[end]
        try:
            if events & selectors.EVENT_READ:
                out.read()
                out.send()
            if events & selectors.EVENT_WRITE:
                back.send()
        except BlockingIOError:
            pass
        except (OSError, ValueError):
            out.open = False
            out.waiting.clear()
        if any(not way.open and not way.waiting for way in (out, back)):
            self._cut(out)
        else:
            self._watch(out, back)
            self._watch(back, out)

    def _watch(self, out: Way, back: Way) -> None:
        reads = selectors.EVENT_READ if out.open and len(out.waiting) < _BUFFER else 0
        writes = selectors.EVENT_WRITE if back.waiting else 0
        if reads | writes:
            self._set(out.source, reads | writes)
        elif out.source in self._selector.get_map():
            self._selector.unregister(out.source)

    def _set(self, end: socket.socket, events: int) -> None:
        if end in self._selector.get_map():
            self._selector.modify(end, events)
        else:
            self._selector.register(end, events)

    def _cut(self, way: Way) -> None:
        for end in (way.source, way.target):
            if end in self._selector.get_map():
                self._selector.unregister(end)
            self._ways.pop(end, None)
            end.close()


def _start(proxy: str, rules: list[str]) -> "subprocess.Popen[bytes]":
    """The proxy, once it listens."""
    told, tell = os.pipe()  # it writes a byte when it is ready, and ends when we do
    words = [proxy, f"--fd={tell}", f"unix:path={_OURS}", _DOOR, "--filter", *rules]
    # It complains of each odd message; a client could fill whatever listens to that.
    null = subprocess.DEVNULL
    child = subprocess.Popen(words, pass_fds=[tell], stdout=null, stderr=null)
    os.close(tell)
    if not os.read(told, 1):
        sys.exit("xdg-dbus-proxy ended")
    return child


def main(uid: int, proxy: str, *rules: str) -> None:
    """Carry until the proxy ends."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(_OURS)
    listener.listen(_CLIENTS)
    child = _start(proxy, list(rules))
    os.write(1, b"ready\n")
    Relay(listener, uid).run(os.pidfd_open(child.pid))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
