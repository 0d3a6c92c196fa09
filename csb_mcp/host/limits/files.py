"""The files of a cgroup: kept open for looks, written, killed in, removed."""

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded, HostUnable
from csb_mcp.lib.processes import hold

NAME = "csb-mcp"
"""Folder of ours in each hierarchy, so that an admin sees whose they are."""
PAYLOAD = "payload"
"""Folder in a sandbox's own that pause freezes."""

# 0 is the shell itself, which becomes the program: what that starts is inside from the beginning.
_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; '
# Terminal and display of a sandbox, the daemon and the host's users go before its payload. By nice,
# if it is there: sh has none of its own.
NICER = 'command -v nice >/dev/null && set -- nice -n 5 "$@"; exec "$@"'
_POLL_SECONDS = 0.002
_MOUNTINFO = Path("/proc/self/mountinfo")


def entering(*files: Path, payload: bool = False) -> tuple[str, ...]:
    """Words that enter the cgroups with these files, then become what follows."""
    script = _ENTER + (NICER if payload else 'exec "$@"')
    return ("/bin/sh", "-c", script, f"{NAME}-enter", *map(str, files), "--")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy. ``controllers`` are a v1 hierarchy's own; empty for v2."""

    point: Path
    version: int
    controllers: frozenset[str] = frozenset()


def mounts(mountinfo: Path = _MOUNTINFO) -> list[Mount]:
    """All cgroup hierarchies that are mounted here (proc(5), mountinfo)."""
    found: list[Mount] = []
    for line in mountinfo.read_text().splitlines():
        place, _, kind = line.partition(" - ")
        fstype, _, options = kind.split(" ", 2)
        point = Path(re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), place.split()[4]))
        if fstype == "cgroup":
            found.append(Mount(point, 1, frozenset(options.split(","))))
        elif fstype == "cgroup2":
            found.append(Mount(point, 2))
    return found


class Gauges:
    """Files that are read again and again: opened once, then one pread each."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        self._closed = False

    def read(self, path: Path) -> str:
        """What it says now; empty if it is not there (any more)."""
        try:
            return os.pread(self._fd(path), 65536, 0).decode()
        except OSError:  # ENOENT: never there; ENODEV: its cgroup was removed
            return ""

    def number(self, path: Path) -> int | None:
        """What it says, if that is one number."""
        text = self.read(path).strip()
        return int(text) if text.isdigit() else None

    def field(self, path: Path, key: str) -> int:
        """The number beside ``key`` in a file of ``key number`` lines; 0 without it."""
        found = re.search(rf"^{key} (\d+)$", self.read(path), re.MULTILINE)
        return int(found[1]) if found else 0

    def _fd(self, path: Path) -> int:
        if self._closed:
            raise FileNotFoundError(path)
        fd = self._fds.get(path)
        if fd is None:
            fd = self._fds[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return fd

    def close(self) -> None:
        """Let go of all. Idempotent."""
        self._closed = True
        while self._fds:
            os.close(self._fds.popitem()[1])


def write(path: Path, text: str) -> None:
    """In a single write, as these files want it. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """A new cgroup that others may look into, whatever the daemon's umask. Raises OSError."""
    path.mkdir()
    path.chmod(0o755)


def make_below(parent: Path, name: str, prepare: Callable[[], None] | None = None) -> Path:
    """Make a cgroup, and its parent, which the last sandbox takes away.

    ``prepare`` is called when the parent is there. Raises OSError.
    """
    for _ in range(10):  # another may be removing the parent, empty as it still is, meanwhile
        with contextlib.suppress(FileExistsError):
            make_folder(parent)
        try:
            if prepare is not None:
                prepare()
            make_folder(parent / name)
        except FileNotFoundError:
            continue
        return parent / name
    raise FileNotFoundError(2, "removed while it was made", str(parent))


def members(folder: Path) -> list[int]:
    """Pids in this one cgroup; 0 stands for those that our pid namespace has no number for."""
    try:
        return [int(word) for word in (folder / "cgroup.procs").read_text().split()]
    except OSError:
        return []


def kill_members(folders: Sequence[Path]) -> int:
    """SIGKILL all processes in these cgroups; gives how many there were."""
    pids = {pid for folder in folders for pid in members(folder)} - {0}
    handles = hold(sorted(pids))
    still = {pid for folder in folders for pid in members(folder)}
    for handle in handles:
        if handle.pid in still:  # else the pid may have changed hands before we held it
            handle.kill()
        handle.close()
    return len(pids)


async def poll(
    true: Callable[[], bool], seconds: float, what: str, *, in_thread: bool = False
) -> None:
    """Look until ``true``. Raises DeadlineExceeded with ``what``.

    ``in_thread``: a look takes long, and is taken beside the event loop.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (await asyncio.to_thread(true) if in_thread else true()):
        if loop.time() >= deadline:
            raise DeadlineExceeded(f"{what} within {seconds:g} s")
        await asyncio.sleep(_POLL_SECONDS)


def remove_folder(path: Path) -> bool:
    """Whether it is gone. Busy as long as a process, or the last of a zombie, is in it."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def unable(what: str) -> Generator[None]:
    """OSErrors as HostUnable."""
    try:
        yield
    except OSError as error:
        raise HostUnable(
            f"{what}: {error.filename or 'a cgroup file'}: {error.strerror}",
            hint="csb-mcp doctor shows what this host lacks",
        ) from error
