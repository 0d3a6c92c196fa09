"""The head of a request to a proxy, read strictly: what could be read in two ways is refused."""

from csb_mcp.lib.hosts import normal_host, normal_port

MOST_BYTES = 64 << 10
_MOST_DIGITS = 18
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_VISIBLE = frozenset(range(0x21, 0x7F))
_VALUE = frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100)) | {0x09}
# For this connection alone, or for us: RFC 9110 7.6.1, and what older clients say.
_OURS = frozenset(
    b"connection keep-alive te trailer upgrade host "
    b"proxy-connection proxy-authorization proxy-authenticate".split()
)
_FRAMING = frozenset((b"content-length", b"transfer-encoding"))
CHUNKED = -1
"""As a length: until a chunk of nothing."""


class RefusedError(Exception):
    """What was asked for cannot be had. The status of HTTP, and the reason in plain words."""

    def __init__(self, status: int, why: str, host: str = "", port: int = 0) -> None:
        super().__init__(why)
        self.status, self.why, self.host, self.port = status, why, host, port


class Request:
    """One that may be judged. ``path`` is empty for CONNECT; ``length`` of the body in bytes."""

    __slots__ = ("fields", "host", "length", "method", "path", "port", "version")

    def __init__(self, method: bytes, host: str, port: int, path: bytes, version: bytes) -> None:
        self.method, self.path, self.version = method, path, version
        self.host, self.port = host, port
        self.fields: list[tuple[bytes, bytes]] = []
        self.length = 0

    @property
    def tunnel(self) -> bool:
        """Whether it wants a connection, not an answer."""
        return self.method == b"CONNECT"

    def forwarded(self) -> bytes:
        """The head for the server itself: its own host, one request, nothing meant for us."""
        authority = self.host if self.port == 80 else f"{self.host}:{self.port}"
        named = b",".join(_values(self, b"connection")).lower().split(b",")
        dropped = _OURS | ({name.strip() for name in named} - _FRAMING)
        kept = [name + b": " + value for name, value in self.fields if name.lower() not in dropped]
        first = b" ".join((self.method, self.path, self.version))
        lines = [first, b"Host: " + authority.encode(), *kept, b"Connection: close", b"", b""]
        return b"\r\n".join(lines)


def parsed(head: bytes) -> Request:
    """Of everything before and with the empty line. Raises RefusedError."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    request = _first(first)
    try:
        request.fields = [_field(line) for line in lines]
        request.length = _length(request)
        _check_host(request)
    except ValueError as error:
        raise RefusedError(400, str(error), request.host, request.port) from None
    return request


def _first(line: bytes) -> Request:
    parts = line.split(b" ")
    if len(parts) != 3 or not (_all(_TOKEN, parts[0]) and len(parts[0]) <= 32):
        raise RefusedError(400, "this is no request to a proxy")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise RefusedError(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if not _all(_VISIBLE, target):
        raise RefusedError(400, "the target has characters that no target has")
    if method == b"CONNECT":
        host, port = _authority(target.decode(), None)
        return Request(method, host, port, b"", version)
    return _absolute(method, target.decode(), version)


def _absolute(method: bytes, target: str, version: bytes) -> Request:
    scheme, mark, rest = target.partition("://")
    if not mark or scheme.lower() != "http":
        raise RefusedError(
            400, "only http://HOST/... and CONNECT HOST:PORT are taken", _short(target)
        )
    cut = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    host, port = _authority(rest[:cut], 80)
    path = rest[cut:]
    if "#" in path:
        raise RefusedError(400, "the target has a fragment", host, port)
    if not path.startswith("/"):
        path = "*" if method == b"OPTIONS" and not path else "/" + path
    return Request(method, host, port, path.encode(), version)


def _authority(text: str, usual: int | None) -> tuple[str, int]:
    name, colon, number = text.partition(":")
    try:
        if not colon and usual is None:
            raise ValueError("CONNECT needs a port")
        port = normal_port(number) if colon else usual or 0
    except ValueError as error:
        why = "an address is not allowed; name the host" if text.startswith("[") else str(error)
        raise RefusedError(403, why, _short(text)) from None
    try:
        return normal_host(name), port
    except ValueError as error:
        raise RefusedError(403, str(error), _short(name), port) from None


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _all(_TOKEN, name):
        raise ValueError("a header field is malformed")
    if not _VALUE.issuperset(value):
        raise ValueError("a header field has characters that none has")
    return name, value.strip(b" \t")


def _values(request: Request, wanted: bytes) -> list[bytes]:
    return [value for name, value in request.fields if name.lower() == wanted]


def _length(request: Request) -> int:
    lengths, codings = (
        _values(request, name) for name in (b"content-length", b"transfer-encoding")
    )
    if len(lengths) + len(codings) > 1:
        raise ValueError("the length of the body is told more than once")
    if request.tunnel and (lengths or codings):
        raise ValueError("CONNECT has no body")
    if codings:
        if codings[0].lower() != b"chunked" or request.version != b"HTTP/1.1":
            raise ValueError("of transfer codings only chunked is taken")
        return CHUNKED
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) <= _MOST_DIGITS):
        raise ValueError("the length of the body is no number")
    return int(lengths[0]) if lengths else 0


def _check_host(request: Request) -> None:
    """RFC 9112 3.2.2 lets a proxy drop another host's name; nobody honest sends one."""
    told = _values(request, b"host")
    if len(told) > 1:
        raise ValueError("there are several Host fields")
    if not told:
        return
    name, colon, number = told[0].decode("latin-1").partition(":")
    usual = request.port if request.tunnel else 80  # some leave it out there
    host, port = normal_host(name), normal_port(number) if colon else usual
    if (host, port) != (request.host, request.port):
        raise ValueError("the Host field names another host than the target")


def _all(allowed: frozenset[int], data: bytes) -> bool:
    return bool(data) and allowed.issuperset(data)


def _short(text: str) -> str:
    """Of what is no name: enough to know it by."""
    return ascii(text)[1:-1][:80]
