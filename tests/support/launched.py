"""A payload under the real launcher in a terminal of the test's own, without tmux or display."""

import asyncio
import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from csb_mcp.config import Settings
from csb_mcp.host.backends.bubblewrap import BubblewrapBackend
from csb_mcp.host.backends.helper import SandboxHelper
from csb_mcp.host.identity import Identities
from csb_mcp.host.launchers import Launchers
from csb_mcp.lib.processes import descendants, hold
from csb_mcp.model import CommandResult, Folders, Sandbox, SandboxSpec, SandboxState

OWN_UID = 1_900_000_000
DEADLINE = 15.0


@dataclass(frozen=True, slots=True)
class Host:
    """A daemon's folders. ``uid`` is whom it serves: 0 gives every sandbox a uid of its own."""

    base: Path
    uid: int
    backend: BubblewrapBackend
    launchers: Launchers

    @classmethod
    def make(cls, base: Path, uid: int, *, closed: bool = False) -> "Host":
        """``closed``: the runtime and state folders let no stranger pass."""
        base.chmod(0o755)
        for name in ("run", "state"):
            (base / name).mkdir(mode=0o700 if closed else 0o755)
        settings = Settings(
            state_dir=base / "state",
            runtime_dir=base / "run",
            config_file=base / "none",
            project_roots=(base,),
        )
        launchers = Launchers(base / "run" / "launchers", settings)
        launchers.install()
        identities = Identities(settings, uid=uid, environ={})
        backend = BubblewrapBackend(settings, launchers, identities)
        return cls(base, uid, backend, launchers)

    def folders(self, name: str) -> Folders:
        return Folders(self.base / "run" / name, self.base / "state" / name)


@dataclass(slots=True)
class Launched:
    """A running launcher: ``terminal`` is the master of its pseudo-terminal."""

    process: subprocess.Popen[bytes]
    terminal: int
    folders: Folders
    uid: int
    printed: bytes = b""
    more: asyncio.Event = field(default_factory=asyncio.Event)
    helper: SandboxHelper | None = field(default=None)

    async def sh(self, command: str, **options: object) -> CommandResult:
        """Run a command through the helper."""
        assert self.helper
        values = {"cwd": None, "stdin": b"", "timeout": DEADLINE, "max_output": 1 << 20} | options
        return await self.helper.run(command, **values)  # pyright: ignore[reportArgumentType]

    async def out(self, command: str) -> str:
        """Its stdout; it must succeed."""
        result = await self.sh(command)
        assert result.exit_code == 0, result
        return result.stdout.strip()

    async def fails(self, command: str) -> CommandResult:
        """It must have run, and failed."""
        result = await self.sh(command)
        assert result.exit_code not in (0, 126, 127), (command, result)
        return result

    async def until_printed(self, text: str) -> str:
        """Wait until the terminal showed ``text``; gives everything it printed."""
        async with asyncio.timeout(DEADLINE):
            while text.encode() not in self.printed:
                self.more.clear()
                await self.more.wait()
        return self.printed.decode(errors="replace")

    def read(self) -> None:
        """Keep what the terminal prints: a full one would hold up who writes to it."""
        try:
            self.printed += os.read(self.terminal, 65536)
        except OSError:  # EIO: nobody has it open any more
            asyncio.get_running_loop().remove_reader(self.terminal)
        self.more.set()

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    async def ended(self) -> int:
        """Its exit status."""
        waiting = asyncio.to_thread(self.process.wait, DEADLINE)
        try:
            return await waiting
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; it printed:\n{self.printed!r}") from None


def spawn(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``argv`` in a session of its own on a new terminal; gives its master end."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    try:
        process = subprocess.Popen(
            ["/usr/bin/setsid", "--ctty", *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(env),
            cwd=cwd,
        )
    finally:
        os.close(slave)
    return process, master


def told(folders: Folders, *first: str, instead: Mapping[str | None, str] | None = None) -> None:
    """Have the launcher obey other words than the backend wrote: more, and some replaced."""
    words = folders.arguments.read_bytes().decode().split("\0")[:-1]
    words = [*first, *((instead or {}).get(word, word) for word in words)]
    folders.arguments.write_bytes("".join(f"{word}\0" for word in words).encode())


@contextmanager
def begun(folders: Folders) -> Generator[None]:
    """The launcher goes on, as soon as it has come to that."""
    fifo = os.open(folders.begin, os.O_RDWR)
    try:
        os.write(fifo, b"\n")
        yield
    finally:
        os.close(fifo)


@asynccontextmanager
async def launched(
    host: Host,
    project: Path,
    *,
    name: str = "one",
    env: Mapping[str, str] | None = None,
    command: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
    connect: bool = True,
    held: bool = False,
    around: tuple[str, ...] = (),
    around_launcher: tuple[str, ...] = (),
    sweep: bool = False,
    **limits: Any,
) -> AsyncGenerator[Launched]:
    """A sandbox in ``project``. Root's starts through the stager, a user's at its path.

    ``around`` goes before all, ``around_launcher`` before the launcher: an enclosure's prefixes.
    ``held``: a user's starts as a daemon's does, by the descriptor; for that we must be that user.
    ``sweep``: what its launcher does not take along at its end is ended, too: it is an altered one.
    """
    agent = "command" if command else "shell"
    spec = SandboxSpec(project_dir=project, env=env or {}, agent=agent, command=command, **limits)
    uid = host.backend.choose_uid(project, ())
    sandbox = Sandbox(id=name, spec=spec, state=SandboxState.CREATING, uid=uid, created_at=0.0)
    folders = host.folders(name)
    folders.runtime.mkdir(mode=0o700)
    folders.x11.mkdir()
    folders.xauthority.touch()
    for path in (folders.x11, folders.xauthority):
        os.chown(path, uid, uid)
    fd = os.open(project, os.O_PATH)
    try:
        launch = await host.backend.ground(sandbox, folders, fd)
        await host.backend.prepare(sandbox, folders, fd, {})
        by_descriptor = None if held else f"/proc/{os.getpid()}/fd/{fd}"
        told(folders, *extra, instead={by_descriptor: str(project)})
        drop = ("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--")
        prefix = launch.prefix or (drop if os.getuid() != uid else ())
        words = [*around, *prefix, *around_launcher, *launch.argv]
        process, terminal = spawn(words, {"TERM": "xterm-256color"})
        this = Launched(process, terminal, folders, uid)
        asyncio.get_running_loop().add_reader(terminal, this.read)
        try:
            with begun(folders):
                if connect:
                    deadline = asyncio.get_running_loop().time() + DEADLINE
                    this.helper = await host.backend.connect(folders, process.pid, deadline)
                yield this
        finally:
            if this.helper:
                this.helper.close()
            below = hold(descendants(process.pid)) if sweep else []
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.to_thread(process.wait)
            for handle in below:
                handle.kill(signal.SIGKILL)
                handle.close()
            asyncio.get_running_loop().remove_reader(terminal)
            os.close(terminal)
            shutil.rmtree(folders.runtime, ignore_errors=True)
    finally:
        os.close(fd)
