"""One sandbox takes all it can get: another answers all the same, and its own record says why."""

import asyncio
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.config import Settings
from csb_mcp.model import CommandResult, Sandbox, SandboxState
from tests.support.sandboxes import create, project_in, running_app, type_line

PATIENCE = 0.05  # what the issue grants another sandbox's read_terminal
MEBIBYTE = 1024**2

FORK_BOMB = "python3 -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'"
CPU_HOG = "for i in $(seq 16); do (while :; do :; done) & done; wait"
MEMORY_HOG = "python3 -c 'a=[]\nwhile 1: a.append(bytearray(8<<20))'"
DISK_FILLER = "while :; do cat /dev/zero >/tmp/filler; echo full > ~/said; sleep 0.1; done"
OPENER = """python3 -c '
import resource
a = []
try:
    while len(a) < 100_000: a.append(open("/dev/null"))
except OSError as error:
    print("stopped at", len(a), error.strerror)
'"""


async def reads(app: App, sandbox: Sandbox, seconds: float) -> list[float]:
    """How long each of many reads of its terminal took."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        await app.service.read_terminal(sandbox.id, cursor=None, lines=None)
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.02)
    return sorted(took)


async def warned(app: App, sandbox: Sandbox, *words: str) -> str:
    """A warning or an end that holds all of ``words``."""
    async with asyncio.timeout(40):
        while True:
            record = await app.service.get(sandbox.id)
            for said in (*record.warnings, record.reason or ""):
                if all(word in said for word in words):
                    return said
            await asyncio.sleep(0.1)


async def ran(app: App, sandbox: Sandbox, command: str) -> CommandResult:
    result = await app.service.run_command(
        sandbox.id, command, timeout=30, cwd=None, stdin=None, background=False
    )
    assert isinstance(result, CommandResult)
    return result


@pytest.fixture
async def other(app: App, base: Path) -> Sandbox:
    return await create(app, project_in(base, "other"))


@pytest.mark.parametrize(
    "hog",
    [
        pytest.param(FORK_BOMB, id="fork"),
        pytest.param(CPU_HOG, id="cpu"),
        pytest.param(DISK_FILLER, id="disk", marks=pytest.mark.once),  # a tmpfs bounds itself
    ],
)
async def test_another_sandbox_answers_meanwhile(
    app: App, project: Path, other: Sandbox, hog: str
) -> None:
    victim = await create(app, project, pids=200, memory=1024 * MEBIBYTE)
    await type_line(app.service, victim.id, hog)
    took = await reads(app, other, 4)
    # Not the very slowest: another program of this machine may have been in its way.
    assert took[len(took) * 98 // 100] < PATIENCE, took[-5:]
    if hog is FORK_BOMB:
        await warned(app, victim, "limit pids (200) was hit")
    ended = await app.service.stop(victim.id)
    assert ended.state is SandboxState.STOPPED


async def test_a_memory_hog_hits_its_limit(app: App, project: Path, other: Sandbox) -> None:
    victim = await create(app, project, memory=300 * MEBIBYTE)
    await type_line(app.service, victim.id, f"{MEMORY_HOG}; echo hog ended with $?")
    took = await reads(app, other, 3)
    assert took[len(took) * 98 // 100] < PATIENCE, took[-5:]
    record = await app.service.get(victim.id)
    if "cgroup" in record.limits.enforced_by["memory"]:
        await warned(app, victim, "limit memory (300M) was hit")
    else:  # the process was told that there is no more
        assert record.limits.enforced_by["memory"].startswith("rlimit per process")
        async with asyncio.timeout(20):
            while not any("MemoryError" in row for _, row in await screen(app, victim)):
                await asyncio.sleep(0.1)
    # The hog was ended, not its sandbox.
    assert (await ran(app, victim, "echo still here")).stdout == "still here\n"


async def screen(app: App, sandbox: Sandbox) -> tuple[tuple[int, str], ...]:
    return (await app.service.read_terminal(sandbox.id, cursor=None, lines=None)).rows


async def test_many_processes_that_together_take_too_much_are_ended(
    app: App, project: Path
) -> None:
    """What no limit of a single process holds is seen by the watch; a cgroup holds it anyway."""
    victim = await create(app, project, memory=400 * MEBIBYTE)
    part = "python3 -c 'a = bytearray(150 << 20); import time; time.sleep(60)'"
    await type_line(app.service, victim.id, f"for i in 1 2 3 4; do {part} & done; wait")
    await warned(app, victim, "limit memory (400M) was hit")
    assert (await ran(app, victim, "echo still here")).stdout == "still here\n"


async def test_open_files_are_bounded(app: App, project: Path) -> None:
    victim = await create(app, project)
    result = await ran(app, victim, OPENER)
    assert "Too many open files" in result.stdout, result
    count = int(result.stdout.split()[2])
    assert count < 66_000
    assert victim.limits.enforced_by["files"] == "rlimit per process"


async def test_a_full_disk_pauses_who_may_have_filled_it(settings: Settings, project: Path) -> None:
    free = shutil.disk_usage(settings.state_dir).free
    async with running_app(replace(settings, disk_reserve=2 * free)) as app:
        victim = await create(app, project)
        await warned(app, victim, "paused", "disk")
        assert (await app.service.get(victim.id)).state is SandboxState.PAUSED
        assert (await app.service.stop(victim.id)).state is SandboxState.STOPPED


@pytest.mark.once  # a tmpfs bounds itself, whoever writes
async def test_a_full_tmp_is_told_inside(app: App, project: Path) -> None:
    victim = await create(app, project)
    result = await ran(app, victim, "head -c 3G /dev/zero >/tmp/big; stat -c %s /tmp/big")
    assert "No space left" in result.stderr
    assert int(result.stdout) <= 1024 * MEBIBYTE
    await warned(app, victim, "limit tmp (1G) was hit", "tmpfs")


async def test_what_enforces_is_said_truly(app: App, project: Path) -> None:
    sandbox = await create(app, project, cpus=0.5)
    asked, by = sandbox.limits.asked, sandbox.limits.enforced_by
    assert (asked["memory"], asked["pids"], asked["cpus"]) == ("4G", "1024", "0.5")
    assert asked.keys() == by.keys()
    first = await ran(app, sandbox, "awk '/cpu|memory|pids/ {print $3}' /proc/self/cgroup")
    if os.getuid() == 0:
        assert set(by.values()) - {"rlimit per process", "csb-mcp", "tmpfs"} <= {
            "cgroup v1",
            "cgroup v2",
        }
        assert first.stdout  # a namespace of its own hides where it lies
    else:
        assert by["cpus"] in ("nothing", "cgroup v1", "cgroup v2", "systemd scope")
    before = (await app.service.metrics(sandbox.id)).sandbox
    await ran(app, sandbox, "timeout 2 sh -c 'while :; do :; done'")
    after = (await app.service.metrics(sandbox.id)).sandbox
    assert before
    assert after
    used = after.cpu_seconds - before.cpu_seconds
    assert used < 1.6 if by["cpus"] != "nothing" else used > 0.4
