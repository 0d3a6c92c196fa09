"""A real service on private folders, and looks at what is left on the host."""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from csb_mcp.app import App, build
from csb_mcp.config import Settings
from csb_mcp.model import Condition, Sandbox, SandboxSpec, TerminalText, WaitResult
from csb_mcp.service.manager import Manager

SHARED = ("network", "geometry", "gl", "memory", "cpus", "pids")
"""What a sandbox has in common with the spare that it stands on."""


@contextmanager
def short_folder() -> Generator[Path]:
    """A folder with a short path (sockets hold 107 bytes) that other uids may pass through."""
    path = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def settings_in(base: Path, **changes: Any) -> Settings:
    """Settings whose every folder lies in ``base``."""
    for name in ("state", "run", "projects", "config"):
        (base / name).mkdir(exist_ok=True)
    (base / "state").chmod(0o700)
    (base / "run").chmod(0o711 if os.getuid() == 0 else 0o700)
    values: dict[str, Any] = {
        "state_dir": base / "state",
        "runtime_dir": base / "run",
        "config_file": base / "config/config.toml",
        "project_roots": (base / "projects",),
        "spares": 0,  # they would be made while a test measures, or counts processes
    }
    return Settings(**(values | changes))


def project_in(base: Path, name: str = "app") -> Path:
    """A project folder of the present user."""
    path = base / "projects" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


@asynccontextmanager
async def running_app(settings: Settings) -> AsyncGenerator[App]:
    """A built app; all its sandboxes are deleted in the end."""
    app = await build(settings)
    try:
        yield app
    finally:
        with contextlib.suppress(Exception):
            for sandbox in await app.service.list():
                await app.service.delete(sandbox.id)
        await app.close()


async def create(app: App, project: Path, **changes: Any) -> Sandbox:
    """A sandbox in ``project`` with a small screen."""
    return await app.service.create(SandboxSpec(project_dir=project, **changes))


async def create_on_spare(app: App, project: Path, **changes: Any) -> Sandbox:
    """A sandbox on a spare, which was made after one like it. Needs the setting ``spares``."""
    alike = {name: changes[name] for name in SHARED if name in changes}
    first = await create(app, project, **alike)
    spare = await a_spare(app.service)
    await app.service.delete(first.id)
    made = await create(app, project, **changes)
    assert made.id == spare
    return made


async def a_spare(service: Manager, network: str | None = None) -> str:
    """The id of the first spare, once one (for that network) stands."""
    standing = service._lifecycle._spares._standing  # pyright: ignore[reportPrivateUsage]
    async with asyncio.timeout(20):
        while True:
            for ground in standing:
                if network in (None, ground.sandbox.spec.network):
                    return ground.sandbox.id
            await asyncio.sleep(0.01)


async def type_line(service: Manager, sandbox: str, line: str) -> str:
    """Type a line and Enter; gives the cursor from before it."""
    sent = await service.send_keys(
        sandbox, text=line, keys=["Enter"], target="terminal", paste=False
    )
    return sent.cursor


async def until(
    service: Manager,
    sandbox: str,
    *conditions: Condition,
    timeout: float = 20,
    cursor: str | None = None,
) -> WaitResult:
    """Wait for all conditions; fails with the screen if they do not come true."""
    cursors = {sandbox: cursor} if cursor else {}
    result = await service.wait([sandbox], conditions, mode="all", timeout=timeout, cursor=cursors)
    if not result.satisfied:
        view = await service.read_terminal(sandbox, cursor=None, lines=None)
        screen = "\n".join(text for _, text in view.rows)
        raise AssertionError(f"not within {timeout} s: {conditions}\n{screen}")
    return result


async def typed(service: Manager, sandbox: str, line: str, shows: str, **options: Any) -> None:
    """Type a line; wait for ``shows``, which the line itself must not contain."""
    assert shows not in line
    cursor = await type_line(service, sandbox, line)
    await until(service, sandbox, TerminalText(shows), cursor=cursor, **options)


def mentions(text: str) -> list[int]:
    """Processes whose command line, environment or mounts mention ``text``."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(text.encode() in (entry / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(int(entry.name))
    return found


def mounts_below(base: Path) -> list[str]:
    """Mounts of our namespace below ``base``."""
    return [
        line for line in Path("/proc/self/mounts").read_text().splitlines() if str(base) in line
    ]
