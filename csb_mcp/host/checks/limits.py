"""How many sandboxes the kernel's limits leave room for."""

import os
import pwd
import resource
from collections.abc import Iterator
from pathlib import Path

from csb_mcp.host.checks.outcome import Check, enough
from csb_mcp.host.distribution import here

_WANTED = 50  # sandboxes that a host should have room for
_FILES_EACH, _WATCHERS_EACH, _WATCHES_EACH, _PROCESSES_EACH = 12, 1, 16, 100
_SPARE = 0.5  # of a limit that a user's other programs need as well
_WATCHERS = "fs.inotify.max_user_instances"
_WATCHES = "fs.inotify.max_user_watches"
_PIDS = "kernel.pid_max"


def checks() -> Iterator[Check]:
    """One for each limit."""
    host = here()
    files = _limit(resource.RLIMIT_NOFILE)
    yield _room("open files", "the hard limit", files, _FILES_EACH, _raise("nofile", 65536))
    if os.geteuid() != 0:
        processes = _limit(resource.RLIMIT_NPROC)
        repair = _raise("nproc", 32768)
        yield _room("processes of this user", "the hard limit", processes, _PROCESSES_EACH, repair)
    for what, key, each, wanted in (
        ("inotify instances", _WATCHERS, _WATCHERS_EACH, 1024),
        ("inotify watches", _WATCHES, _WATCHES_EACH, 65536),
        ("process numbers", _PIDS, _PROCESSES_EACH, 131072),
    ):
        value = _setting(key)
        if value is not None:
            yield _room(what, key, value, each, host.sysctl(key, wanted))


def _room(what: str, name: str, limit: int, each: int, repair: str) -> Check:
    room = int(limit * _SPARE / each)
    told = f"room for {room} sandboxes" if room < 1000 else "plenty"
    shown = "unlimited" if limit >= resource.RLIM_INFINITY >> 1 > 0 else str(limit)
    return enough(what, f"{name} is {shown}: {told}", repair, well=room >= _WANTED)


def _limit(number: int) -> int:
    _, hard = resource.getrlimit(number)
    return 1 << 62 if hard == resource.RLIM_INFINITY else hard


def _raise(name: str, value: int) -> str:
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    line = f"{user} hard {name} {value}"
    return f"add to /etc/security/limits.d/csb-mcp.conf, then log in anew: {line}"


def _setting(key: str) -> int | None:
    try:
        return int(Path("/proc/sys", *key.split(".")).read_text())
    except (OSError, ValueError):
        return None
