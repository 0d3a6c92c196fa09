"""How far the body of a request goes: exactly that is passed on."""

from csb_mcp.host.network.proxy.heads import CHUNKED

_HEX = frozenset(b"0123456789abcdefABCDEF")
_MOST_DIGITS = 12


class Counted:
    """A body whose length was told."""

    def __init__(self, size: int) -> None:
        self._left = size

    @property
    def done(self) -> bool:
        """All of it has come."""
        return not self._left

    def take(self, data: bytes | memoryview) -> int:
        """How many of these bytes belong to it."""
        taken = min(self._left, len(data))
        self._left -= taken
        return taken


class Chunked:
    """A body in chunks: their plain form alone, without extensions and trailers.

    What else may stand there some servers skip differently, and then disagree where it ends.
    """

    def __init__(self) -> None:
        self.done = False
        self._left = 0  # bytes of the chunk, then its end of line
        self._line = b""  # of a size, so far; of the line after a chunk, too
        self._tail: bytes | None = None  # what must follow literally
        self._last = False

    def take(self, data: bytes | memoryview) -> int:
        """How many of these bytes belong to it. Raises ValueError."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                at += step
                if not self._left:
                    self._tail = b"\r\n"
            elif self._tail:
                at += self._literal(data[at])
            else:
                at += self._digit(data[at])
        return at

    def _literal(self, byte: int) -> int:
        if not self._tail or byte != self._tail[0]:
            raise ValueError("a chunk does not end where it said, or has a trailer")
        self._tail = self._tail[1:] or None
        if self._tail is None and self._last:
            self.done = True
        return 1

    def _digit(self, byte: int) -> int:
        """One byte of the line with a chunk's size."""
        if byte in _HEX and len(self._line) < _MOST_DIGITS and not self._line.endswith(b"\r"):
            self._line += bytes([byte])
        elif byte == 13 and self._line and not self._line.endswith(b"\r"):
            self._line += b"\r"
        elif byte == 10 and self._line.endswith(b"\r"):
            self._left, self._line = int(self._line, 16), b""
            if not self._left:
                self._last, self._tail = True, b"\r\n"
        else:
            raise ValueError("the size of a chunk is malformed")
        return 1


Body = Counted | Chunked


def body_of(length: int) -> Body:
    """By what the head says."""
    return Chunked() if length == CHUNKED else Counted(length)
