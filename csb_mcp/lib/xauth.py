"""Xauthority files with one cookie that fits every host name and display number (FamilyWild).

Usual entries are looked up by host name, which differs in every UTS namespace: the client then
finds no cookie and is refused. The format is that of Xau(3): five fields, big-endian lengths.
"""

import secrets
import struct

PROTOCOL = b"MIT-MAGIC-COOKIE-1"
"""The authorization protocol: whoever knows the cookie may connect."""

_FAMILY_WILD = 0xFFFF


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
