"""TLS over a socket that never blocks: what is decrypted, what waits to be sent, and waits."""

import select
import socket
import ssl
import time

_PIECE = 64 << 10
BOUND = 256 << 10
"""Bytes that may wait in one direction before no more are taken in."""


class GoneError(Exception):
    """The other end is gone, is too slow, or does not speak TLS. Its text says what."""


class Channel:
    """One end's TLS. The socket stays its owner's. ``host``: that of a server; None: we are it.

    ``buffer`` holds what has come, decrypted, and is emptied by the reader. ``ended``: no more will
    come; ``clean``: and the other end said so; ``fault``: or what it said instead. ``taken`` and
    ``given`` count bytes of content.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str | None) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, host is None, host)
        self._raw = memoryview(b"")
        self.buffer = bytearray()
        self.ended = self.clean = False
        self.fault = ""
        self.taken = self.given = 0

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self._out.pending + len(self._raw)

    def handshake(self, deadline: float) -> None:
        """Raises GoneError by ``deadline`` (monotonic), ssl.SSLCertVerificationError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._fetch_by(deadline)
            except ssl.SSLCertVerificationError:
                self._say_goodbye()
                raise
            except ssl.SSLError as error:
                self._say_goodbye()
                raise GoneError(f"TLS failed: {error.reason or error}") from error
            else:
                self.drain(deadline)
                self._decrypt()  # what came with the last of the handshake
                return

    def receive(self) -> None:
        """Take in what has come; to be called when the socket is readable."""
        self._fetch()
        self._decrypt()

    def _decrypt(self) -> None:
        while not self.ended:
            try:
                data = self._tls.read(_PIECE)
                self.clean = not data
            except ssl.SSLWantReadError:
                return
            except ssl.SSLError as error:  # cut off, or garbage: an end that nobody announced
                data, self.fault = b"", f"TLS failed: {error.reason or error}"
            self.ended = not data
            self.buffer += data
            self.taken += len(data)

    def write(self, data: bytes) -> None:
        """Put ``data`` into the queue, and send what can be sent at once."""
        if data:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise GoneError(f"TLS failed: {error.reason or error}") from error
            self.given += len(data)
        self.flush()

    def flush(self) -> None:
        """Send what can be sent without waiting. Raises GoneError."""
        while self.queued:
            if not self._raw:
                self._raw = memoryview(self._out.read(_PIECE))
            try:
                self._raw = self._raw[self._sock.send(self._raw) :]
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise GoneError(f"the connection broke: {error.strerror}") from error

    def drain(self, deadline: float) -> None:
        """Send all that is queued, by ``deadline``. Raises GoneError."""
        self.flush()
        while self.queued:
            wait({self: select.POLLOUT}, deadline)
            self.flush()

    def close(self) -> None:
        """Say that no more will come, if that can be said at once. The socket stays open."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError, OSError):
            pass  # the other end has not said so yet, or is gone
        self._say_goodbye()

    def linger(self, deadline: float) -> None:
        """Let the other end read what it was sent: a close with bytes unread would take it away."""
        self.close()
        try:
            self._sock.shutdown(socket.SHUT_WR)
            while wait({self: select.POLLIN}, deadline) and self._sock.recv(_PIECE):
                pass
        except (GoneError, OSError):
            pass

    def fileno(self) -> int:
        """Of the socket, for poll(2)."""
        return self._sock.fileno()

    def _fetch_by(self, deadline: float) -> None:
        self.drain(deadline)
        wait({self: select.POLLIN}, deadline)
        self._fetch()

    def _fetch(self) -> None:
        try:
            data = self._sock.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def _say_goodbye(self) -> None:
        try:
            self.flush()
        except GoneError:
            pass


def wait(wanted: dict[Channel, int], deadline: float) -> set[Channel]:
    """The channels that are ready for what is ``wanted`` of them (masks of poll).

    Raises GoneError at ``deadline`` (monotonic).
    """
    poll, by_fd = select.poll(), {channel.fileno(): channel for channel in wanted}
    for channel, mask in wanted.items():
        poll.register(channel.fileno(), mask)
    left = deadline - time.monotonic()
    ready = poll.poll(left * 1000) if left > 0 else []
    if not ready:
        raise GoneError("nothing moved for too long")
    return {by_fd[fd] for fd, _ in ready}
