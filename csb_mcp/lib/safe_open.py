"""Open files that somebody hostile may have made, by openat2(2).

Nothing here follows a link out of the given folder, opens a device or a FIFO (which could block or
act), or reads more than it was told to.
"""

import ctypes
import errno
import itertools
import os
import stat
import struct
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_SYS_OPENAT2 = 437  # the same number on every architecture (Linux 5.6)
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, resolve)
    while True:
        fd = _libc.syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), how, len(how))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # EAGAIN: a rename raced with RESOLVE_BENEATH/IN_ROOT (openat2(2), ERRORS); look again.
        if code not in (errno.EINTR, errno.EAGAIN):
            raise OSError(code, os.strerror(code), path)


@contextmanager
def _folder(root: int | str | os.PathLike[str]) -> Generator[int]:
    if isinstance(root, int):
        yield root
        return
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def open_folder(path: str | os.PathLike[str]) -> int:
    """An O_PATH descriptor of the directory ``path`` (absolute); no part of it may be a link.

    Resolve first, then open with this: a link that appears in between is refused. The descriptor
    is the caller's. Raises OSError (ELOOP for a link, ENOTDIR, ENOENT).
    """
    flags = os.O_PATH | os.O_DIRECTORY
    return _openat2(-100, os.fspath(path), flags, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)


def open_regular(root: int | str | os.PathLike[str], path: str) -> int:
    """A read-only descriptor of the regular file ``path`` beneath ``root``; links are refused.

    Raises OSError: ELOOP (a link), EXDEV (outside), EINVAL (not a regular file).
    """
    with _folder(root) as dir_fd:
        fd = _openat2(
            dir_fd,
            path,
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS,
        )
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def read_regular(root: int | str | os.PathLike[str], path: str, limit: int) -> bytes:
    """The first ``limit`` bytes of the regular file ``path`` beneath ``root``."""
    fd = open_regular(root, path)
    try:
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(fd)


def open_beneath(root: int, path: str) -> int:
    """A descriptor of the folder ``path`` beneath ``root``, good for listing; links are refused.

    Raises OSError: ELOOP (a link), EXDEV (outside), ENOTDIR, ENOENT.
    """
    how = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    return _openat2(root, path, os.O_RDONLY | os.O_DIRECTORY, how)


def names_in(root: int, path: str, limit: int) -> list[str]:
    """At most ``limit`` names from the folder ``path`` beneath ``root``, in no order.

    Raises OSError: ELOOP (a link), EXDEV (outside), ENOTDIR, ENOENT.
    """
    fd = open_beneath(root, path)
    try:
        with os.scandir(fd) as entries:
            return [entry.name for entry in itertools.islice(entries, limit)]
    finally:
        os.close(fd)


def exists_in_root(root_fd: int, path: str) -> bool:
    """Whether ``path`` exists in the tree of ``root_fd``, taken as its root directory.

    Links (absolute ones too) are resolved inside that tree; magic links are refused.
    """
    try:
        fd = _openat2(root_fd, path, os.O_PATH, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    except OSError:
        return False
    os.close(fd)
    return True


def is_full(root_fd: int, path: str) -> bool:
    """Whether the file system at ``path`` in the tree of ``root_fd`` has no room left."""
    try:
        fd = _openat2(root_fd, path, os.O_PATH, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    except OSError:
        return False
    try:
        return os.fstatvfs(fd).f_bavail == 0
    except OSError:
        return False
    finally:
        os.close(fd)


def tail(folder: Path, name: str, limit: int) -> bytes:
    """The last ``limit`` bytes of the regular file ``name`` in ``folder``."""
    fd = open_regular(folder, name)
    try:
        size = os.fstat(fd).st_size
        return os.pread(fd, limit, max(0, size - limit))
    finally:
        os.close(fd)
