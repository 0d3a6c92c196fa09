"""Files of lines that grow, in a home that somebody hostile owns: what is new in them.

Between two looks nothing is kept open, and of each file only how far it was read.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from csb_mcp.lib.safe_open import names_in, open_regular

LIMIT = 1024**2
"""Bytes read in one look; a line that is longer is passed over."""

FILES = 1000
"""More are not looked at."""

NAMES = 20_000
"""More are not listed, in a home that may be made to have any number."""


@dataclass(slots=True)
class _File:
    """How far one file was read. ``passing``: in the middle of a line that is too long."""

    identity: tuple[int, int] = (0, 0)
    offset: int = 0
    passing: bool = False


class GrowingLines:
    """Lines of the files that ``paths`` names below ``home``, an O_PATH descriptor of the caller's.

    Lines that have none of ``marks`` in them are left out.
    """

    def __init__(
        self, home: int, paths: Callable[[], Iterable[str]], marks: tuple[bytes, ...]
    ) -> None:
        self._home = home
        self._paths = paths
        self._marks = marks
        self._files: dict[str, _File] = {}
        self._room = NAMES
        self.more = False
        """Whether the last look read anything, of interest or not: there may be more."""

    def new(self) -> Iterator[tuple[str, bytes]]:
        """Path and line, of :data:`LIMIT` bytes at most; the rest comes with the next look."""
        left, self.more, self._room = LIMIT, False, NAMES
        grown = sorted(self._grown(), key=lambda item: item[0])  # the one that is huge comes last
        for size, path in grown:
            if left <= 0:
                return
            wanted = min(size, left)
            try:
                data = self._read(path, wanted)
            except OSError:
                continue
            left -= len(data)
            before = self._files[path].offset
            yield from ((path, line) for line in self._split(self._files[path], data))
            self.more |= self._files[path].offset > before

    def names(self, folder: str, limit: int) -> list[str]:
        """Of what is in a folder, at most ``limit``; none if it is no folder.

        Of all folders no more than :data:`NAMES` in one look.
        """
        try:
            found = names_in(self._home, folder, min(limit, self._room)) if self._room else []
        except (OSError, ValueError):
            return []
        self._room -= len(found)
        return found

    def _grown(self) -> Iterator[tuple[int, str]]:
        """Files that have more than was read, with how much more."""
        paths = [path for _, path in zip(range(FILES), self._paths(), strict=False)]
        self._files = {path: self._files.get(path) or _File() for path in paths}
        for path in paths:
            try:
                fd = open_regular(self._home, path)
            except OSError:
                continue
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
            file, identity = self._files[path], (status.st_dev, status.st_ino)
            if file.identity != identity or status.st_size < file.offset:
                file.identity, file.offset, file.passing = identity, 0, False
            if status.st_size > file.offset:
                yield status.st_size - file.offset, path

    def _read(self, path: str, size: int) -> bytes:
        fd = open_regular(self._home, path)
        try:
            status = os.fstat(fd)
            if self._files[path].identity != (status.st_dev, status.st_ino):
                return b""  # another one since: with the next look
            return os.pread(fd, size, self._files[path].offset)
        finally:
            os.close(fd)

    def _split(self, file: _File, data: bytes) -> Iterator[bytes]:
        """Whole lines; what is behind the last line end is read again next time."""
        end = data.rfind(b"\n") + 1
        if not end and len(data) >= LIMIT:
            file.passing, end = True, len(data)
            file.offset += end
            return
        file.offset += end
        lines = data[:end].splitlines()
        if file.passing and lines:
            del lines[0]
            file.passing = False
        # Most others are long, and are of no interest.
        yield from (line for line in lines if any(mark in line for mark in self._marks))
