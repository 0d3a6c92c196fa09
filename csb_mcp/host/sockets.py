"""Sockets of a user's session: whether they are what they should be, and whether they answer."""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from csb_mcp.errors import HostUnable, InvalidInput

_SECONDS = 5.0
_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
# In a process of its own: a user's files and sockets are only reached with that user's rights.
_TRY = """
import os, socket, stat, sys
uid, gid, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
try:
    if stat.S_ISCHR(os.stat(path).st_mode): os.open(path, os.O_RDWR | os.O_NONBLOCK)
    else: socket.socket(socket.AF_UNIX).connect(path)
except OSError as error: sys.exit(error.strerror)
"""


def session_socket(
    name: str,
    path: Path,
    uid: int,
    gid: int,
    *,
    owners: Collection[int],
    keep_out: Collection[Path],
) -> Path:
    """``path`` without links, once all is well with it.

    It must be a socket of one of ``owners``, in folders that only they and root can change, in none
    of ``keep_out`` (where sandboxes write), and ``uid`` must be able to connect. ``name`` is what
    is forwarded. Raises HostUnable, InvalidInput.
    """
    real = resolved(name, path)
    for place in keep_out:
        if real.is_relative_to(place.resolve()):
            why = f"{name}: {real} lies in {place}, where sandboxes can put what they like"
            raise InvalidInput(why, field="forward", hint="name one in a folder of the session")
    found = real.stat()
    if not stat.S_ISSOCK(found.st_mode):
        raise HostUnable(f"{name}: {real} is no socket", field="forward")
    if found.st_uid not in owners:
        raise HostUnable(
            f"{name}: {real} belongs to uid {found.st_uid}, and the payload is uid {uid}",
            field="forward",
            hint="run the daemon as that user; root gives sandboxes uids of their own",
        )
    _check_folders(name, real, {0, *owners})
    reachable(name, real, uid, gid)
    return real


def resolved(name: str, path: Path) -> Path:
    """``path`` without links. Raises HostUnable if it is not there."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = f"{name}: {path} is not there, or not for us to see"
        raise HostUnable(why, field="forward", hint="is its service running?") from error


def reachable(name: str, path: Path, uid: int, gid: int) -> None:
    """Connect to the socket (open the device) ``path`` as ``uid``, once. Raises HostUnable."""
    why = _as_ourselves(path) if uid == os.geteuid() else _as_another(path, uid, gid)
    if why:
        raise HostUnable(
            f"{name}: {path} does not let uid {uid} in: {why}",
            field="forward",
            hint="is its service running, and is this user allowed to use it?",
        )


def _as_ourselves(path: Path) -> str:
    try:
        if path.is_char_device():
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            return ""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(os.fspath(path))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _as_another(path: Path, uid: int, gid: int) -> str:
    command = [sys.executable, "-I", "-S", "-c", _TRY, str(uid), str(gid), str(path)]
    try:
        done = subprocess.run(
            command,
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.decode(errors="replace").strip()[-200:] if done.returncode else ""


def _check_folders(name: str, path: Path, owners: Collection[int]) -> None:
    """Nobody else may put another socket in its place between this look and the mount."""
    for folder in path.parents:
        found = folder.stat()
        sticky = found.st_mode & stat.S_ISVTX
        if found.st_uid not in owners or (found.st_mode & _WRITABLE and not sticky):
            raise HostUnable(
                f"{name}: others can change {folder}, in which {path} lies", field="forward"
            )
