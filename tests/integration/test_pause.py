"""Pause, resume, idleness and the log, on real sandboxes."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.errors import Conflict, SandboxEnded, StoreUnusable
from csb_mcp.host.store import SqliteStore
from csb_mcp.model import CommandResult, Exited, LogPart, Point, Sandbox, SandboxState, TerminalText
from tests.support.sandboxes import create, running_app, type_line, typed, until

COUNT = "i=0; while :; do i=$((i+1)); echo $i >count.new; mv count.new count; sleep 0.02; done"


async def count(project: Path, above: int = 0) -> int:
    """What the sandbox has counted to, once it is above that."""
    async with asyncio.timeout(20):
        while True:
            try:
                now = int((project / "count").read_text())
            except (FileNotFoundError, ValueError):
                now = 0
            if now > above:
                return now
            await asyncio.sleep(0.01)


async def stands_still(project: Path) -> int:
    """Two looks with as much time between as forty steps take."""
    first = await count(project)
    await asyncio.sleep(0.8)
    assert await count(project) == first
    return first


async def test_a_paused_sandbox_stands_still_and_can_be_looked_at(
    app: App, sandbox: Sandbox, project: Path
) -> None:
    service = app.service
    await typed(service, sandbox.id, "echo be''gun", "begun")
    await type_line(service, sandbox.id, COUNT)
    await count(project)
    paused = await service.pause(sandbox.id)
    assert paused.state is SandboxState.PAUSED
    assert await service.pause(sandbox.id) == paused
    at = await stands_still(project)
    view = await service.read_terminal(sandbox.id, cursor=None, lines=None)
    assert any("begun" in text for _, text in view.rows)
    shot = await service.screenshot(
        sandbox.id, region=None, max_width=640, format="png", if_changed_since=None
    )
    assert shot.image
    assert (await service.metrics(sandbox.id)).sandbox
    for call in (
        type_line(service, sandbox.id, "true"),
        service.run_command(sandbox.id, "true", timeout=5, cwd=None, stdin=None, background=False),
        service.click(sandbox.id, Point(1, 1), button="left", count=1, frame=None),
        service.type_text(sandbox.id, "a"),
    ):
        with pytest.raises(Conflict, match="paused"):
            await call
    resumed = await service.resume(sandbox.id)
    assert resumed.state is SandboxState.RUNNING
    await count(project, above=at)


async def test_a_paused_sandbox_is_stopped_whole(
    app: App, sandbox: Sandbox, project: Path, settings: Settings
) -> None:
    await type_line(app.service, sandbox.id, f"trap '' TERM HUP; {COUNT}")
    await count(project)
    await app.service.pause(sandbox.id)
    stopped = await app.service.stop(sandbox.id)
    assert stopped.state is SandboxState.STOPPED
    assert not (settings.runtime_dir / sandbox.id).exists()
    with pytest.raises(SandboxEnded):
        await app.service.resume(sandbox.id)
    with pytest.raises(SandboxEnded):
        await app.service.pause(sandbox.id)


async def test_a_paused_sandbox_stays_so_over_a_restart(settings: Settings, project: Path) -> None:
    async with running_app(settings) as first:
        sandbox = await create(first, project)
        await type_line(first.service, sandbox.id, COUNT)
        await count(project)
        await first.service.pause(sandbox.id)
        await first.close()
        async with running_app(settings) as second:
            kept = await second.service.get(sandbox.id)
            assert kept.state is SandboxState.PAUSED
            at = await stands_still(project)
            await second.service.resume(sandbox.id)
            await count(project, above=at)
            ran = await second.service.run_command(
                sandbox.id, "echo hi", timeout=9, cwd=None, stdin=None, background=False
            )
            assert isinstance(ran, CommandResult)
            assert ran.stdout == "hi\n"


async def test_its_end_ends_a_paused_wait(app: App, sandbox: Sandbox) -> None:
    await app.service.pause(sandbox.id)
    waiting = asyncio.create_task(until(app.service, sandbox.id, Exited()))
    await app.service.delete(sandbox.id)
    assert (await waiting).satisfied


@pytest.mark.once  # the clock is the service's
async def test_an_idle_sandbox_is_stopped(app: App, project: Path) -> None:
    sandbox = await create(app, project, idle_timeout=1.5)
    assert sandbox.limits.asked["idle_timeout"] == "1.5s"
    assert sandbox.limits.enforced_by["idle_timeout"] == "csb-mcp"
    busy = await create(app, project, idle_timeout=1.5, command=_printing(), agent="command")
    # A wait is a call: as long as one runs, nobody is idle.
    await app.service.wait(
        [sandbox.id], [TerminalText("never printed")], mode="any", timeout=3, cursor={}
    )
    assert (await app.service.get(sandbox.id)).state is SandboxState.RUNNING
    async with asyncio.timeout(20):
        while not (ended := await app.service.get(sandbox.id)).state.ended:
            await asyncio.sleep(0.05)
    assert ended.state is SandboxState.STOPPED
    assert ended.reason
    assert "for 1.5 s" in ended.reason
    assert (await app.service.get(busy.id)).state is SandboxState.RUNNING


def _printing() -> tuple[str, ...]:
    return ("bash", "-c", "while :; do echo busy; sleep 0.2; done")


@pytest.mark.once  # the clock is the service's
async def test_a_command_and_a_pause_keep_it_from_being_idle(app: App, project: Path) -> None:
    working = await create(app, project, idle_timeout=1)
    paused = await create(app, project, idle_timeout=1)
    await app.service.pause(paused.id)
    await app.service.run_command(
        working.id, "sleep 2.5", timeout=9, cwd=None, stdin=None, background=False
    )
    assert (await app.service.get(working.id)).state is SandboxState.RUNNING
    assert (await app.service.get(paused.id)).state is SandboxState.PAUSED


async def collect(parts: AsyncIterator[LogPart], until_text: bytes) -> bytes:
    data = b""
    async with asyncio.timeout(20):
        async for part in parts:
            data += part.data
            if until_text in data:
                break
    return data


async def test_the_log_is_followed_live_and_kept_after_the_end(app: App, sandbox: Sandbox) -> None:
    service = app.service
    await typed(service, sandbox.id, "echo fir''st", "first")
    follower = asyncio.create_task(collect(service.follow_log(sandbox.id, 0), b"last\r\n"))
    await typed(service, sandbox.id, "echo la''st", "last")
    followed = await follower
    assert b"first\r\n" in followed
    part = await service.read_log(sandbox.id, offset=None, limit=1 << 20)
    assert (part.offset, part.gap, part.ended) == (0, False, False)
    assert part.data.startswith(followed)
    await service.stop(sandbox.id)
    kept = await service.read_log(sandbox.id, offset=0, limit=1 << 20)
    assert kept.ended
    assert kept.data.startswith(part.data)
    everything = [part.data async for part in service.follow_log(sandbox.id, 0)]
    assert b"".join(everything) == kept.data


async def test_the_log_goes_on_over_rotations(app: App, project: Path) -> None:
    """20 MB: what is no longer kept is told as a gap, and offsets count from the start."""
    lines = 20 * 2**20 // 64
    command = ("bash", "-c", f"yes $(printf 'x%.0s' {{1..62}}) | head -n {lines}; sleep 99")
    sandbox = await create(app, project, command=command, agent="command")
    total = lines * 64  # each line is 62 and CR, LF
    async with asyncio.timeout(60):
        while (part := await app.service.read_log(sandbox.id, offset=None, limit=64)).next < total:
            await asyncio.sleep(0.05)
    assert (part.next, part.data) == (total, b"x" * 62 + b"\r\n")
    first = await app.service.read_log(sandbox.id, offset=0, limit=64)
    assert first.gap
    assert 0 < first.offset < total
    again = await app.service.read_log(sandbox.id, offset=total - 640, limit=1 << 20)
    assert (again.offset, again.data) == (total - 640, (b"x" * 62 + b"\r\n") * 10)


async def test_a_pause_that_cannot_be_kept_is_undone(
    app: App, sandbox: Sandbox, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await type_line(app.service, sandbox.id, COUNT)
    await count(project)
    with monkeypatch.context() as patch:
        patch.setattr(SqliteStore, "update", _full)
        with pytest.raises(StoreUnusable):
            await app.service.pause(sandbox.id)
    assert (await app.service.get(sandbox.id)).state is SandboxState.RUNNING
    await count(project, above=await count(project))


async def test_an_end_is_an_end_also_with_a_full_disk(
    app: App, sandbox: Sandbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.create_task(until(app.service, sandbox.id, Exited()))
    monkeypatch.setattr(SqliteStore, "update", _full)
    await type_line(app.service, sandbox.id, "exit 3")
    assert (await waiting).satisfied
    ended = await app.service.get(sandbox.id)
    assert (ended.state, ended.exit_status) == (SandboxState.DEAD, 3)
    assert not (settings.runtime_dir / sandbox.id).exists()


async def _full(*_: object) -> None:
    raise StoreUnusable("the store did not take it: database or disk is full")


@pytest.mark.once  # the clock is the service's
async def test_no_idle_time_passes_in_a_pause(app: App, project: Path) -> None:
    sandbox = await create(app, project, idle_timeout=2)
    await app.service.pause(sandbox.id)
    await asyncio.sleep(1.8)
    await app.service.resume(sandbox.id)
    await asyncio.sleep(1)  # 2.8 seconds in all, of which one counts
    assert (await app.service.get(sandbox.id)).state is SandboxState.RUNNING
    async with asyncio.timeout(20):
        while not (await app.service.get(sandbox.id)).state.ended:
            await asyncio.sleep(0.05)
