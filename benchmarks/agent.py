"""What a look at an agent costs: its long transcript, its screen, its hooks, ``observe``.

The floor of a transcript is to read and decode the new lines alone, from a file that is open; of a
hook, that a bare inotify(7) wakes a thread; of ``observe``, a bare control client's capture-pane of
a terminal that is as busy. A hook is timed from its rename, by whoever renames, to the answer of a
wait that stood already: in the daemon's watch alone, and through the whole service from inside of a
sandbox. All clocks are one. Tokens are 4 characters each, of the whole result as JSON, as the test
of tools/list counts them.

What counts is the first quartile: other programs on the machine only ever make a time longer. Of a
flood, as much as a terminal takes, no time is promised: that needs all processors there are.
"""

import asyncio
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcp import Client

from benchmarks.common import milliseconds, quartile
from benchmarks.terminal import Raw
from csb_mcp.agents.claude import Claude
from csb_mcp.app import App
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    SandboxSpec,
    TerminalText,
    TurnFinished,
)
from csb_mcp.service.agents.supervisor import SPOOL
from csb_mcp.transports.mcp.server import build_server
from tests.support.fake_pieces import World, registry
from tests.support.sandboxes import (
    create,
    project_in,
    running_app,
    settings_in,
    short_folder,
    until,
)

SIZE = 200 * 1024**2
NEW = 20
TIMES = 200
MOST_TRANSCRIPT = 1.0  # ms
MOST_SCREEN = 1.0  # ms
MOST_HOOK = 20.0  # ms
MOST_OBSERVE = 15.0  # ms
MOST_TOKENS = 500
CHARACTERS = 4  # for a token
ROUNDS = 60  # of a prompt and a turn's end
LOOKS = 150
GAP = 0.03  # seconds before a hook, so that the one before is done with
PROJECT = Path("/home/me/app")
SCREENS = Path(__file__).parents[1] / "tests/fixtures/screens/claude-2.1.332"
SCREEN = SCREENS / "permission-bash.txt"

# For each line that it is given it writes that hook, beside the folder first, and tells when it
# renamed it.
WRITER = """
import os, sys, time
folder, given, told = sys.argv[1:]
with open(given) as given, open(told, "w", buffering=1) as told:
    for number, line in enumerate(given):
        path = f"{folder}/../.{number}"
        with open(path, "w") as file:
            file.write(line)
        at = time.monotonic_ns()
        os.rename(path, f"{folder}/{time.time_ns()}-{number}")
        print(at, file=told)
"""
# Some lines of a build now and then: 2000 a second; or as fast as they are taken.
BUSY = """
import sys, time
pause, number = float(sys.argv[1]), 0
while True:
    for _ in range(40):
        number += 1
        print(f"[{number:7}] compiling some/folder/of/a/project/{number % 97}.c with some flags")
    sys.stdout.flush()
    time.sleep(pause)  # the rate of output is what is set here
"""
SOME, FLOOD = 0.02, 0.0  # pauses
# What stands for Claude Code: hooks and screens are all that these rows are about.
STAND_IN = """#!/bin/sh
cat screen
[ -z "$BUSY" ] || exec python3 -I busy.py "$BUSY"
exec sleep infinity
"""


