"""Sandboxes that stand on a spare: they are like any other, and of spares nothing is ever left."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.errors import CreateFailed
from csb_mcp.lib.processes import ProcessHandle, descendants
from csb_mcp.model import CommandResult, Geometry, Outcome, SandboxSpec, SandboxState
from csb_mcp.service import spares
from tests.integration.test_mcp_life import Station, call, create
from tests.support.sandboxes import (
    a_spare,
    create_on_spare,
    mentions,
    project_in,
    settings_in,
    typed,
)
from tests.support.sandboxes import create as made_by

STATUS = "grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\n\\t '"


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "_CALM_SECONDS", 0.02)


@pytest.fixture
def settings(base: Path) -> Settings:
    return settings_in(base, spares=1)


async def run(app: App, sandbox: str, command: str) -> str:
    done = await app.service.run_command(
        sandbox, command, timeout=20, cwd=None, stdin=None, background=False
    )
    assert isinstance(done, CommandResult)
    assert done.exit_code == 0, done.stderr
    return done.stdout


async def test_it_has_its_own_project_home_and_display(app: App, project: Path) -> None:
    (project / "read").write_text("of the host\n")
    small = Geometry(400, 300)
    made = await create_on_spare(app, project, geometry=small, env={"A": "b c"}, name="mine")
    assert made.state is SandboxState.RUNNING
    assert await run(app, made.id, "cat read; echo made > new; pwd; echo $A") == (
        f"of the host\n{project}\nb c\n"
    )
    assert (project / "new").stat().st_uid == project.stat().st_uid
    assert await run(app, made.id, STATUS) == "CapEff:0000000000000000NoNewPrivs:1Seccomp:2"
    await typed(app.service, made.id, "echo on $((6 * 7))", "on 42")
    shot = await app.service.screenshot(
        made.id, region=None, max_width=400, format="png", if_changed_since=None
    )
    assert shot.image is not None
    assert (shot.image.width, shot.image.height) == (400, 300)
    assert (await app.service.list())[0].id == made.id


@pytest.mark.parametrize("network", ["none", "allowlist", "full"])
async def test_its_isolation_holds(app: App, project: Path, network: str) -> None:
    made = await create_on_spare(app, project, network=network, verify=True)
    found = await app.service.verify_isolation(made.id)
    assert found.held
    assert {probe.outcome for probe in found.probes} == {Outcome.HELD}


async def test_its_end_is_that_of_any_other(app: App, project: Path, base: Path) -> None:
    made = await create_on_spare(app, project, agent="command", command=("sh", "-c", "exit 7"))
    async with asyncio.timeout(10):
        while (record := await app.service.get(made.id)).state is not SandboxState.DEAD:
            await asyncio.sleep(0.02)
    assert record.exit_status == 7
    again = await create_on_spare(app, project)
    await app.service.delete(again.id)
    assert not (base / "run" / again.id).exists()


async def test_one_whose_display_or_launcher_died_is_passed_over(app: App, project: Path) -> None:
    await made_by(app, project)
    for victim in ("pane", "display"):
        spare = await a_spare(app.service)
        (ground,) = app.service._lifecycle._spares._standing  # pyright: ignore[reportPrivateUsage]
        assert ground.terminal is not None
        pid = ground.terminal.pane_pid
        if victim == "display":
            pid = await _xvfb(ground.terminal.server_pid)
        handle = ProcessHandle(pid)
        handle.kill(signal.SIGKILL)
        await handle.wait()
        handle.close()
        async with asyncio.timeout(10):
            while await ground.sound():  # it takes tmux a moment to hear of it
                await asyncio.sleep(0.01)
        other = await made_by(app, project)
        assert other.id != spare
        assert await run(app, other.id, "pwd") == f"{project}\n"
        await _gone(ground.folders.runtime)


async def test_another_folder_in_the_place_of_the_project_is_not_taken_for_it(
    app: App, project: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind pasta a user's launcher has only its path, and was told which folder that must be."""
    (project / "mine").touch()
    await made_by(app, project, network="full")
    await a_spare(app.service)
    backend: Any = app.pieces.backends["bubblewrap"]
    prepare = backend.prepare
    victim = project_in(base, "victim")

    async def swapped(*arguments: Any, **named: Any) -> None:
        await prepare(*arguments, **named)
        if not project.is_symlink():  # a second try finds it so
            project.rename(project.with_name("moved"))
            project.symlink_to(victim)

    monkeypatch.setattr(backend, "prepare", swapped)
    spec = SandboxSpec(project_dir=project, agent="shell", network="full")
    if os.getuid() == 0:  # its launcher has the folder itself, by a mount
        assert await run(app, (await app.service.create(spec)).id, "ls") == "mine\n"
        return
    with pytest.raises(CreateFailed, match="is not the folder any more"):
        await app.service.create(spec)
    assert not mentions(str(victim))


