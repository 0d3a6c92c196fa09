"""Moves bytes both ways between two sockets, in bounded memory, as fast as the slower one takes."""

from _collections_abc import Callable

from csb_mcp.host.network.proxy.bodies import Body
from csb_mcp.host.network.proxy.loop import READ, WRITE, Handler, Loop
from csb_mcp.host.network.proxy.sockets import Socket, end_half

_PIECE = 64 << 10  # the most that waits in one direction
_MOST_SURPLUS = 1 << 20
_SCRATCH = memoryview(bytearray(_PIECE))  # one for all: they are moved one after the other
BAD_BODY = "the body of the request is malformed"


def _nothing(_: int) -> None:
    """Until it was started."""


class _Half:
    """One direction. ``rest``: what ``sink`` has not taken yet; nothing is read until it has."""

    __slots__ = ("body", "hear", "moved", "open", "rest", "sink", "source", "surplus")

    def __init__(self, source: Socket, sink: Socket, rest: bytes, body: Body | None) -> None:
        self.source, self.sink, self.rest, self.body = source, sink, rest, body
        self.moved, self.surplus = 0, 0
        self.open = True  # the source may send more
        self.hear: Handler = _nothing

    @property
    def over(self) -> bool:
        return not self.open and not self.rest


class Tunnel:
    """``sent`` goes to ``upstream`` first. ``body``: how much more of the client's may follow.

    ``over`` is called once, with what went wrong (empty: nothing); both sockets are then out of the
    loop, and the caller's. With a body it is over when the server has ended, else when both have.
    """

    def __init__(
        self,
        loop: Loop,
        ends: tuple[Socket, Socket],
        sent: bytes,
        body: Body | None,
        over: Callable[[str], None],
    ) -> None:
        client, upstream = ends
        self._loop, self._body, self._over = loop, body, over
        self._out = _Half(client, upstream, b"", body)
        self._in = _Half(upstream, client, b"", None)
        self._out.hear = lambda events: self._guarded(self._ready, self._out, self._in, events)
        self._in.hear = lambda events: self._guarded(self._ready, self._in, self._out, events)
        self._first = sent
        self.touched = loop.now

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes to the server, and from it."""
        return self._out.moved, self._in.moved

    @property
    def surplus(self) -> int:
        """Bytes that the client sent behind its request."""
        return self._out.surplus

    def start(self) -> None:
        """Begin."""
        self._guarded(self._begin)

    def stop(self) -> None:
        """Take both sockets out of the loop, without a word."""
        for half in (self._out, self._in):
            self._loop.forget(half.source.fileno())

    def _begin(self) -> None:
        self._put(self._out, self._first)
        self._first = b""

    def _ready(self, half: _Half, other: _Half, events: int) -> None:
        """Of the socket that ``half`` reads from and ``other`` writes to."""
        self.touched = self._loop.now
        if other.rest and events & ~READ:
            self._put(other, other.rest)
        if events & ~WRITE and half.open and not half.rest:
            self._move(half)

    def _move(self, half: _Half) -> None:
        try:
            size = half.source.recv_into(_SCRATCH)
        except BlockingIOError:
            return
        if not size:
            half.open = False
            self._end(half)
            return
        data = _SCRATCH[:size]
        if half.body:
            data = self._of_body(half, half.body, data)
        self._put(half, data)

    def _of_body(self, half: _Half, body: Body, data: memoryview) -> memoryview:
        """What lies behind the body is dropped: reading it shows when the client has gone."""
        size = body.take(data)
        half.surplus += len(data) - size
        if half.surplus > _MOST_SURPLUS:
            half.open = False
        return data[:size]

    def _put(self, half: _Half, data: bytes | memoryview) -> None:
        try:
            size = half.sink.send(data) if data else 0
        except BlockingIOError:
            size = 0
        except (BrokenPipeError, ConnectionResetError):
            if not half.body:
                raise
            half.open, size = False, len(data)  # it may have answered before it had all
        half.moved += size
        half.rest = bytes(data[size:])
        self._end(half)

    def _end(self, half: _Half) -> None:
        """A client that has sent its request may end its half; some servers would give up then."""
        if half.over and not (half.body and half.body.done):
            end_half(half.sink)

    def _guarded(self, step: Callable[..., None], *arguments: object) -> None:
        try:
            step(*arguments)
        except ValueError:
            self._finish(BAD_BODY)
        except OSError as error:
            self._finish(error.strerror or "the connection broke")
        else:
            self._watch()

    def _watch(self) -> None:
        if self._in.over and (self._out.over or self._body):
            self._finish("")
            return
        self._listen(self._out, self._in)
        self._listen(self._in, self._out)

    def _listen(self, half: _Half, other: _Half) -> None:
        mask = (READ if half.open and not half.rest else 0) | (WRITE if other.rest else 0)
        self._loop.watch(half.source.fileno(), mask, half.hear)

    def _finish(self, why: str) -> None:
        self.stop()
        self._over(why)
