"""HTTP/1.1 messages, read so strictly that both ends must see the same borders in a stream."""

from dataclasses import dataclass
from typing import Protocol

HEAD_BYTES = 64 << 10
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CHUNK_LINE_BYTES = 4096
_TRAILERS = 100
_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade"),
        *(b"transfer-encoding", b"content-length", b"proxy-authorization", b"proxy-authenticate"),
    )
)
Fields = list[tuple[bytes, bytes]]


class BadMessageError(Exception):
    """What came is no message that two readers would read alike. Its text says why."""


@dataclass(slots=True)
class Head:
    """The first line and the fields of a message, names as they came, values stripped."""

    line: bytes
    fields: Fields

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field; ``name`` in lower case."""
        return [value for key, value in self.fields if key.lower() == name]

    def words(self, name: bytes) -> list[bytes]:
        """The elements of a field that is a list, in lower case."""
        joined = b",".join(self.values(name)).lower().split(b",")
        return [word.strip() for word in joined if word.strip()]

    def end_to_end(self) -> Fields:
        """The fields that go on: without those of one connection, and without framing."""
        dropped = _HOP.union(self.words(b"connection"))
        return [(key, value) for key, value in self.fields if key.lower() not in dropped]


def take_head(buffer: bytearray) -> Head | None:
    """The head that ``buffer`` begins with, taken out of it; None while it is not whole."""
    end = buffer.find(b"\r\n\r\n", 0, HEAD_BYTES)
    if end < 0:
        if len(buffer) >= HEAD_BYTES:
            raise BadMessageError("its header is larger than 64 KiB")
        return None
    lines = bytes(buffer[:end]).split(b"\r\n")
    del buffer[: end + 4]
    for line in lines:
        if any((c < 0x20 and c != 0x09) or c == 0x7F for c in line):
            raise BadMessageError("a control character in its header")
    return Head(lines[0], [_field(line) for line in lines[1:]])


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or not _TOKEN.issuperset(name):
        raise BadMessageError("a line of its header is not NAME: VALUE")
    return name, value.strip(b" \t")


class Body(Protocol):
    """The rest of a message."""

    done: bool

    def feed(self, buffer: bytearray) -> bytes:
        """What ``buffer`` holds of the body, taken out of it. Sets ``done`` at its end."""
        ...


class Sized:
    """A body of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.done = size == 0

    def feed(self, buffer: bytearray) -> bytes:
        """See :class:`Body`."""
        data = bytes(buffer[: self._left])
        del buffer[: len(data)]
        self._left -= len(data)
        self.done = self._left == 0
        return data


class UntilEnd:
    """A body that ends with its connection; the reader sets ``done``."""

    done = False

    def feed(self, buffer: bytearray) -> bytes:
        """See :class:`Body`."""
        data = bytes(buffer)
        buffer.clear()
        return data


class Chunked:
    """A body in chunks. Extensions and trailers are read and left out."""

    def __init__(self) -> None:
        self.done = False
        self._found = bytearray()
        self._left = 0
        self._trailers = 0
        self._state = self._size

    def feed(self, buffer: bytearray) -> bytes:
        """See :class:`Body`."""
        while not self.done and self._state(buffer):
            pass
        found = bytes(self._found)
        self._found.clear()
        return found

    def _line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n", 0, _CHUNK_LINE_BYTES)
        if end < 0:
            if len(buffer) >= _CHUNK_LINE_BYTES:
                raise BadMessageError("a line between its chunks is too long")
            return None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2] or b"\0" in line:
            raise BadMessageError("a line between its chunks is broken")
        return line[:-2]

    def _size(self, buffer: bytearray) -> bool:
        if (line := self._line(buffer)) is None:
            return False
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not 0 < len(digits) <= 12 or not frozenset(b"0123456789abcdefABCDEF").issuperset(digits):
            raise BadMessageError("the size of a chunk is no number")
        self._left = int(digits, 16)
        self._state = self._data if self._left else self._trailer
        return True

    def _data(self, buffer: bytearray) -> bool:
        part = buffer[: self._left]
        self._found += part
        del buffer[: len(part)]
        self._left -= len(part)
        if self._left:
            return False
        self._state = self._border
        return True

    def _border(self, buffer: bytearray) -> bool:
        if len(buffer) < 2:
            return False
        if not buffer.startswith(b"\r\n"):
            raise BadMessageError("a chunk is longer than its size says")
        del buffer[:2]
        self._state = self._size
        return True

    def _trailer(self, buffer: bytearray) -> bool:
        if (line := self._line(buffer)) is None:
            return False
        self.done = not line
        self._trailers += 1
        if self._trailers > _TRAILERS:
            raise BadMessageError("it has more trailers than anybody needs")
        return True


def body_of(head: Head) -> Body | None:
    """How the body of ``head`` is framed; None if it does not say. Two ways at once are refused."""
    codings, sizes = head.words(b"transfer-encoding"), head.values(b"content-length")
    if codings:
        if codings != [b"chunked"] or sizes:
            raise BadMessageError("its Transfer-Encoding is not chunked alone")
        return Chunked()
    if not sizes:
        if head.values(b"transfer-encoding"):
            raise BadMessageError("its Transfer-Encoding is empty")
        return None
    if len(sizes) > 1 or not sizes[0].isdigit() or len(sizes[0]) > 15:
        raise BadMessageError("its Content-Length is not one number")
    return Sized(int(sizes[0]))


def chunk(data: bytes, *, last: bool = False) -> bytes:
    """``data`` as a chunk, if there is any; then the end, if it is the ``last``."""
    part = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return part + b"0\r\n\r\n" if last else part


def written(line: bytes, fields: Fields) -> bytes:
    """A head as it goes on the wire."""
    return b"\r\n".join([line, *(name + b": " + value for name, value in fields), b"", b""])
