"""One request of a sandbox to a secret's host, and the answer to it, each changed on its way."""

import base64
import binascii
from collections.abc import Iterable

from csb_mcp.host.network.proxy.mask import Mask, Pair, spellings
from csb_mcp.host.network.proxy.messages import (
    BadMessageError,
    Body,
    Chunked,
    Fields,
    Head,
    Sized,
    UntilEnd,
    body_of,
    chunk,
    written,
)
from csb_mcp.host.network.proxy.usage import Reading
from csb_mcp.lib.hosts import normal_host

_PARTS = (b"range", b"if-range")
_REFUSED_METHODS = (b"CONNECT", b"TRACE")  # the one is no request, the other sends secrets back


class RefusedError(Exception):
    """What the sandbox asks for is not passed on. ``status``: the line of the answer to it."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


class Request:
    """What goes to ``host``: ``head`` as bytes, then what :meth:`feed` makes of the body.

    ``secrets``: placeholder and value of each. ``masks`` is what the answer must not carry.
    ``reading``: who counts what the answer says was used, if anybody.
    """

    def __init__(self, head: Head, host: str, secrets: Iterable[Pair]) -> None:
        self._host, self._secrets = host, tuple(secrets)
        self.masks = [pair for holder, value in self._secrets for pair in spellings(value, holder)]
        self.method, self.target = _request_line(head.line)
        _check(head, host)
        self._body: Body = body_of(head) or Sized(0)
        self.last = b"close" in head.words(b"connection")
        line = b"%b %b HTTP/1.1" % (self.method, self.target)
        self.head = written(line, self._fields(head))
        self.reading: Reading | None = None

    @property
    def done(self) -> bool:
        """Whether all of it has been fed."""
        return self._body.done

    def feed(self, buffer: bytearray) -> bytes:
        """The next part of the body, as it goes on the wire."""
        if self._body.done:
            return b""
        data = self._body.feed(buffer)
        if self.reading:
            self.reading.sent += len(data)
        return chunk(data, last=self.done) if isinstance(self._body, Chunked) else data

    def _fields(self, head: Head) -> Fields:
        fields = [(key, self._filled(key, value)) for key, value in head.end_to_end()]
        # A part of an answer may hold a part of a secret, which nobody would know again.
        filled = [value for _, value in fields] != [value for _, value in head.end_to_end()]
        dropped = (b"host", b"accept-encoding", *(_PARTS if filled else ()))
        fields = [(key, value) for key, value in fields if key.lower() not in dropped]
        return [
            (b"Host", self._host.encode()),
            *fields,
            (b"Accept-Encoding", b"identity"),  # what is packed cannot be looked through
            *([(b"Connection", b"close")] if self.last else []),
            *self._framing(head),
        ]

    def _framing(self, head: Head) -> Fields:
        if isinstance(self._body, Chunked):
            return [(b"Transfer-Encoding", b"chunked")]
        return [(b"Content-Length", size) for size in head.values(b"content-length")]

    def _filled(self, key: bytes, value: bytes) -> bytes:
        if key.lower() == b"authorization" and value[:6].lower() == b"basic ":
            return self._filled_basic(value)
        for holder, secret in self._secrets:
            value = value.replace(holder, secret)
        return value

    def _filled_basic(self, value: bytes) -> bytes:
        """User and password are one word of base64; the answer must not carry that word either."""
        word = value[6:].strip()
        try:
            plain = base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            return value
        for holder, secret in self._secrets:
            plain = plain.replace(holder, secret)
        filled = base64.b64encode(plain)
        if filled == word:
            return value
        self.masks[:0] = spellings(filled, word)
        return b"Basic " + filled


def _request_line(line: bytes) -> tuple[bytes, bytes]:
    method, _, rest = line.partition(b" ")
    target, _, version = rest.rpartition(b" ")
    if version != b"HTTP/1.1":
        raise RefusedError("505 HTTP Version Not Supported", "only HTTP/1.1 is spoken here")
    if not method.isalpha() or method in _REFUSED_METHODS:
        raise RefusedError("501 Not Implemented", "that method is not passed on")
    if not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise BadMessageError("its target is not a path")
    if b" " in target or b"\t" in target or not target.isascii():
        raise BadMessageError("its target has characters that no target has")
    return method, target


def _check(head: Head, host: str) -> None:
    """A secret goes to its host alone: not to another one that the same server plays."""
    named = head.values(b"host")
    try:
        (value,) = named
        name = normal_host(value.decode("ascii").removesuffix(":443"))
    except ValueError as error:
        raise BadMessageError("it must have one Host field that names its host") from error
    if name != host:
        raise RefusedError("421 Misdirected Request", f"this connection is for {host} alone")
    if b"websocket" in head.words(b"upgrade"):
        why = "WebSockets to a host that gets a secret are not passed on"
        raise RefusedError("501 Not Implemented", why)


class Answer:
    """What comes back. ``begun``: its final head has gone in. ``last``: nothing follows."""

    def __init__(self, request: Request) -> None:
        self._request, self._reading = request, request.reading
        self._mask = Mask(request.masks)
        self._body: Body | None = None
        self._framed = False
        self.begun = False
        self.done = False
        self.last = request.last

    def head(self, head: Head) -> bytes:
        """Take a head; several, if the first ones are provisional. What the sandbox gets of it."""
        version, status, reason = _status_line(head.line)
        line = b"HTTP/1.1 %d %b" % (status, self._mask.whole(reason))
        fields = [(key, self._mask.whole(value)) for key, value in head.end_to_end()]
        fields = [(key, value) for key, value in fields if key.lower() != b"alt-svc"]
        if status < 200:
            return written(line, fields)
        self._body = self._body_of(head, status)
        if self._reading:
            self._reading.begin(status, b",".join(head.values(b"content-type")))
        self.last |= version != b"HTTP/1.1" or b"close" in head.words(b"connection")
        self.last |= isinstance(self._body, UntilEnd)
        self.done = self._body.done
        fields += self._framing(head, status)
        self.begun = True
        return written(line, [*fields, *([(b"Connection", b"close")] if self.last else [])])

    def feed(self, buffer: bytearray) -> bytes:
        """The next part of the body, as the sandbox gets it."""
        if self._body is None or self.done:
            return b""
        data = self._body.feed(buffer)
        self.done = self._body.done
        if self._reading:
            self._reading.feed(data)
        return chunk(self._mask.feed(data, last=self.done), last=self.done)

    def end(self) -> bytes:
        """The connection ended cleanly: so may a body that does not tell its size."""
        if self.done:
            return b""
        if not isinstance(self._body, UntilEnd):
            raise BadMessageError("it ended in the middle of an answer")
        self.done = True
        return chunk(self._mask.feed(b"", last=True), last=True)

    def _body_of(self, head: Head, status: int) -> Body:
        framed = body_of(head)
        if self._request.method == b"HEAD" or status in (204, 304):
            return Sized(0)
        body = framed or UntilEnd()
        packed = [word for word in head.words(b"content-encoding") if word != b"identity"]
        if packed and not body.done:
            raise BadMessageError("it packed its answer, though it was asked not to")
        self._framed = not body.done
        return body

    def _framing(self, head: Head, status: int) -> Fields:
        """Always in chunks: a placeholder is not as long as its secret."""
        if self._framed:
            return [(b"Transfer-Encoding", b"chunked")]
        if status == 204:
            return []
        return [(b"Content-Length", size) for size in head.values(b"content-length")]


def _status_line(line: bytes) -> tuple[bytes, int, bytes]:
    version, _, rest = line.partition(b" ")
    status, _, reason = rest.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(status) != 3 or not status.isdigit():
        raise BadMessageError("its first line is not HTTP/1.1")
    if not 100 <= int(status) < 600 or status == b"101":
        raise BadMessageError(f"its status {status.decode()} was not to be expected")
    return version, int(status), reason