async def test_many_at_once_share_none(app: App, project: Path) -> None:
    await made_by(app, project)
    spare = await a_spare(app.service)
    made = await asyncio.gather(*(made_by(app, project) for _ in range(6)))
    ids = [sandbox.id for sandbox in made]
    assert len(set(ids)) == 6
    assert ids.count(spare) == 1
    told = await asyncio.gather(*(run(app, one, f"echo {one} > ~/mine; cat ~/mine") for one in ids))
    assert told == [f"{one}\n" for one in ids]


@pytest.fixture
async def station(base: Path) -> AsyncGenerator[Station]:
    made = Station(base)
    yield made
    await made.end_daemon()


@pytest.mark.once
@pytest.mark.timeout(120)
async def test_a_daemon_that_is_killed_leaves_none_to_the_next(station: Station) -> None:
    """By kill -9, while one is made, and while it stands."""
    project, runtime = project_in(station.base), station.base / "run"
    keeper = ""
    for moment in ("folder", "x11/X0"):
        async with station.client() as client:
            if keeper:
                await call(client, "delete", sandbox=keeper)
            keeper = (await create(client, project))["id"]
            spare = await _appears(runtime, keeper, moment)
            await station.end_daemon(signal.SIGKILL)
        assert (runtime / spare).exists()
        async with station.client() as client:
            listed = (await call(client, "list_sandboxes"))["sandboxes"]
            assert [sandbox["id"] for sandbox in listed] == [keeper]
            assert {path.name for path in runtime.iterdir()} == {"daemon", "launchers", keeper}
            assert not mentions(str(runtime / spare))
            assert not (station.base / "state/sandboxes" / spare).exists()
    async with station.client() as client:
        await call(client, "delete", sandbox=keeper)
        last = (await create(client, project))["id"]
        spare = await _appears(runtime, last, "tmux")
    await station.end_daemon()
    assert not mentions(str(runtime / spare))
    assert {path.name for path in runtime.iterdir()} == {"daemon", "launchers", last}
    async with station.client() as client:
        await call(client, "delete", sandbox=last)


async def _gone(runtime: Path) -> None:
    async with asyncio.timeout(20):
        while mentions(str(runtime)) or runtime.exists():
            await asyncio.sleep(0.01)


async def _xvfb(server: int) -> int:
    """The X server below; not what it starts, which has its name at first."""
    async with asyncio.timeout(20):
        while not (found := [pid for pid in descendants(server) if _name(pid) == "Xvfb"]):
            await asyncio.sleep(0.01)
    return min(found)


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


async def _appears(runtime: Path, keeper: str, what: str) -> str:
    """The id of the spare, as soon as there is so much of it."""
    async with asyncio.timeout(20):
        while True:
            for path in runtime.iterdir():
                if path.name not in ("daemon", "launchers", keeper) and (
                    what == "folder" or (path / what).exists()
                ):
                    return path.name
            await asyncio.sleep(0.001)
