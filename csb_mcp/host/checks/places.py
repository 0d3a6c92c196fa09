"""Folders: room in them, and whether they stay."""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.host.checks.outcome import Check, Outcome, enough, ok

_MIB = 1024 * 1024
_RUNTIME_EACH = 5 * _MIB  # a framebuffer of 1280x800, and little else
_LEAST = {"runtime folder": 16 * _MIB, "state folder": 64 * _MIB}
_WANTED = {"runtime folder": 256 * _MIB, "state folder": 2048 * _MIB}
_LINGER = Path("/var/lib/systemd/linger")


def checks(settings: Settings) -> Iterator[Check]:
    """One for each folder."""
    yield _runtime(settings.runtime_dir)
    free = _free(settings.state_dir)
    detail = f"{free // _MIB} MiB free for {settings.state_dir}"
    repair = "make room there, or set state_dir to another disk"
    yield _space("state folder", detail, repair, free)
    for root in settings.project_roots:
        detail = str(root) if root.is_dir() else f"{root} is not there"
        yield enough("projects", detail, f"mkdir -p {root}", well=root.is_dir())
    if os.geteuid() != 0:
        yield from _linger(settings.runtime_dir)


def _runtime(path: Path) -> Check:
    kind = _filesystem(_existing(path))
    if kind not in ("tmpfs", "ramfs"):
        detail = f"{path} is on {kind}: displays would write to a disk"
        return Check("runtime folder", Outcome.WEAK, detail, "set runtime_dir to one on tmpfs")
    free = _free(path)
    detail = f"{free // _MIB} MiB free for {path}: room for {free // _RUNTIME_EACH} displays"
    repair = "mount its tmpfs larger (mount -o remount,size=1G), or set runtime_dir to another"
    return _space("runtime folder", detail, repair, free)


def _space(what: str, detail: str, repair: str, free: int) -> Check:
    if free < _LEAST[what]:
        return Check(what, Outcome.MISSING, detail, repair)
    return enough(what, detail, repair, well=free >= _WANTED[what])


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that is there already."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _free(path: Path) -> int:
    found = os.statvfs(_existing(path))
    return found.f_bavail * found.f_frsize


def _filesystem(path: Path) -> str:
    """Kind of the filesystem that holds ``path``, by its device (proc(5), mountinfo)."""
    number = path.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "an unknown filesystem"


def _linger(runtime: Path) -> Iterator[Check]:
    """What lies below /run/user goes with the user's last session, unless he may linger."""
    if not runtime.is_relative_to("/run/user") or not _LINGER.parent.is_dir():
        return
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return
    if (_LINGER / user).exists():
        yield ok("linger", f"{user} may: sandboxes outlive the last session")
        return
    why = "sandboxes end with the user's last session"
    yield Check("linger", Outcome.WEAK, why, f"loginctl enable-linger {user}")