def line(number: int) -> bytes:
    """A line as Claude Code writes it, 2 KB, with a message of the model."""
    message = {
        "id": f"msg_{number}",
        "model": "some-model",
        "role": "assistant",
        "content": [{"type": "text", "text": f"{number} {'word ' * 250}"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 5},
    }
    fields = {"type": "assistant", "isSidechain": False, "message": message, "cwd": "x" * 400}
    return json.dumps(fields | {"timestamp": "2026-11-25T22:38:41.807Z"}).encode() + b"\n"


def transcript(base: Path) -> tuple[list[float], list[float]]:
    """Times of the floor and of ours."""
    file = base / ".claude/projects/-home-me-app/one.jsonl"
    file.parent.mkdir(parents=True)
    count = SIZE // len(line(10**6))
    with file.open("wb") as out:
        out.writelines(line(number) for number in range(count))
    home = open_folder(base)
    reader = Claude().transcripts(home, PROJECT)
    read = 0
    while found := len(reader.read().messages):
        read += found
    assert read == count, (read, count)
    fd = os.open(file, os.O_RDONLY)
    floor: list[float] = []
    ours: list[float] = []
    for _ in range(TIMES):
        at = file.stat().st_size
        with file.open("ab") as out:
            out.writelines(line(count + number) for number in range(NEW))
        count += NEW
        floor.append(
            milliseconds(lambda at=at: [*map(json.loads, os.pread(fd, 1 << 20, at).splitlines())])
        )
        ours.append(milliseconds(lambda: _all_of(len(reader.read().messages))))
    os.close(fd)
    reader.close()
    os.close(home)
    return floor, ours


def _all_of(found: int) -> None:
    assert found == NEW, found


class Writer:
    """Whoever writes hooks: a process in another place, spoken to by two FIFOs in ``base``."""

    def __init__(self, base: Path) -> None:
        self.paths = base / "given", base / "told"
        for path in self.paths:
            os.mkfifo(path)
            path.chmod(0o666)
        # Both ways at once, so that neither open waits for the other side.
        self._given, self._told = (path.open("r+b", buffering=0) for path in self.paths)

    def write(self, event: str, number: int) -> None:
        """Have a hook written."""
        more = {"prompt": f"do {number}", "last_assistant_message": f"done {number}"}
        hook = {"session_id": "one", "hook_event_name": event, **more}
        self._given.write(json.dumps(hook).encode() + b"\n")

    def since(self) -> float:
        """Milliseconds since the rename, which has happened."""
        now = time.monotonic_ns()
        return (now - int(self._told.readline())) / 1e6


def hook_floor(base: Path) -> list[float]:
    """A thread that sleeps in a read of inotify is woken."""
    spool = base / "spool"
    spool.mkdir()
    writer = Writer(base)
    libc = ctypes.CDLL(None)
    fd: int = libc.inotify_init1(os.O_CLOEXEC)
    libc.inotify_add_watch(fd, bytes(spool), 0x80)  # IN_MOVED_TO
    argv = [sys.executable, "-I", "-c", WRITER, str(spool), *map(str, writer.paths)]
    process = subprocess.Popen(argv)
    times: list[float] = []
    for number in range(ROUNDS * 2):
        time.sleep(GAP)  # a pace, no wait: see there
        writer.write("Stop", number)
        os.read(fd, 4096)
        times.append(writer.since())
    process.kill()
    process.wait()
    os.close(fd)
    return times


Wait = Callable[[Condition], Awaitable[object]]


async def hooks(writer: Writer, wait: Wait) -> list[float]:
    """Prompts and ends of turns, each waited for before it is written."""
    working, over = AgentStateIs(AgentState.WORKING), TurnFinished()
    times: list[float] = []
    for number in range(ROUNDS):
        for event, condition in (("UserPromptSubmit", working), ("Stop", over)):
            waiting = asyncio.ensure_future(wait(condition))
            await asyncio.sleep(GAP)
            assert not waiting.done(), event
            writer.write(event, number)
            await waiting
            times.append(writer.since())
    return times


def waits(service: Any, sandbox: str) -> Wait:
    """Of a service."""

    async def wait(condition: Condition) -> None:
        found = await service.wait([sandbox], [condition], mode="any", timeout=20, cursor={})
        assert found.satisfied, condition

    return wait


async def hooks_in_the_daemon(base: Path) -> list[float]:
    """The whole service, on a terminal and a sandbox that only pretend to be there."""
    world = World(base)
    world.agents["claude"] = Claude()
    program = base / "claude"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    world.settings = replace(world.settings, claude=program)
    async with world.service() as service:
        spec = SandboxSpec(project_dir=world.project, agent="claude", network="none")
        sandbox = (await service.create(spec)).id
        home = service_home(service, sandbox)
        writer = Writer(base)
        argv = [sys.executable, "-I", "-c", WRITER, str(home / SPOOL), *map(str, writer.paths)]
        process = subprocess.Popen(argv)  # noqa: ASYNC220  nothing else runs in this loop
        try:
            return await hooks(writer, waits(service, sandbox))
        finally:
            process.kill()
            process.wait()


def service_home(service: Any, sandbox: str) -> Path:
    """Its home, on the host."""
    return registry(service).live[sandbox].folders.home


@asynccontextmanager
async def sandboxes(base: Path) -> AsyncGenerator[tuple[App, Path]]:
    """A service whose Claude Code is the stand-in, and a project for it."""
    program = base / "claude"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    project = project_in(base)
    (project / "screen").write_text((SCREENS / "ready.txt").read_text())
    (project / "busy.py").write_text(BUSY)
    (project / "writer.py").write_text(WRITER)
    async with running_app(settings_in(base, claude=program)) as app:
        yield app, project


async def hooks_through_a_sandbox(app: App, project: Path) -> list[float]:
    """They are written inside, by the payload's uid."""
    sandbox = (await create(app, project, agent="claude", network="none")).id
    writer = Writer(project)
    command = f"exec python3 -I writer.py ~/{SPOOL} given told"
    await app.service.run_command(
        sandbox, command, timeout=10, cwd=None, stdin=None, background=True
    )
    times = await hooks(writer, waits(app.service, sandbox))
    await app.service.delete(sandbox)
    return times


async def observations(app: App, project: Path, pause: float) -> tuple[list[float], float]:
    """Times of ``observe`` on a terminal so busy, and most tokens of one over MCP."""
    env = {"BUSY": str(pause)}
    sandbox = (await create(app, project, agent="claude", network="none", env=env)).id
    times: list[float] = []
    cursor: str | None = None
    await until(app.service, sandbox, TerminalText("compiling"))
    for _ in range(LOOKS):
        await asyncio.sleep(GAP)
        began = time.perf_counter()
        found = await app.service.observe(sandbox, cursor=cursor)
        took = (time.perf_counter() - began) * 1000
        if found.terminal.rows:  # where this machine is busy with others, it may come to nothing
            times.append(took)
        cursor = found.terminal.cursor
    assert len(times) > LOOKS / 2, "it is not busy"
    tokens = 0.0
    async with Client(build_server(app.service)) as client:
        for arguments in ({}, {"cursor": cursor}) * 5:
            result = await client.call_tool("observe", {"sandbox": sandbox, **arguments})
            wire = result.model_dump_json(by_alias=True, exclude_none=True)
            tokens = max(tokens, len(wire) / CHARACTERS)
    await app.service.delete(sandbox)
    return times, tokens


def captures(base: Path, pause: float) -> list[float]:
    """The floor of ``observe``."""
    (base / "busy.py").write_text(BUSY)
    raw = Raw(base / "raw", f"exec python3 -I {base}/busy.py {pause}")
    times: list[float] = []
    try:
        for _ in range(LOOKS):
            time.sleep(GAP)  # a pace, likewise
            times.append(milliseconds(lambda: raw.ask("capture-pane -p")))
    finally:
        raw.close()
    return times


def show(name: str, times: list[float]) -> float:
    """Print a row; gives the first quartile."""
    best = quartile(times)
    print(f"{name:48} {best:8.3f} ({statistics.median(times):.3f})")
    return best


Promise = tuple[str, float, float]
"""What, what it is, and what it is to be at most."""


def looks() -> list[Promise]:
    """Transcript and screen."""
    with short_folder() as base:
        floor, ours = transcript(base)
    rows = SCREEN.read_text().split("\n")
    agent = Claude()
    screens = [milliseconds(lambda: agent.screen(rows)) for _ in range(TIMES)]
    show(f"floor: decode {NEW} lines", floor)
    return [
        ("transcript, ms", show(f"{NEW} new lines of {SIZE >> 20} MB", ours), MOST_TRANSCRIPT),
        ("screen, ms", show("a screen with a question", screens), MOST_SCREEN),
    ]


async def service_rows() -> list[Promise]:
    """Hooks and observe."""
    with short_folder() as base:
        show("floor: inotify wakes a thread", hook_floor(base))
    with short_folder() as base:
        inner = show("hook to wait answered, in the daemon", await hooks_in_the_daemon(base))
    promises = [("hook in the daemon, ms", inner, MOST_HOOK)]
    with short_folder() as base:
        async with sandboxes(base) as (app, project):
            outer = show(
                "hook to wait answered, from a sandbox", await hooks_through_a_sandbox(app, project)
            )
            promises.append(("hook from a sandbox, ms", outer, MOST_HOOK))
            for name, pause in (("2000 rows a second", SOME), ("a flood", FLOOD)):
                show(f"floor: capture-pane, {name}", captures(base, pause))
                times, tokens = await observations(app, project, pause)
                took = show(f"observe, {name}", times)
                print(f"{'  its largest result over MCP, tokens':48} {tokens:8.0f}")
                promises.append((f"observe, {name}, tokens", tokens, MOST_TOKENS))
                if pause:
                    promises.append((f"observe, {name}, ms", took, MOST_OBSERVE))
    return promises


def main() -> int:
    """Print the table; 1 if a bound was missed."""
    print("ms: first quartile (median)")
    promises = [*looks(), *asyncio.run(service_rows())]
    missed = [one for one in promises if one[1] > one[2]]
    for what, value, most in missed:
        print(f"MISSED: {what}: {value:.2f}, to be at most {most:g}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
