"""Drain a folder that a payload fills: small files, each read once and removed.

The payload may replace the folder, or put anything into it: links, FIFOs, folders, a million files.
Everything is opened beneath the home, without links, and a look costs at most so much.
"""

import contextlib
import errno
import os
from collections.abc import Sequence

from csb_mcp.lib.inotify import Inotify
from csb_mcp.lib.pulse import Pulse
from csb_mcp.lib.safe_open import names_in, open_beneath, read_regular
from csb_mcp.lib.threads import to_its_end

MAX_BYTES = 64 * 1024
_LISTED = 2048  # names in one look; what is beyond comes with the next
_READ = 128  # files in one look, the newest
_WATCHES = 64  # of folders one after another: each may live on elsewhere, and with it its watch
_PAUSE = 0.005  # least seconds between two beats


class InotifySpools:
    """The :class:`~csb_mcp.ports.Spools` by inotify(7)."""

    def open(self, home: int, path: str) -> "HomeSpool":
        """See :class:`~csb_mcp.ports.Spools`."""
        return HomeSpool(home, path)


class HomeSpool:
    """See :class:`~csb_mcp.ports.Spool`."""

    def __init__(self, home: int, path: str) -> None:
        self._home = os.dup(home)
        self._path = path
        self._watched, self._watches = (0, 0), 0
        self.news = Pulse()
        try:
            self._inotify = Inotify(self.news.beat, _PAUSE)
        except OSError:  # no instance left to give: whoever takes looks by himself now and then
            self._inotify = None

    async def take(self) -> tuple[Sequence[bytes], bool]:
        """See :class:`~csb_mcp.ports.Spool`."""
        try:
            folder = open_beneath(self._home, self._path)
        except OSError:
            return (), False
        self._watch(folder)
        # In a thread, for the disk may be slow. It closes the folder.
        return await to_its_end(lambda: _drained(folder))

    def _watch(self, folder: int) -> None:
        """Before the look, so that nothing slips through; anew if the folder was replaced."""
        found = os.fstat(folder)
        identity = found.st_dev, found.st_ino
        if self._inotify is None or identity == self._watched or self._watches >= _WATCHES:
            return
        with contextlib.suppress(OSError):
            if self._inotify.add(f"/proc/self/fd/{folder}/."):
                self._watched, self._watches = identity, self._watches + 1

    def close(self) -> None:
        """See :class:`~csb_mcp.ports.Spool`."""
        home, self._home = self._home, -1
        if home >= 0:
            os.close(home)
        if self._inotify is not None:
            self._inotify.close()


def _drained(folder: int) -> tuple[Sequence[bytes], bool]:
    try:
        return _looked(folder)
    except OSError:
        return (), False
    finally:
        os.close(folder)


def _looked(folder: int) -> tuple[Sequence[bytes], bool]:
    names = names_in(folder, ".", _LISTED)
    seen = sorted(name for name in names if not name.startswith("."))
    flood = len(names) > _READ
    read = [content for name in seen[-_READ:] if (content := _content(folder, name)) is not None]
    for name in names:
        _remove(folder, name)
    return read, flood


def _content(folder: int, name: str) -> bytes | None:
    try:
        content = read_regular(folder, name, MAX_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_BYTES else None


def _remove(folder: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.EPERM):
            with contextlib.suppress(OSError):  # one that is not empty stays: it costs a name
                os.rmdir(name, dir_fd=folder)
