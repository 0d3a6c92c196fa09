"""A payload that does its worst: its neighbours and the daemon do not feel it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.errors import CsbError, DisplayFailed
from csb_mcp.model import CommandResult, Exited, Sandbox, SandboxState, TerminalText
from tests.support.sandboxes import create, project_in, type_line, typed, until

NEIGHBOUR_SECONDS = 0.05


async def run(app: App, sandbox: Sandbox, command: str, timeout: float = 30) -> CommandResult:
    result = await app.service.run_command(
        sandbox.id, command, timeout=timeout, cwd=None, stdin=None, background=False
    )
    assert isinstance(result, CommandResult)
    return result


@pytest.fixture
async def pair(app: App, base: Path) -> tuple[Sandbox, Sandbox]:
    """A victim-to-be and its neighbour."""
    return (
        await create(app, project_in(base, "bad")),
        await create(app, project_in(base, "good")),
    )


@asynccontextmanager
async def neighbour_answers(app: App, sandbox: Sandbox) -> AsyncGenerator[None]:
    """Reads the neighbour's terminal all the while; the median answer is quick, none is slow."""
    took: list[float] = []

    async def read() -> None:
        while True:
            began = time.perf_counter()
            await app.service.read_terminal(sandbox.id, cursor=None, lines=None)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.02)

    task = asyncio.create_task(read())
    try:
        yield
        while len(took) < 5:
            await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    ordered = sorted(took)
    # The machine itself pauses now and then; one look in fifty may meet such a pause.
    assert ordered[len(ordered) * 98 // 100 - 1] < NEIGHBOUR_SECONDS, ordered[-5:]


@pytest.mark.parametrize("way", ["terminal", "run_command"])
async def test_killing_everything_hurts_only_itself(
    app: App, pair: tuple[Sandbox, Sandbox], way: str
) -> None:
    bad, good = pair
    async with neighbour_answers(app, good):
        if way == "terminal":
            await type_line(app.service, bad.id, "kill -9 -1; exit")
        else:
            with pytest.raises(CsbError):
                await run(app, bad, "kill -9 -1; sleep 5")
        await until(app.service, bad.id, Exited())
    record = await app.service.get(bad.id)
    assert record.state is SandboxState.DEAD
    assert record.reason
    assert (await run(app, good, "echo fine")).stdout == "fine\n"


async def test_the_helper_outlives_a_command_that_kills_its_own_kind(
    app: App, sandbox: Sandbox
) -> None:
    """PID 1 cannot be killed from inside; it is asked, stopped and traced in vain."""
    result = await run(app, sandbox, "kill -9 1; kill -STOP 1; kill -TERM 1; echo tried")
    assert result.stdout == "tried\n"
    assert (await run(app, sandbox, "echo alive")).stdout == "alive\n"


async def test_a_held_x_server_stops_no_screenshot(
    app: App, pair: tuple[Sandbox, Sandbox], base: Path
) -> None:
    bad, good = pair
    source = """
import ctypes, sys, time
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p
d = ctypes.c_void_p(x.XOpenDisplay(None)); x.XGrabServer(d); x.XSync(d, 0)
print("server-" + "held", flush=True); time.sleep(60)
"""
    (base / "projects/bad/grab.py").write_text(source)
    await typed(app.service, bad.id, "python3 grab.py", "server-held")
    async with neighbour_answers(app, good):
        for sandbox in (bad, good):
            began = time.monotonic()
            await app.service.screenshot(
                sandbox.id, region=None, max_width=640, format="png", if_changed_since=None
            )
            assert time.monotonic() - began < 1
        stopped = await app.service.stop(bad.id)
    assert stopped.state is SandboxState.STOPPED


KEYBOARD_CHANGES = """
import ctypes
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p
d = ctypes.c_void_p(x.XOpenDisplay(None)); key = ctypes.c_ulong(0x61)
print("flood" + "ing", flush=True)
while True: x.XChangeKeyboardMapping(d, 200, 1, ctypes.byref(key), 1); x.XPending(d)
"""
NEW_FILES = """
import os
print("flood" + "ing", flush=True)
while True: os.close(os.open("new", os.O_CREAT | os.O_WRONLY)); os.unlink("new")
"""


@pytest.mark.once  # the daemon's own time
@pytest.mark.parametrize("source", [KEYBOARD_CHANGES, NEW_FILES], ids=["keyboard", "files"])
async def test_floods_of_events_take_little_of_the_daemons_time(
    app: App, sandbox: Sandbox, project: Path, source: str
) -> None:
    (project / "flood.py").write_text(source)
    await typed(app.service, sandbox.id, "python3 flood.py", "flooding")
    before = time.process_time()
    never = [TerminalText("is not printed")]
    await app.service.wait([sandbox.id], never, mode="any", timeout=3, cursor={})
    assert time.process_time() - before < 0.5  # a second and more, if each event is looked at
    view = await app.service.read_terminal(sandbox.id, cursor=None, lines=None)
    assert not any("Error" in text for _, text in view.rows)


async def test_pixmaps_without_end_are_refused_by_its_own_server(
    app: App, pair: tuple[Sandbox, Sandbox], base: Path
) -> None:
    bad, good = pair
    source = """
import ctypes
x = ctypes.CDLL("libX11.so.6"); x.XOpenDisplay.restype = ctypes.c_void_p
x.XDefaultRootWindow.restype = ctypes.c_ulong; x.XCreatePixmap.restype = ctypes.c_ulong
handler = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda d, e: 0)
x.XSetErrorHandler(handler); d = ctypes.c_void_p(x.XOpenDisplay(None))
root = ctypes.c_ulong(x.XDefaultRootWindow(d))
for n in range(128):
    x.XCreatePixmap(d, root, 2048, 2048, 24)
x.XSync(d, 0); print("made all", flush=True)
"""
    (base / "projects/bad/pixmaps.py").write_text(source)
    async with neighbour_answers(app, good):
        await run(app, bad, "python3 pixmaps.py", timeout=60)
        usage = (await app.service.metrics(bad.id)).sandbox
    assert usage is not None
    assert usage.memory < 1_500 << 20
    with contextlib.suppress(DisplayFailed):  # its server may be gone; that is typed, too
        await app.service.screenshot(
            bad.id, region=None, max_width=640, format="png", if_changed_since=None
        )
    assert (await run(app, bad, "echo still here")).stdout == "still here\n"


async def test_a_full_disk_inside_is_its_own(app: App, pair: tuple[Sandbox, Sandbox]) -> None:
    bad, good = pair
    async with neighbour_answers(app, good):
        result = await run(
            app, bad, "for d in /tmp /run /dev/shm; do cat /dev/zero > $d/f; done", timeout=90
        )
    assert result.stderr.count("No space left on device") == 3
    assert (await run(app, bad, "echo speaks")).stdout == "speaks\n"
    background = await app.service.run_command(
        bad.id, "echo x", timeout=5, cwd=None, stdin=None, background=True
    )
    assert background


@pytest.mark.once  # as above
async def test_floods_of_output_are_not_felt(app: App, pair: tuple[Sandbox, Sandbox]) -> None:
    bad, good = pair
    async with neighbour_answers(app, good):
        cursor = await type_line(
            app.service, bad.id, "yes flood | head -c 12000000; echo flood-$((1+1))"
        )
        result = await run(app, bad, "yes beside | head -c 12000000", timeout=60)
        assert result.truncated
        assert len(result.stdout) <= 256 * 1024
        await until(app.service, bad.id, TerminalText("flood-2"), timeout=45, cursor=cursor)


async def test_what_is_bound_cannot_be_replaced(app: App, sandbox: Sandbox) -> None:
    bound = "/run/csb/exec /tmp/.X11-unix /opt/csb /usr /etc/passwd /home/agent"
    result = await run(
        app,
        sandbox,
        f"for p in {bound}; do mv $p $p.x 2>/dev/null && echo moved $p; rmdir $p 2>/dev/null;"
        # Not all of /usr: to be refused for each of its files takes seconds.
        " rm -rf ${p/%usr/usr/sbin} 2>/dev/null && echo removed $p; ln -sfn / $p 2>/dev/null; done;"
        " touch /run/csb/exec/x /tmp/.X11-unix/X1 /opt/csb/x 2>/dev/null && echo wrote; true",
    )
    assert "moved" not in result.stdout
    assert "wrote" not in result.stdout
    assert (await run(app, sandbox, "echo ok")).stdout == "ok\n"
    shot = await app.service.screenshot(
        sandbox.id, region=None, max_width=64, format="png", if_changed_since=None
    )
    assert shot.image is not None


async def test_two_sandboxes_do_not_see_each_other(
    app: App, pair: tuple[Sandbox, Sandbox], base: Path
) -> None:
    bad, good = pair
    await run(app, good, "echo private > ~/secret; sleep 300 & echo $! > /tmp/pid")
    looks = (
        f"ls {base} {base}/projects; cat {base}/projects/g*d/*; ls -A /home; cat ~/secret;"
        " cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /tmp/.X11-unix; cat /proc/net/unix;"
        f" ls {base}/run {base}/state"
    )
    result = await run(app, bad, looks)
    assert "private" not in result.stdout
    assert good.id not in result.stdout
    assert "sleep 300" not in result.stdout
    assert "good" not in result.stdout


async def test_lies_of_the_payload_on_the_helpers_channel_stay_typed(
    app: App, pair: tuple[Sandbox, Sandbox]
) -> None:
    """It can write into PID 1's descriptors (same uid); that may spoil its own answers only."""
    bad, good = pair
    lies = (
        "for fd in /proc/1/fd/*; do [ -p $fd ] || continue;"
        " (printf 'exit 00000000 0\\nready\\nexit\\n\\0\\377%0.sgarbage\\n' {1..200} > $fd) & done;"
        " sleep 0.3; kill $(jobs -p) 2>/dev/null; echo lied"
    )
    async with neighbour_answers(app, good):
        for _ in range(3):
            with contextlib.suppress(CsbError):  # typed, whatever it is; it is its own answer
                await run(app, bad, lies, timeout=5)
        with contextlib.suppress(CsbError):
            await run(app, bad, "echo after", timeout=5)
        await app.service.stop(bad.id)
    assert (await run(app, good, "echo fine")).stdout == "fine\n"


async def test_forged_fifo_contents_are_only_its_own_output(app: App, sandbox: Sandbox) -> None:
    result = await run(
        app, sandbox, "ls -d /run/csb/exec/*; echo x > /run/csb/exec/new; ls /run/csb/exec | wc -l"
    )
    assert "Read-only file system" in result.stderr
    assert result.stdout.splitlines()[-1] == "1"
