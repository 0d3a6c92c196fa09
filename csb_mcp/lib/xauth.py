"""Xauthority files: ours with one cookie that fits every host name and display number (FamilyWild).

Usual entries are looked up by host name, which differs in every UTS namespace: the client then
finds no cookie and is refused. The format is that of Xau(3): five fields, big-endian lengths.
"""

import secrets
import struct
from collections.abc import Iterator

PROTOCOL = b"MIT-MAGIC-COOKIE-1"
"""The authorization protocol: whoever knows the cookie may connect."""

_FAMILY_WILD = 0xFFFF
_FAMILY_LOCAL = 256


def new_cookie() -> bytes:
    """128 bits that nobody can guess."""
    return secrets.token_bytes(16)


def pack_wild(cookie: bytes) -> bytes:
    """Content of an Xauthority file whose only entry is ``cookie``."""
    fields = (b"", b"", PROTOCOL, cookie)  # address, display number, protocol, data
    packed = b"".join(struct.pack(">H", len(field)) + field for field in fields)
    return struct.pack(">H", _FAMILY_WILD) + packed


def unpack_wild(content: bytes) -> bytes:
    """The cookie in ``content``; the inverse of :func:`pack_wild`.

    Raises ValueError if it is anything else than one such entry.
    """
    cookie = content[len(pack_wild(b"")) :]
    if not cookie or content != pack_wild(cookie):
        raise ValueError("not an Xauthority file with one FamilyWild cookie")
    return cookie


def find_cookie(content: bytes, number: str) -> bytes:
    """The cookie for this host's display ``number`` in a user's file; empty if it has none."""
    for family, _, display, protocol, cookie in _entries(content):
        ours = family in (_FAMILY_LOCAL, _FAMILY_WILD) and protocol == PROTOCOL
        if ours and display in (b"", number.encode()):
            return cookie
    return b""


def _entries(content: bytes) -> Iterator[tuple[int, bytes, bytes, bytes, bytes]]:
    """As many as are whole: family, address, display number, protocol, data."""
    at = 0
    while at + 2 <= len(content):
        family = int.from_bytes(content[at : at + 2])
        at += 2
        fields: list[bytes] = []
        for _ in range(4):
            length = int.from_bytes(content[at : at + 2])
            fields.append(content[at + 2 : at + 2 + length])
            at += 2 + length
        if at > len(content):
            return
        yield family, fields[0], fields[1], fields[2], fields[3]
