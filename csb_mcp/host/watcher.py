"""Watch for paths that appear in a folder somebody else writes to."""

import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path, PurePosixPath

from csb_mcp.lib.inotify import Inotify
from csb_mcp.lib.pulse import Pulse

_log = logging.getLogger(__name__)


class InotifyWatcher:
    """The :class:`~csb_mcp.ports.Watcher` by inotify(7)."""

    async def appearing(self, folder: Path, paths: Sequence[str]) -> AsyncGenerator[str]:
        """See :class:`~csb_mcp.ports.Watcher`."""
        news, missing = Pulse(), set(paths)
        try:
            inotify = Inotify(news.beat)
        except OSError as error:
            _log.warning("%s is not watched: %s", folder, error)
            return
        try:
            while missing:
                seen = news.count
                _watch_parents(inotify, folder, missing)
                # Only now, with the watches set, can nothing slip through between look and wait.
                found = {path for path in missing if _exists(folder, path)}
                for path in sorted(found):
                    yield path
                missing -= found
                if not found:
                    await news.beyond(seen)
        except OSError as error:
            _log.warning("%s is no longer watched: %s", folder, error)
        finally:
            inotify.close()


def _watch_parents(inotify: Inotify, folder: Path, paths: set[str]) -> None:
    for parent in {parent for path in paths for parent in PurePosixPath(path).parents}:
        inotify.add(str(folder / parent))


def _exists(folder: Path, path: str) -> bool:
    """Whether ``path`` is there, or a link stands in its place or on the way to it."""
    at = folder
    for part in PurePosixPath(path).parts:
        at /= part
        if at.is_symlink():
            return True
        if not at.exists():
            return False
    return True
