"""What all tests share: tools that must be here, users, short folders, and nothing left behind.

No test is left out without a word: a skip, for a tool that is missing, say, is a failure in CI.
A test marked ``root`` is left out for a normal user, and the last lines of the run say how many.
"""

import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from csb_mcp.lib.processes import default_signals, descendants
from tests.reaper import command_line

IN_CI = bool(os.environ.get("CI"))
UNUSED_UID = 65533  # no account has it on Debian, and none is needed: bwrap, tmux and Xvfb run so
GRACE = float(os.environ.get("CSB_TEST_GRACE", "8"))  # seconds to end in, after the last test
SPARE_DESCRIPTORS = 2  # libraries open one now and then on first use (a log, a random source)
RUNTIME_PARENTS = (Path("/dev/shm"), Path("/run"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started by a shell's &: for pytest's own ^C
    signal.signal(signal.SIGINT, signal.default_int_handler)
default_signals()

_left_out = pytest.StashKey[int]()


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who is not root: ourselves, or (run by root) a number without an account."""

    uid: int
    gid: int

    def command(self, *argv: str) -> list[str]:
        """``argv`` as this user, without supplementary groups."""
        if os.getuid() == self.uid:
            return list(argv)
        as_user = ("--reuid", str(self.uid), "--regid", str(self.gid), "--clear-groups")
        return ["/usr/bin/setpriv", *as_user, "--", *argv]


@pytest.fixture(scope="session")
def user() -> User:
    """A normal user."""
    if os.getuid():
        return User(os.getuid(), os.getgid())
    return User(UNUSED_UID, UNUSED_UID)


@pytest.fixture(scope="session")
def require() -> Callable[[str], str]:
    """Path of a program that a test cannot do without."""

    def find(program: str) -> str:
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed: run scripts/setup test")
        return path

    return find


@contextmanager
def _short_folder() -> Generator[Path]:
    path = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder on tmpfs whose path leaves room for a socket (107 bytes in all); then removed."""
    with _short_folder() as path:
        yield path


@pytest.fixture(scope="module")
def module_dir() -> Iterator[Path]:
    """As ``short_dir``, one for a whole module."""
    with _short_folder() as path:
        yield path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.getuid() == 0:
        return
    for_root = [item for item in items if item.get_closest_marker("root")]
    config.stash[_left_out] = len(for_root)
    items[:] = [item for item in items if item not in for_root]
    config.hook.pytest_deselected(items=for_root)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything is installed, so a skipped test is a hole that nobody would see."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    count = config.stash.get(_left_out, 0)
    if count:
        terminalreporter.write_line(f"{count} tests need root and did not run: sudo make test")


@dataclass(frozen=True, slots=True)
class Traces:
    """What a test may leave on the machine."""

    processes: frozenset[int]
    mounts: frozenset[str]
    folders: frozenset[str]
    cgroups: frozenset[str]

    @classmethod
    def now(cls) -> "Traces":
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return cls(
            processes=frozenset(_our_processes()),
            mounts=frozenset(line.split()[4] for line in mounts),
            folders=frozenset(_our_folders()),
            cgroups=frozenset(_our_cgroups()),
        )

    def since(self, before: "Traces") -> list[str]:
        """What is here and was not before, each in words."""
        return [
            *(f"process {pid}: {command_line(pid)}" for pid in self.processes - before.processes),
            *(f"mount {point}" for point in self.mounts - before.mounts),
            *(f"folder {path}" for path in self.folders - before.folders),
            *(f"cgroup {path}" for path in self.cgroups - before.cgroups),
        ]


def _our_processes() -> list[int]:
    """All below us; under tests/reaper.py also those that were detached."""
    root = int(os.environ.get("CSB_TEST_REAPER", os.getpid()))
    return [pid for pid in descendants(root) if pid != os.getpid() and command_line(pid)]


def _our_folders() -> list[str]:
    if not IN_CI:  # by hand a daemon or a second run may work beside this one
        return []
    return [str(path) for parent in RUNTIME_PARENTS for path in parent.glob("csb*")]


def _our_cgroups() -> list[str]:
    if not IN_CI:
        return []
    root = Path("/sys/fs/cgroup")
    return [str(p) for pattern in ("csb-mcp/*/", "*/csb-mcp/*/") for p in root.glob(pattern)]


def _open_descriptors() -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """After each module: no process, mount, runtime folder or descriptor more than before it."""
    before, open_before = Traces.now(), _open_descriptors()
    yield
    deadline = time.monotonic() + GRACE
    while (left := Traces.now().since(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, "left behind:\n" + "\n".join(left)
    gc.collect()
    opened = {fd: what for fd, what in _open_descriptors().items() if fd not in open_before}
    assert len(opened) <= SPARE_DESCRIPTORS, f"descriptors left open: {opened}"
