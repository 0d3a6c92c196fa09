"""Whether a tree of files changed lately: one bounded look, not a watch."""

import os
from collections import deque
from pathlib import Path

from csb_mcp.lib.safe_open import open_beneath, open_folder


def changed_below(root: Path, since: float, limit: int) -> bool:
    """Whether something in ``root`` changed after ``since``, among the ``limit`` uppermost entries.

    By the time of change, which cannot be set. No link is followed; what cannot be read has not
    changed.
    """
    try:
        fd = open_folder(root)
    except OSError:
        return False
    try:
        folders, left = deque(["."]), limit
        while folders and left > 0:
            found, left = _look(fd, folders, since, left)
            if found:
                return True
        return False
    finally:
        os.close(fd)


def _look(root: int, folders: deque[str], since: float, left: int) -> tuple[bool, int]:
    path = folders.popleft()
    try:
        fd = open_beneath(root, path)
    except OSError:
        return False, left - 1
    try:
        if os.fstat(fd).st_ctime > since:
            return True, left
        with os.scandir(fd) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    break
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{path}/{entry.name}")
                elif entry.stat(follow_symlinks=False).st_ctime > since:
                    return True, left
    except OSError:
        return False, left
    finally:
        os.close(fd)
    return False, left
