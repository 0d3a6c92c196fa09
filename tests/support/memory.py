"""What a process has in its memory, searched from outside as whoever may trace it."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_PIECE = 4 << 20
_ENTRIES = 1 << 17  # of the page map, read at once
_THERE = 0b11 << 62  # in memory, or swapped out


def in_memory(pid: int, wanted: bytes) -> bool:
    """Whether it has these bytes anywhere. Raises OSError if it may not be looked at."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for start, size in _filled(pid):
            if _has(memory.fileno(), start, size, wanted):
                return True
    return False


def of_namespace(pid: int) -> list[int]:
    """Processes in the same PID namespace as that one."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == wanted:
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended
    return found


def _has(memory: int, start: int, size: int, wanted: bytes) -> bool:
    kept = b""
    for at in range(start, start + size, _PIECE):
        try:
            data = os.pread(memory, min(_PIECE, start + size - at), at)
        except OSError:
            return False  # unmapped since, or a device's
        if wanted in kept + data:
            return True
        kept = data[-len(wanted) :]
    return False


def _filled(pid: int) -> Iterator[tuple[int, int]]:
    """Runs of pages that hold something: most of what a program maps it never touches."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/pagemap").open("rb", 0) as pages:
        for line in maps:
            place, rights, *_ = line.split()
            start, end = (int(word, 16) for word in place.split("-"))
            if rights.startswith("r") and not line.endswith("[vsyscall]"):
                yield from _runs(pages.fileno(), start, end)


def _runs(pages: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    for at in range(start, end, _ENTRIES * _PAGE):
        count = min(_ENTRIES, (end - at) // _PAGE)
        data = os.pread(pages, count * 8, at // _PAGE * 8)
        if data.count(0) == len(data):
            continue
        begun = None
        for number, (entry,) in enumerate(struct.iter_unpack("<Q", data)):
            there = entry & _THERE
            if there and begun is None:
                begun = number
            elif not there and begun is not None:
                yield at + begun * _PAGE, (number - begun) * _PAGE
                begun = None
        if begun is not None:
            yield at + begun * _PAGE, (count - begun) * _PAGE
