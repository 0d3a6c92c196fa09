"""Create, fail, cancel, crash, restart: nothing is lost and nothing is left."""

import asyncio
import gc
import os
import random
from pathlib import Path

import psutil
import pytest

from csb_mcp.app import App, build
from csb_mcp.config import Settings
from csb_mcp.errors import Conflict, CreateFailed, StoreUnusable, TerminalFailed
from csb_mcp.lib.processes import peer_pid
from csb_mcp.model import CommandResult, Exited, SandboxState, TerminalText
from tests.support.sandboxes import (
    create,
    mentions,
    project_in,
    running_app,
    settings_in,
    type_line,
    typed,
    until,
)


def left_in(settings: Settings) -> list[str]:
    """What lies in the runtime folder and in the sandboxes' state folder."""
    names = {path.name for path in settings.runtime_dir.iterdir()} - {"launchers"}
    sandboxes = settings.state_dir / "sandboxes"
    if sandboxes.is_dir():
        names |= {path.name for path in sandboxes.iterdir()}
    return sorted(names)


async def test_twenty_at_once(app: App, settings: Settings, base: Path) -> None:
    projects = [project_in(base, f"p{n}") for n in range(20)]
    made = await asyncio.gather(*(create(app, project) for project in projects))
    assert len({sandbox.id for sandbox in made}) == 20
    assert all(sandbox.state is SandboxState.RUNNING for sandbox in made)
    if os.getuid() == 0:
        assert len({sandbox.uid for sandbox in made}) == 20
    results = await asyncio.gather(
        *(
            app.service.run_command(s.id, "pwd", timeout=30, cwd=None, stdin=None, background=False)
            for s in made
        )
    )
    outputs = [result.stdout for result in results if isinstance(result, CommandResult)]
    assert outputs == [f"{project}\n" for project in projects]
    await asyncio.gather(*(app.service.delete(sandbox.id) for sandbox in made))
    assert left_in(settings) == []


def ours() -> dict[str, int]:
    """What could leak in this process."""
    gc.collect()
    process = psutil.Process()
    return {
        "fds": process.num_fds(),
        "threads": process.num_threads(),
        "children": len(process.children(recursive=True)),
        "tasks": len(asyncio.all_tasks()),
        "memory": process.memory_info().rss >> 20,
    }


