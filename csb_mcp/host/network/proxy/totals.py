"""What came of each host, added up: beside the log, which a flood can turn over, this stays."""

import os
import time
from _collections_abc import Callable

from csb_mcp.host.network.proxy.lines import decoded, encoded
from csb_mcp.host.network.proxy.rules import ALLOWED, FAILED

# Names kept apart, so that one who makes up names hides nothing that was let through. All others of
# a kind are one line without a name.
MOST_ALLOWED, MOST_REFUSED = 128, 64
_EVERY = 0.25  # seconds between two writes, of some 3 ms if there are that many
_OTHERS = "", 0
_COUNTS = ("allowed", "refused", "sent", "received")
_MOST_BYTES = 1 << 20
Host = tuple[str, int]


class Totals:
    """``folder`` gets ``totals``, whole each time, and what it says is gone on from."""

    def __init__(self, folder: str, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._path = os.path.join(folder, "totals")
        self._later, self._planned = later, False
        self._allowed: dict[Host, list[float]] = {}  # counts in the order of _COUNTS, and when
        self._refused: dict[Host, list[float]] = {}
        try:
            self._read()
        except (OSError, ValueError):
            pass  # there is none yet

    def add(self, verdict: str, host: str, port: int, moved: tuple[int, int]) -> None:
        """One connection."""
        passed = verdict in (ALLOWED, FAILED)
        counts = self._of((host, port), passed=passed)
        counts[0 if passed else 1] += 1
        counts[2] += moved[0]
        counts[3] += moved[1]
        counts[4] = round(time.time(), 3)
        if not self._planned:
            self._planned = True
            self._later(_EVERY, self.flush)

    def flush(self) -> None:
        """Write all of it. What a full disk does not take is written with the next connection."""
        self._planned = False
        hosts = (*self._allowed.items(), *self._refused.items())
        data = "".join(f"{encoded(_line(*host))}\n" for host in hosts).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(f"{self._path}.new", flags, 0o600)
            try:
                whole = os.write(fd, data) == len(data)
            finally:
                os.close(fd)
            if whole:
                os.rename(f"{self._path}.new", self._path)
        except OSError:
            pass

    def _of(self, host: Host, *, passed: bool) -> list[float]:
        if host in self._allowed and host != _OTHERS:
            return self._allowed[host]
        if not passed:
            return _entry(self._refused, host, MOST_REFUSED)
        if host == _OTHERS or len(self._allowed) >= MOST_ALLOWED:
            return _entry(self._allowed, _OTHERS, 0)
        return self._allowed.setdefault(host, self._refused.pop(host, [0, 0, 0, 0, 0.0]))

    def _read(self) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            data = os.read(fd, _MOST_BYTES)
        finally:
            os.close(fd)
        for line in data.splitlines():
            host, counts = _parsed(decoded(line))
            (self._allowed if counts[0] else self._refused)[host] = counts


def _parsed(line: dict[str, object]) -> tuple[Host, list[float]]:
    """Raises ValueError."""
    host, port = line.get("host"), line.get("port")
    counts: list[float] = []
    for name in (*_COUNTS, "last"):
        count = line.get(name)
        if isinstance(count, int | float):
            counts.append(count)
    if isinstance(host, str) and isinstance(port, int) and len(counts) > len(_COUNTS):
        return (host, port), counts
    raise ValueError("no totals")


def _entry(table: dict[Host, list[float]], host: Host, most: int) -> list[float]:
    if host not in table and len(table) >= most:
        host = _OTHERS
    return table.setdefault(host, [0, 0, 0, 0, 0.0])


def _line(host: Host, counts: list[float]) -> dict[str, object]:
    line: dict[str, object] = {"host": host[0], "port": host[1]}
    return line | dict(zip((*_COUNTS, "last"), counts, strict=True))
