"""The log of connections: a JSON object a line, bounded in size and in speed; and its totals."""

import os
import time
from _collections_abc import Callable

from csb_mcp.host.network.proxy.lines import encoded
from csb_mcp.host.network.proxy.rules import ALLOWED
from csb_mcp.host.network.proxy.totals import Totals

MOST_BYTES = 4 << 20  # then it becomes log.1, and that is gone
_BURST, _EVERY = 200, 1.0  # refusals written one by one, in so many seconds


class Journal:
    """``folder`` gets ``log`` and ``log.1``. A full disk loses lines, never the way out."""

    def __init__(self, folder: str, later: Callable[[float, Callable[[], None]], None]) -> None:
        self._later = later
        self._path = os.path.join(folder, "log")
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size
        self._left, self._planned = _BURST, False
        self._unwritten: dict[str, int] = {}
        self._totals = Totals(folder, later)

    def write(
        self,
        verdict: str,
        host: str,
        port: int,
        *,
        why: str = "",
        address: str = "",
        moved: tuple[int, int] = (0, 0),
        seconds: float = 0.0,
    ) -> None:
        """One connection. In a flood of refusals those beyond some are counted, by verdict."""
        self._totals.add(verdict, host, port, moved)
        if verdict != ALLOWED:
            self._plan()
            if not self._left:
                self._unwritten[verdict] = self._unwritten.get(verdict, 0) + 1
                return
            self._left -= 1
        line = _line(verdict, host, port, why)
        sent, received = moved
        line |= {"address": address, "sent": sent, "received": received}
        self._put(line | {"seconds": round(seconds, 3)})

    def end(self) -> None:
        """Write what is owed."""
        self._flush()
        self._totals.flush()

    def _flush(self) -> None:
        for verdict, count in self._unwritten.items():
            self._put(_line(verdict, "", 0, f"{count} more in one second"))
        self._unwritten = {}

    def _put(self, line: dict[str, object]) -> None:
        data = f"{encoded(line)}\n".encode()
        try:
            if self._size + len(data) > MOST_BYTES:
                self._turn()
            self._size += os.write(self._fd, data)
        except OSError:
            pass

    def _turn(self) -> None:
        try:
            os.rename(self._path, self._path + ".1")
        except FileNotFoundError:
            pass  # it was, and then no new one could be made
        # In this order: a number that was closed may be a connection's when the next line comes.
        old, self._fd = self._fd, self._open()
        self._size = 0
        os.close(old)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._later(_EVERY, self._next)

    def _next(self) -> None:
        self._planned, self._left = False, _BURST
        self._flush()


def _line(verdict: str, host: str, port: int, why: str) -> dict[str, object]:
    line: dict[str, object] = {"time": round(time.time(), 3), "host": host, "port": port}
    line |= {"verdict": verdict, "why": why, "address": "", "sent": 0, "received": 0}
    return line | {"seconds": 0.0}
