"""Hears that a terminal printed something, by inotify(7) on its log.

tmux hands what a pane prints to the log's writer before it takes it in; when the writer has
written, tmux has long gone on, and answers with the new screen.
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from csb_mcp.errors import HostUnable, TerminalFailed
from csb_mcp.lib.pulse import Pulse

HOLD_SECONDS = 0.002  # between two beats; a flood is one beat after another, not thousands
_IN_MODIFY, _IN_CLOSE_WRITE, _IN_ONLYDIR = 0x2, 0x8, 0x01000000
_MASK = _IN_MODIFY | _IN_CLOSE_WRITE | _IN_ONLYDIR
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows
_BUFFER = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class LogFolders:
    """One inotify instance for all terminals: an account has 128 of them, but watches in plenty.

    It is opened with the first watch and closed with the last. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._told: dict[int, list[Callable[[], None]]] = {}

    def watch(self, folder: Path, told: Callable[[], None]) -> int:
        """Call ``told`` after a file in ``folder`` was written; gives a number for ``forget``.

        Raises HostUnable, TerminalFailed.
        """
        if self._fd < 0:
            self._open()
        watch = _libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK)
        if watch < 0:
            error = os.strerror(ctypes.get_errno())
            self._close_unused()
            raise TerminalFailed(f"{folder} cannot be watched: {error}")
        self._told.setdefault(watch, []).append(told)  # a folder has one watch, however often
        return watch

    def forget(self, watch: int, told: Callable[[], None]) -> None:
        """End a watch. Idempotent."""
        others = self._told.get(watch, [])
        if told in others:
            others.remove(told)
            if not others:
                del self._told[watch]
                _libc.inotify_rm_watch(self._fd, watch)
        self._close_unused()

    def _open(self) -> None:
        fd = _libc.inotify_init1(_FLAGS)
        if fd < 0:
            raise HostUnable(
                "no inotify instance is left",
                hint="Raise the sysctl fs.inotify.max_user_instances",
            )
        self._fd = fd
        asyncio.get_running_loop().add_reader(fd, self._drain)

    def _close_unused(self) -> None:
        if not self._told and self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _drain(self) -> None:
        try:
            events = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        position, watches = 0, set[int]()
        while position < len(events):
            watch, _, _, length = _HEADER.unpack_from(events, position)
            position += _HEADER.size + length
            watches.add(watch)
        if -1 in watches:  # the queue overflowed: whose events were lost is not known
            watches.update(self._told)
        for watch in watches & self._told.keys():
            for told in tuple(self._told[watch]):
                told()


class Wake:
    """``pulse`` beats when the pane printed something; ``last`` is the loop time of the last beat.

    The owner closes it.
    """

    def __init__(self, folders: LogFolders, log: Path) -> None:
        self.pulse = Pulse()
        self._loop = asyncio.get_running_loop()
        self.last = self._loop.time()
        self._log = log
        self._seen = self._size()
        self._hold: asyncio.TimerHandle | None = None
        self._again = False
        self._folders = folders
        self._watch = folders.watch(log.parent, self._heard)

    def printed(self) -> int | None:
        """Bytes logged since the last call; None if nobody can tell (the log began anew)."""
        before, self._seen = self._seen, self._size()
        if before[0] != self._seen[0]:
            return None
        return self._seen[1] - before[1]

    def close(self) -> None:
        """Stop. Idempotent."""
        if self._hold is not None:
            self._hold.cancel()
        self._folders.forget(self._watch, self._heard)

    def _size(self) -> tuple[int, int]:
        try:
            found = self._log.stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def _heard(self) -> None:
        if self._hold is None:
            self._beat()
        else:
            self._again = True

    def _beat(self) -> None:
        self._again = False
        self._hold = self._loop.call_later(HOLD_SECONDS, self._release)
        self.last = self._loop.time()
        self.pulse.beat()

    def _release(self) -> None:
        self._hold = None
        if self._again:
            self._beat()
