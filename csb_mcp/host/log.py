"""Reads parts of a terminal's log, which is two files and a note of how much went before them.

``log`` grows; when it is big it becomes ``log.1``, and ``log.start`` then says at which byte of all
that was printed the new ``log`` begins (``terminal/log_writer.py``). The files lie in a folder of
the sandbox's uid: they are opened without following links.
"""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from csb_mcp.lib.safe_open import open_regular, read_regular
from csb_mcp.model import LogPart

START = ".start"
"""What is added to the log's name to name the note."""

_START_BYTES = 20
_TRIES, _TRY_SECONDS = 20, 0.002  # a rotation takes a millisecond


@dataclass(frozen=True, slots=True)
class _Piece:
    """An open file, and where it begins in all that was printed."""

    fd: int
    start: int
    size: int


def read_log(log: Path, offset: int | None, limit: int) -> LogPart:
    """See ``ports.Keeper.read_log``. Blocks for as long as reading takes. Raises OSError."""
    with _pieces(log) as pieces:
        first = pieces[0].start if pieces else 0
        end = pieces[-1].start + pieces[-1].size if pieces else 0
        wanted = max(first, end - limit) if offset is None else min(offset, end)
        begin = max(wanted, first)
        data = b"".join(_read(piece, begin, begin + limit) for piece in pieces)
    return LogPart(data, begin, begin + len(data), gap=begin > wanted)


def _read(piece: _Piece, begin: int, end: int) -> bytes:
    low = max(begin, piece.start) - piece.start
    high = min(end - piece.start, piece.size)
    return os.pread(piece.fd, high - low, low) if high > low else b""


@contextmanager
def _pieces(log: Path) -> Generator[list[_Piece]]:
    """The files that there are, oldest first, as they were at one moment between two rotations."""
    opened: list[int] = []
    try:
        pieces, whole = _look(log, opened)
        for _ in range(_TRIES):
            if whole:
                break
            _close(opened)
            time.sleep(_TRY_SECONDS)
            pieces, whole = _look(log, opened)
        yield pieces
    finally:
        _close(opened)


def _look(log: Path, opened: list[int]) -> tuple[list[_Piece], bool]:
    """The pieces, and whether they belong together; what was opened is added to ``opened``."""
    start = _start(log)
    old, new = (_open(log.with_name(name)) for name in (f"{log.name}.1", log.name))
    opened += [fd for fd in (old, new) if fd is not None]
    sizes = {fd: os.fstat(fd).st_size for fd in opened}
    begin = start if old is None else max(start, sizes[old])  # a note that was lost says 0
    pieces = [] if old is None else [_Piece(old, begin - sizes[old], sizes[old])]
    pieces += [] if new is None else [_Piece(new, begin, sizes[new])]
    # Between its two renames a rotation has left no log; after them the note has changed.
    return pieces, (new is not None or old is None) and start == _start(log)


def _start(log: Path) -> int:
    try:
        text = read_regular(log.parent, log.name + START, _START_BYTES)
    except OSError:
        return 0
    return int(text) if text.strip().isdigit() else 0


def _open(path: Path) -> int | None:
    try:
        return open_regular(path.parent, path.name)
    except FileNotFoundError:
        return None


def _close(opened: list[int]) -> None:
    while opened:
        os.close(opened.pop())
