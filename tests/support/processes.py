"""Processes that may end while a test looks at them."""

import contextlib
from pathlib import Path


def command_line(pid: int) -> bytes:
    """Its words, each ended by a NUL; empty if it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_proxy(pid: int) -> bool:
    """Whether it is an egress proxy itself, not bwrap around it."""
    words = command_line(pid).split(b"\0")
    return b"/run/csb/program/__main__.py" in words and b"python" in words[0]
