"""What one look at a terminal, one key and one byte printed cost, beside raw control mode.

The floor is one round trip of a bare control-mode client, blocking pipes and thirty lines, on a
tmux server of its own with the same screen. Both are driven in turn, so that the load of the
machine falls on both alike. The ancestor forked a tmux for each.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.common import milliseconds
from csb_mcp.host.terminal.server import ENVIRONMENT
from csb_mcp.host.terminal.terminal import TmuxTerminal
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.model import Folders, Launch

TIMES = 400
FORKS = 20
WAKES = 100
MOST_RATIO = 3.0
MOST_WAKE = 5.0  # ms
SCREEN = (
    "stty -echo; for n in $(seq 100); do echo $n some text as it stands on a screen; done; "
    "exec cat >/dev/null"
)


class Raw:
    """A control-mode client without anything around it."""

    def __init__(self, socket: Path, payload: str = SCREEN) -> None:
        self.tmux = ["tmux", "-u", "-S", str(socket), "-f", "/dev/null"]
        program = ["new-session", "-x", "120", "-y", "36", "--", "/bin/sh", "-c", payload]
        self.process = subprocess.Popen(
            [*self.tmux, "-C", *program],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.buffer = b""
        assert self.process.stdin
        assert self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.answer()  # of new-session

    def line(self) -> bytes:
        """The next line."""
        while b"\n" not in self.buffer:
            self.buffer += os.read(self.stdout, 65536)
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def ask(self, command: str) -> list[bytes]:
        """One round trip."""
        os.write(self.stdin, command.encode() + b"\n")
        return self.answer()

    def answer(self) -> list[bytes]:
        """The lines between the next %begin and its %end."""
        while not self.line().startswith(b"%begin"):
            pass
        lines: list[bytes] = []
        while not (line := self.line()).startswith((b"%end", b"%error")):
            lines.append(line)
        return lines

    def close(self) -> None:
        """End the server."""
        self.ask("kill-server")
        self.process.communicate()


def main() -> int:
    """Print the table; 1 if a bound was missed."""
    base = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    try:
        missed = asyncio.run(compare(base))
    finally:
        shutil.rmtree(base)
    for what in missed:
        print(f"MISSED: {what}")
    return bool(missed)


async def compare(base: Path) -> list[str]:
    """Measure and print; gives what was missed."""
    raw = Raw(base / "raw")
    try:
        async with terminal_in(base) as terminal:
            await terminal.rows(None)
            generation = (await terminal.rows(None)).generation
            look, read = await in_turn(
                lambda: raw.ask("capture-pane -p"), lambda: terminal.rows(generation)
            )
            press, key = await in_turn(
                lambda: raw.ask("send-keys F5"), lambda: terminal.send(None, ["F5"])
            )
            wakes = await measure_wakes(base, terminal)
        forks = [milliseconds(lambda: fork(raw.tmux)) for _ in range(FORKS)]
    finally:
        raw.close()
    print("ms: median (first quartile)")
    for name, times, floor in (
        ("floor: raw capture-pane", look, look),
        ("ours, read of changed rows", read, look),
        ("ancestor: fork tmux capture-pane", forks, look),
        ("floor: raw send-keys", press, press),
        ("ours, key", key, press),
        ("ours, byte printed to waiter woken", wakes, look),
    ):
        show(name, times, floor)
    promises = [
        ("read to floor", ratio(read, look), MOST_RATIO),
        ("key to floor", ratio(key, press), MOST_RATIO),
        ("printed to woken, ms", statistics.median(wakes), MOST_WAKE),
    ]
    for name, value, most in promises:
        print(f"{name}: {value:.2f}, to be at most {most:g}")
    return [name for name, value, most in promises if value > most]


@asynccontextmanager
async def terminal_in(base: Path) -> AsyncGenerator[TmuxTerminal]:
    """A terminal whose program takes keys and copies a FIFO to the screen."""
    folders = Folders(base / "r", base / "s")
    folders.runtime.mkdir()
    folders.state.mkdir()
    os.mkfifo(base / "fifo")
    payload = Launch(("/bin/sh", "-c", f"cat <>{base}/fifo & {SCREEN}"))
    loop = asyncio.get_running_loop()
    terminal = await TmuxTerminals().start(
        folders, payload, {"display": Launch(("/bin/sleep", "1000"))}, loop.time() + 10
    )
    try:
        await settle(terminal)
        yield terminal
    finally:
        await terminal.kill(loop.time() + 1)


async def settle(terminal: TmuxTerminal) -> None:
    """Wait until it has been quiet for a moment."""
    while terminal.idle_seconds < 0.2:
        await asyncio.sleep(0.05)


async def in_turn(
    floor: Callable[[], object], ours: Callable[[], Awaitable[object]]
) -> tuple[list[float], list[float]]:
    """Milliseconds of each, call by call in turn."""
    floors: list[float] = []
    times: list[float] = []
    for _ in range(TIMES):
        floors.append(milliseconds(floor))
        begun = time.perf_counter()
        await ours()
        times.append((time.perf_counter() - begun) * 1000)
    return floors, times


async def measure_wakes(base: Path, terminal: TmuxTerminal) -> list[float]:
    """Milliseconds from a write to the FIFO until somebody who waits for output goes on."""
    await settle(terminal)
    times: list[float] = []
    with open(base / "fifo", "wb", buffering=0) as fifo:
        for _ in range(WAKES):
            beats, begun = terminal.output.count, time.perf_counter()
            fifo.write(b"x")
            await terminal.output.beyond(beats)
            times.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.005)
    return times


def fork(tmux: list[str]) -> None:
    """As the ancestor looked at a screen."""
    subprocess.run([*tmux, "capture-pane", "-p"], env=ENVIRONMENT, check=True, capture_output=True)


def ratio(times: list[float], floor: list[float]) -> float:
    """Median to median."""
    return statistics.median(times) / statistics.median(floor)


def show(name: str, times: list[float], floor: list[float]) -> None:
    """One line of the table."""
    quartile = statistics.quantiles(times, n=4)[0]
    median = statistics.median(times)
    print(f"  {name:36} {median:7.3f} ({quartile:6.3f})   x{ratio(times, floor):.2f}")


if __name__ == "__main__":
    sys.exit(main())
