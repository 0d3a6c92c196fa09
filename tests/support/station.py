"""The command on folders of its own, with a daemon that serves a service in memory."""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from csb_mcp import __version__
from csb_mcp.lib.processes import ProcessHandle

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """\
#!{python}
import sys
sys.path.insert(0, {repository!r})
import csb_mcp
csb_mcp.__version__ = {version!r}
from tests.support.in_memory import main
main()
"""


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


class Station:
    """One state and runtime folder, and the command on them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.state = base / "state"
        self.socket = base / "run/daemon/mcp.sock"
        self.http_socket = base / "run/daemon/http.sock"
        self.command = self.script("csb-mcp", __version__)
        self.env = {
            "HOME": str(base),
            "PATH": "/usr/bin:/bin",
            "CSB_MCP_STATE_DIR": str(self.state),
            "CSB_MCP_RUNTIME_DIR": str(base / "run"),
            "CSB_MCP_PROJECT_ROOTS": str(base),
            "CSB_MCP_SPARES": "0",
            "A_SECRET": "of the client",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def script(self, name: str, version: str) -> Path:
        path = self.base / name
        path.write_text(
            SCRIPT.format(python=sys.executable, repository=str(REPOSITORY), version=version)
        )
        path.chmod(0o755)
        return path

    def start(self, *arguments: str, command: Path | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [str(command or self.command), *arguments],
            env=self.env,
            cwd=self.base,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, given: bytes = b"", command: Path | None = None
    ) -> tuple[int, str, str]:
        """Status, stdout and stderr; returns only once nobody holds those pipes any more."""
        process = self.start(*arguments, command=command)
        out, err = process.communicate(given, timeout=40)
        return process.returncode, out.decode(), err.decode()

    def daemon(self) -> int:
        try:
            return int((self.state / "daemon.lock").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def serve(self) -> subprocess.Popen[bytes]:
        process = self.start("serve")
        until(lambda: self.socket.exists() and self.http_socket.exists(), 40)
        return process

    def log(self) -> str:
        return (self.state / "daemon.log").read_text()

    def end(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        end(self.daemon(), signal.SIGKILL)


def end(pid: int, how: signal.Signals) -> None:
    """Signal a process that may not be our child, and wait until it has ended."""
    try:
        process = ProcessHandle(pid)
    except (ProcessLookupError, OSError):
        return
    process.kill(how)
    until(lambda: not process.alive())
    process.close()


@contextmanager
def a_station() -> Generator[Station]:
    """One, and nothing left of it."""
    base = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    base.chmod(0o711)  # a root daemon's sandboxes have uids of their own
    station = Station(base)
    try:
        yield station
    finally:
        station.end()
        shutil.rmtree(base)