async def test_a_hundred_lives_leak_nothing(app: App, settings: Settings, base: Path) -> None:
    project = project_in(base)

    async def live() -> None:
        sandbox = await create(app, project)
        await app.service.run_command(
            sandbox.id, "true", timeout=30, cwd=None, stdin=None, background=False
        )
        await app.service.screenshot(
            sandbox.id, region=None, max_width=320, format="png", if_changed_since=None
        )
        await app.service.delete(sandbox.id)

    async def some(count: int) -> None:
        for _ in range(count // 2):
            await asyncio.gather(live(), live())

    await some(20)  # pools, caches and imports have their final size after this
    before = ours()
    await some(100 if os.getuid() == 0 else 30)
    after = ours()
    assert left_in(settings) == []
    assert after["children"] == before["children"]
    assert after["tasks"] == before["tasks"]
    assert after["fds"] <= before["fds"] + 1
    assert after["threads"] <= before["threads"] + 2
    assert after["memory"] <= before["memory"] + 24
    assert not mentions(str(settings.runtime_dir))


FAIL = "exit 1"
HANG = "exec sleep 60"
BROKEN = {
    # what does not work: (setting, shell script in place of the program, stage)
    "tmux": ("tmux", FAIL, "terminal"),
    "slow tmux": ("tmux", HANG, "terminal"),
    "launcher": ("bwrap", 'case "$*" in *Xvfb*) exec bwrap "$@";; esac; exit 1', "launcher"),
    "slow launcher": ("bwrap", f'case "$*" in *Xvfb*) exec bwrap "$@";; esac; {HANG}', "launcher"),
    "display": ("bwrap", 'case "$*" in *Xvfb*) exit 1;; esac; exec bwrap "$@"', "display"),
    "slow display": ("bwrap", f'case "$*" in *Xvfb*) {HANG};; esac; exec bwrap "$@"', "display"),
    "state folder": (None, "", "folders"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_create_that_fails_leaves_nothing(base: Path, project: Path, name: str) -> None:
    setting, script, stage = BROKEN[name]
    program = base / "program"
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin; {script}\n")
    program.chmod(0o755)
    settings = settings_in(base, create_timeout=2.0, **({setting: program} if setting else {}))
    if setting is None:
        (base / "state/sandboxes").write_text("a file where the folder should be")
    async with running_app(settings) as app:
        before = ours()
        with pytest.raises(CreateFailed) as caught:
            await create(app, project)
        assert stage in caught.value.stage
        (record,) = await app.service.list()
        assert record.state is SandboxState.FAILED
        assert stage in (record.reason or "")
        assert not mentions(str(base / "run"))
        assert {path.name for path in (base / "run").iterdir()} <= {"launchers"}
        after = ours()
        assert after["fds"] <= before["fds"]
        assert after["children"] == before["children"]
        assert after["tasks"] == before["tasks"]
        await app.service.delete(record.id)


async def test_a_cancelled_create_leaves_nothing(
    app: App, settings: Settings, project: Path
) -> None:
    randomness = random.Random(7)
    await app.service.delete((await create(app, project)).id)
    before = ours()
    for _ in range(15):
        task = asyncio.create_task(create(app, project))
        await asyncio.wait({task}, timeout=randomness.uniform(0, 0.12))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled() and task.exception() is None:
            await app.service.delete(task.result().id)
    for record in await app.service.list():
        assert record.state is SandboxState.FAILED
        await app.service.delete(record.id)
    after = ours()
    assert left_in(settings) == []
    assert not mentions(str(settings.runtime_dir))
    assert after["fds"] <= before["fds"]
    assert after["tasks"] == before["tasks"]


async def test_a_cancelled_stop_still_stops(app: App, project: Path) -> None:
    sandbox = await create(app, project)
    task = asyncio.create_task(app.service.stop(sandbox.id))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await app.service.get(sandbox.id)).state is SandboxState.STOPPED


async def test_stop_twice_and_many_at_once(app: App, project: Path) -> None:
    sandbox = await create(app, project)
    states = await asyncio.gather(*(app.service.stop(sandbox.id) for _ in range(5)))
    assert {record.state for record in states} == {SandboxState.STOPPED}
    deleted = await asyncio.gather(
        *(app.service.delete(sandbox.id) for _ in range(3)), return_exceptions=True
    )
    assert any(not isinstance(result, BaseException) for result in deleted)
    assert await app.service.list() == []


async def test_a_restarted_service_goes_on_where_the_old_one_was(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(settings) as last:
        first = await build(settings)
        keep, end = [
            await create(first, project_in(base, name), name=name) for name in ("keep", "end")
        ]
        await typed(first.service, "keep", "i=0; echo st''ate $((i+=41))", "state 41")
        view = await first.service.read_terminal("keep", cursor=None, lines=None)
        await type_line(
            first.service,
            "keep",
            "for n in {1..300}; do echo line-$n; sleep 0.005; done; echo a''ll",
        )
        await type_line(first.service, "end", "sleep 0.5; exit 5")
        await first.close()
        await asyncio.sleep(1.0)  # time in which no service looks
        monkeypatch.setattr("csb_mcp.service.cursor.EPOCH", "later")  # as in another process
        second = await build(settings)
        assert (await second.service.get("keep")).state is SandboxState.RUNNING
        await until(second.service, "end", Exited())
        ended = await second.service.get(end.id)
        assert (ended.state, ended.exit_status) == (SandboxState.DEAD, 5)
        await until(second.service, "keep", TerminalText("all"))
        await typed(second.service, "keep", "echo now $((i+1))", "now 42")
        again = await second.service.read_terminal("keep", cursor=view.cursor, lines=None)
        assert again.gap
        result = await second.service.run_command(
            "keep", "echo he''re", timeout=20, cwd=None, stdin=None, background=False
        )
        assert isinstance(result, CommandResult)
        assert result.stdout == "here\n"
        log = (settings.state_dir / "sandboxes" / keep.id / "log").read_text()
        lines = [line for line in log.splitlines() if line.startswith("line-")]
        assert lines == [f"line-{n}" for n in range(1, 301)]
        shot = await second.service.screenshot(
            "keep", region=None, max_width=64, format="png", if_changed_since=None
        )
        assert shot.image is not None
        await second.service.delete("keep")
        await second.close()
    assert last


async def test_a_sandbox_lost_while_nobody_looked_is_marked_so(
    settings: Settings, project: Path
) -> None:
    first = await build(settings)
    sandbox = await create(first, project)
    pid = peer_pid(settings.runtime_dir / sandbox.id / "tmux")
    await first.close()
    os.kill(pid, 9)
    second = await build(settings)
    record = await second.service.get(sandbox.id)
    assert record.state is SandboxState.DEAD
    assert "lost" in (record.reason or "")
    assert not (settings.runtime_dir / sandbox.id).exists()
    await second.service.delete(sandbox.id)
    await second.close()


async def test_one_that_cannot_be_taken_up_is_still_ours_to_end(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await build(settings)
    sandbox = await create(first, project)
    await first.close()
    with monkeypatch.context() as patch:
        # As if tmux did not answer, without the ten seconds of waiting for it.
        patch.setattr("csb_mcp.host.terminal.tmux.TmuxTerminals._attach", _refuses)
        patch.setattr("csb_mcp.service.restart._ADOPT_SECONDS", 0.3)
        second = await build(settings)
    assert (await second.service.get(sandbox.id)).state is SandboxState.RUNNING
    with pytest.raises(Conflict, match="did not answer"):
        await second.service.read_terminal(sandbox.id, cursor=None, lines=None)
    with pytest.raises(Conflict, match="did not answer"):
        await second.service.wait([sandbox.id], [Exited()], mode="any", timeout=1, cursor={})
    await second.service.delete(sandbox.id)
    assert left_in(settings) == []
    assert not mentions(str(settings.runtime_dir))
    await second.close()


async def _refuses(*_: object) -> None:
    raise TerminalFailed("it does not answer")


async def test_the_tmux_server_killed_under_us_is_told(
    app: App, settings: Settings, project: Path
) -> None:
    sandbox = await create(app, project)
    os.kill(peer_pid(settings.runtime_dir / sandbox.id / "tmux"), 9)
    await until(app.service, sandbox.id, Exited())
    record = await app.service.get(sandbox.id)
    assert record.state is SandboxState.DEAD
    assert "lost" in (record.reason or "")


async def test_an_unreadable_store_reaps_nothing(settings: Settings, project: Path) -> None:
    first = await build(settings)
    sandbox = await create(first, project)
    await first.close()
    store = settings.state_dir / "store.db"
    kept = store.read_bytes()
    for extra in ("-wal", "-shm"):
        store.with_name(store.name + extra).unlink(missing_ok=True)
    store.write_bytes(b"spoilt " * 1000)
    with pytest.raises(StoreUnusable):
        await build(settings)
    store.write_bytes(kept)
    async with running_app(settings) as again:
        result = await again.service.run_command(
            sandbox.id, "echo lives", timeout=20, cwd=None, stdin=None, background=False
        )
        assert isinstance(result, CommandResult)
        assert result.stdout == "lives\n"
