"""The first message of TLS: which host it asks for (RFC 8446 4.1.2, RFC 6066 3)."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_MOST = 1 << 16  # bytes of a hello; those of browsers have about 2000
_RECORD = 1 << 14


class _Reader:
    """Takes pieces off the front. Raises ValueError if there is less."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if size > len(self.data):
            raise ValueError("a TLS hello that is cut short")
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def block(self, width: int) -> bytes:
        """What a length of ``width`` bytes announces."""
        return self.take(int.from_bytes(self.take(width), "big"))


def asked_host(data: bytes) -> bytes | None:
    """The name that the client asks for, empty if none; None: more bytes are needed.

    Raises ValueError if this is no such message.
    """
    message = _message(data)
    return None if message is None else _name(_Reader(message))


def _message(data: bytes) -> bytes | None:
    """The hello without the records around it and its own head."""
    joined, at = b"", 0
    while len(joined) < 4 or len(joined) < 4 + int.from_bytes(joined[1:4], "big"):
        head = data[at : at + 5]
        if head[:1] not in (b"", bytes([_HANDSHAKE])) or head[1:2] not in (b"", b"\x03"):
            raise ValueError("not TLS")
        size = int.from_bytes(head[3:5], "big")
        if len(head) == 5 and not 0 < size <= _RECORD:
            raise ValueError("a TLS record of a wrong size")
        piece = data[at + 5 : at + 5 + size]
        joined += piece
        if (joined and joined[0] != _CLIENT_HELLO) or int.from_bytes(joined[1:4], "big") > _MOST:
            raise ValueError("not a TLS hello")
        if len(head) < 5 or len(piece) < size:
            return None
        at += 5 + size
    return joined[4 : 4 + int.from_bytes(joined[1:4], "big")]


def _name(reader: _Reader) -> bytes:
    reader.take(2 + 32)  # version, random
    reader.block(1)  # session
    reader.block(2)  # ciphers
    reader.block(1)  # compression
    if not reader.data:
        return b""  # before there were extensions
    extensions, found = _Reader(reader.block(2)), list[bytes]()
    if reader.data:
        raise ValueError("a TLS hello with something behind it")
    while extensions.data:
        kind, content = extensions.take(2), extensions.block(2)
        if kind == b"\0\0":
            found.append(content)
    if len(found) > 1:
        raise ValueError("a TLS hello that asks for several hosts")
    return _only(_Reader(found[0])) if found else b""


def _only(reader: _Reader) -> bytes:
    names = _Reader(reader.block(2))
    kind, name = names.take(1), names.block(2)
    if kind != b"\0" or names.data or reader.data or not name:
        raise ValueError("a TLS hello that asks for something else than one host")
    return name
