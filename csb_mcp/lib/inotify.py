"""inotify(7) on an event loop: tell when names appear in folders, without following links."""

import asyncio
import ctypes
import errno
import os
from collections.abc import Callable

_IN_CREATE = 0x100
_IN_MOVED_TO = 0x80
_IN_ONLYDIR = 0x01000000
_IN_DONT_FOLLOW = 0x02000000
_NONBLOCK = os.O_NONBLOCK | os.O_CLOEXEC
_BUFFER = 64 * 1024
_PAUSE = 0.05  # whoever fills the folder does not fill our time

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify:
    """Calls ``appeared`` after something appeared in a watched folder (coalesced, no names).

    The events' names are not used: whoever is told looks at the folder itself, so an overflowing
    queue loses nothing. Belongs to the running loop; the owner closes it. Raises OSError (EMFILE:
    ``fs.inotify.max_user_instances``). ``pause``: least seconds between two calls.
    """

    __slots__ = ("_appeared", "_fd", "_loop", "_pause", "_timer")

    def __init__(self, appeared: Callable[[], None], pause: float = _PAUSE) -> None:
        self._pause = pause
        self._fd: int = _libc.inotify_init1(_NONBLOCK)
        if self._fd < 0:
            raise _error("inotify_init1")
        self._appeared = appeared
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._listen()

    def add(self, folder: str) -> bool:
        """Watch ``folder``; False if it is not there, not a folder, or a link to one.

        Adding it again is cheap and needed after it was replaced. Raises OSError (ENOSPC:
        ``fs.inotify.max_user_watches``).
        """
        mask = _IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR | _IN_DONT_FOLLOW
        if _libc.inotify_add_watch(self._fd, os.fsencode(folder), mask) >= 0:
            return True
        if ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return False
        raise _error(folder)

    def _listen(self) -> None:
        self._loop.add_reader(self._fd, self._drain)

    def _drain(self) -> None:
        try:
            os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return
        self._loop.remove_reader(self._fd)
        self._timer = self._loop.call_later(self._pause, self._listen)
        self._appeared()

    def close(self) -> None:
        """Stop. Idempotent."""
        fd, self._fd = self._fd, -1
        if self._timer is not None:
            self._timer.cancel()
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)


def _error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), what)
