"""A sandbox of altered launchers, attacked; with a display, if that is what is altered."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.errors import HelperFailed, SandboxEnded
from csb_mcp.host import launchers
from csb_mcp.host.attack.prober import InsideProber
from csb_mcp.lib.processes import descendants
from csb_mcp.lib.xauth import new_cookie, pack_wild
from csb_mcp.model import (
    Folders,
    Outcome,
    Probe,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Verification,
)
from tests.support.launched import DEADLINE, Host, Launched, launched

SHIPPED = launchers.sources()
LENT = {"LENT_TO_THE_PAYLOAD": "c5b-hunter2"}
PROTECTED_FILES = (".envrc", ".vscode/tasks.json", ".cargo/config.toml", "tools/hooks/pre-commit")

Edit = tuple[str, str, str]
"""A shipped file, a part of it, and what stands there instead."""


def alter(monkeypatch: pytest.MonkeyPatch, folder: Path, edits: Sequence[Edit]) -> Path:
    """A copy of the shipped texts in ``folder``, altered, that launchers are made from now."""
    copy = folder / "texts"
    shutil.copytree(SHIPPED, copy)
    for name, old, new in edits:
        text = (copy / name).read_text()
        assert old in text, f"{name} has no {old!r} any more"
        (copy / name).write_text(text.replace(old, new))
    monkeypatch.setattr(launchers, "sources", lambda: copy)
    return copy


def repository(base: Path, owner: int) -> Path:
    """A project with a few files that the host trusts."""
    project = base / "app"
    subprocess.run(["git", "init", "-q", project], check=True, env={"HOME": "/"})
    for name in PROTECTED_FILES:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("#\n")
    with (project / ".git/config").open("a") as file:
        file.write("\thooksPath = tools/hooks\n")
    for path in (project, *project.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    return project


async def attack(box: Launched, project: Path, **spec: object) -> Verification:
    """The table."""
    assert box.helper
    values = {"project_dir": project, "env": LENT, **spec}
    sandbox = Sandbox(
        id="one",
        spec=SandboxSpec(**values),  # pyright: ignore[reportArgumentType]
        state=SandboxState.RUNNING,
        uid=box.uid,
        created_at=0.0,
    )
    return await InsideProber().probe(sandbox, box.folders, box.helper)


def broken(table: Verification) -> dict[str, str]:
    return {p.name: p.detail for p in table.probes if p.outcome is Outcome.BROKEN}


def row(table: Verification, name: str) -> Probe:
    return next(probe for probe in table.probes if probe.name == name)


async def notices(
    base: Path, dress: Callable[[Path], None] = lambda _: None, **options: Any
) -> dict[str, str]:
    """What the table of a sandbox says is broken; or that it could not even be started.

    ``dress`` does something to the project before.
    """
    uid = os.getuid()
    host = Host.make(base, uid)
    project = repository(base, uid)
    dress(project)
    try:
        async with launched(host, project, env=LENT, sweep=True, **options) as box:
            return broken(await attack(box, project))
    except (HelperFailed, SandboxEnded) as refusal:
        return {"refused": str(refusal)}


@asynccontextmanager
async def display(host: Host, box: Launched) -> AsyncGenerator[None]:
    """A display for ``box``, with its window manager if there is one."""
    folders = box.folders
    folders.xauthority.write_bytes(pack_wild(new_cookie()))
    folders.framebuffer.mkdir()
    os.mkfifo(folders.display_ready)
    for path in (folders.framebuffer, folders.display_ready):
        os.chown(path, box.uid, box.uid)
    words = ["--x11-dir", folders.x11, "--framebuffer-dir", folders.framebuffer]
    words += ["--xauthority", folders.xauthority, "--ready-fifo", folders.display_ready]
    named = [*map(str, words), "--geometry", "640x480"]
    process = _beside(host, "display", box.uid, named)
    try:
        await _ready(process, folders.x11 / "X0")
        if host.launchers.tool("lwm"):
            await _managed(process)
        yield
    finally:
        _end(process)


@asynccontextmanager
async def proxied(host: Host) -> AsyncGenerator[None]:
    """Sandboxes of ``host`` that are prepared now get an egress proxy that allows nothing."""
    prepare = host.backend.prepare
    started: list[subprocess.Popen[bytes]] = []

    async def with_proxy(
        sandbox: Sandbox,
        folders: Folders,
        project_fd: int,
        environment: Mapping[str, str],
        **more: Any,
    ) -> None:
        await prepare(sandbox, folders, project_fd, environment, **more)
        for path in (folders.egress, folders.gate, folders.connections):
            path.mkdir(mode=0o700)
            os.chown(path, sandbox.uid, sandbox.uid)
        words = ["--door", folders.egress, "--control", folders.gate, "--log", folders.connections]
        started.append(_beside(host, "egress", sandbox.uid, [str(word) for word in words]))

    host.backend.prepare = with_proxy
    try:
        yield
    finally:
        for process in started:
            _end(process)


def _beside(host: Host, name: str, uid: int, words: list[str]) -> subprocess.Popen[bytes]:
    drop = ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    return subprocess.Popen(
        [*(drop if os.getuid() == 0 else []), host.launchers.path(name), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={"HOST_SECRET": "hunter2"},
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.wait()


async def _ready(process: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while not socket.exists():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            raise HelperFailed(f"the display ended: {process.returncode}")
        await asyncio.sleep(0.01)


async def _managed(server: subprocess.Popen[bytes]) -> None:
    """Until the window manager is at its work: the last process of its box has been started."""
    deadline = time.monotonic() + DEADLINE
    while not any(comm(pid) == "lwm" for pid in descendants(server.pid)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
