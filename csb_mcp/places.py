"""The daemon's own folders and lock files: made, checked, held."""

import os
import stat
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.lib.lock_file import take_lock

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_MAX_RUNTIME = 70  # bytes of the runtime folder's path: 107 less what lies below it (unix(7))


def prepare(settings: Settings) -> None:
    """Make the state and runtime folders. Raises HostUnable."""
    length = len(os.fsencode(settings.runtime_dir))
    if length > _MAX_RUNTIME:
        raise HostUnable(
            f"the path of the runtime folder has {length} bytes, {_MAX_RUNTIME} are the most",
            hint="Name a shorter one: CSB_MCP_RUNTIME_DIR",
        )
    # Sandboxes that a root daemon starts have uids of their own, which pass through this folder.
    private_folder(settings.runtime_dir, 0o711 if os.geteuid() == 0 else 0o700)
    private_folder(settings.mcp_socket.parent)
    private_folder(settings.state_dir)


def daemon_log(settings: Settings) -> Path:
    """Where a daemon logs that ``csb-mcp stdio`` started."""
    return settings.state_dir / "daemon.log"


def private_folder(path: Path, mode: int = 0o700) -> None:
    """Make sure that ``path`` is a folder of ours, with this mode, that nobody else can change.

    Missing parents are made. Raises HostUnable: it is a link or no folder, is somebody else's, was
    writable for others, or a parent lets others rename it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_parents(path)
        path.mkdir(mode=mode, exist_ok=True)
        # O_NOFOLLOW: the checks below are of the folder itself, whatever its name leads to later.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostUnable(
            f"{path} cannot be used as a folder: {error.strerror}",
            hint="It must be a folder, not a link, below folders that this user may enter",
        ) from error
    try:
        _claim(path, descriptor, mode)
    finally:
        os.close(descriptor)


def _claim(path: Path, descriptor: int, mode: int) -> None:
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        raise HostUnable(
            f"{path} belongs to uid {status.st_uid}, not to {os.geteuid()}",
            hint="Move it away, or name another place in the settings",
        )
    if status.st_mode & _WRITABLE:
        raise HostUnable(
            f"{path} is writable for others: what lies in it cannot be trusted",
            hint=f"Look through it, then: chmod {mode:o} {path}",
        )
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def _check_parents(path: Path) -> None:
    direct = path.parent.resolve()
    for parent in (direct, *direct.parents):
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise HostUnable(
                f"{path} would lie below {parent}, in which anybody may rename it",
                hint="Name another place in the settings",
            )


def try_lock(path: Path) -> int | None:
    """Take the lock file ``path``; the descriptor holds it until closed. None: somebody has it.

    The kernel lets go of it with the last copy of the descriptor: a killed owner leaves no lock.
    Raises HostUnable.
    """
    try:
        return take_lock(path)
    except OSError as error:
        raise HostUnable(f"{path} cannot be opened: {error.strerror}") from error


def holder(path: Path) -> str:
    """The pid that a daemon wrote into its lock file."""
    try:
        return path.read_text(errors="replace").strip()[:20] or "unknown"
    except OSError:
        return "unknown"
