"""Which program inside a sandbox holds a connection; read from outside, in bounds."""

import os
from itertools import islice
from pathlib import Path

from csb_mcp.lib.processes import descendants

_TABLE_BYTES = 1 << 20  # some 7,000 sockets
_PROCESSES, _FILES = 512, 4096  # looked at, and at so many of their files in all
_NAME = 15  # as the kernel keeps it
_PROXY_PORT = b":0C38"  # 3128
_LOOPBACK = b"0100007F"


def client_of(init: int, port: int) -> str | None:
    """Name of the program below ``init`` that has port ``port`` of a connection to the proxy.

    What it calls itself, made printable; None if it cannot be seen (any more).
    """
    inode = _inode(init, port)
    wanted = f"socket:[{inode}]"
    left = _FILES
    for pid in descendants(init)[:_PROCESSES] if inode else ():
        try:
            with os.scandir(f"/proc/{pid}/fd") as files:  # not all of them: there may be many
                names = [file.name for file in islice(files, left)]
        except OSError:
            continue
        left -= len(names)
        if any(_leads_to(f"/proc/{pid}/fd/{name}", wanted) for name in names):
            return _name(pid)
        if left <= 0:
            break
    return None


def _inode(init: int, port: int) -> int:
    """Of the socket; 0 if there is none."""
    try:
        with Path(f"/proc/{init}/net/tcp").open("rb") as file:
            rows = file.read(_TABLE_BYTES).split(b"\n")
    except OSError:
        return 0
    ours = b"%s:%04X" % (_LOOPBACK, port)
    for row in rows[1:]:
        fields = row.split()
        if len(fields) > 9 and fields[1] == ours and fields[2] == _LOOPBACK + _PROXY_PORT:
            return int(fields[9])
    return 0


def _leads_to(link: str, wanted: str) -> bool:
    try:
        return os.readlink(link) == wanted
    except OSError:
        return False


def _name(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/comm").read_bytes()[:_NAME].strip().decode(errors="replace")
    except OSError:
        return None
    return "".join(c if c.isprintable() else "?" for c in text) or None
