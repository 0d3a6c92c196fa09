"""A key, a click and a text on a display: ours, the bare XTEST round trip, and a forked xdotool.

    python benchmarks/input.py

Prints milliseconds and their ratios, from one run on one machine; all take turns. Exits 1 if a key
or a click takes longer than the project promises: 1 ms, until the server has done it.

The floor is a blocking client, here, which is connected already and knows the keycode: it sends the
requests and waits for one reply. What counts is the first quartile: other programs on the machine
only ever make a time longer.
"""

import asyncio
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.common import quartile
from benchmarks.display import environment, inside, screen, show
from csb_mcp.lib.xauth import PROTOCOL, unpack_wild
from csb_mcp.model import Folders, Geometry, Point
from tests.support.sandboxes import short_folder

GEOMETRY = Geometry(1280, 800)
TIMES = 300
FORKS = 15
MOST = 1.0  # ms of a key or a click
KEYCODE_A = 38
LATIN = "The quick brown fox jumps over the lazy dog. " * 2
HAN = "日本語中文字幕学生先生天地人"


def main() -> int:
    """Run all; the exit status."""
    with short_folder() as base:
        missed = asyncio.run(compare(base))
    for what in missed:
        print(f"missed: {what}")
    return bool(missed)


async def compare(base: Path) -> list[str]:
    """Measure and print; gives what was missed."""
    async with screen(base, GEOMETRY) as (display, folders):
        floor = Floor(folders)
        here = Point(640, 400)
        key, bare_key = await turns(lambda: display.press(["a"]), floor.key)
        click, bare_click = await turns(
            lambda: display.click(here, button="left", count=1), floor.click
        )
        latin = await measure(lambda: display.type_text(LATIN), 30)
        han = await measure(lambda: display.type_text(HAN), 10)
        forked = measure_forks(folders, ("key", "a"), ("mousemove", "640", "400", "click", "1"))
        floor.close()
    print("milliseconds: first quartile (median)")
    show("a key, bare XTEST round trip", bare_key, bare_key)
    show("a key, ours", key, bare_key)
    show("a click, bare XTEST round trip", bare_click, bare_click)
    show("a click, ours", click, bare_click)
    for name, times in forked.items():
        show(f"forked xdotool {name}", times, bare_key)
    show(f"{len(LATIN)} characters of the keymap, ours", latin, bare_key)
    show(f"{len(HAN)} characters that are not on it, ours", han, bare_key)
    if not forked:
        print("xdotool is left out: it is not installed")
    promises = [("a key, ms", quartile(key)), ("a click, ms", quartile(click))]
    for name, value in promises:
        print(f"{name}: {value:.2f}, to be at most {MOST}")
    return [name for name, value in promises if value > MOST]


async def turns(
    ours: Callable[[], Awaitable[None]], bare: Callable[[], None]
) -> tuple[list[float], list[float]]:
    """Milliseconds of each of many calls of both, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMES):
        times[0].extend(await measure(ours, 1))
        start = time.perf_counter()
        bare()
        times[1].append((time.perf_counter() - start) * 1000)
    return times


async def measure(call: Callable[[], Awaitable[None]], count: int) -> list[float]:
    """Milliseconds of each of ``count`` calls."""
    times: list[float] = []
    for _ in range(count):
        await asyncio.sleep(0.001)
        start = time.perf_counter()
        await call()
        times.append((time.perf_counter() - start) * 1000)
    return times


def measure_forks(folders: Folders, *commands: tuple[str, ...]) -> dict[str, list[float]]:
    """A fork of xdotool for each act, as a shell would; empty if it is not installed."""
    if not shutil.which("xdotool"):
        return {}
    found: dict[str, list[float]] = {}
    for command in commands:
        line = f"for i in $(seq {FORKS}); do s=$(date +%s%N); xdotool {' '.join(command)}"
        line += "; echo $(($(date +%s%N) - s)); done"
        argv = inside(folders, "sh", "-c", line)
        run = subprocess.run(argv, env=environment(folders), capture_output=True, check=True)
        found[" ".join(command)] = [int(word) / 1e6 for word in run.stdout.split()]
    return found


class Floor:
    """A blocking client that is connected and does what is least."""

    def __init__(self, folders: Folders) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(folders.x11 / "X0"))
        cookie = unpack_wild(folders.xauthority.read_bytes())
        hello = struct.pack("<BxHHHHxx", 0x6C, 11, 0, len(PROTOCOL), len(cookie))
        self._socket.sendall(hello + PROTOCOL + bytes(-len(PROTOCOL) % 4) + cookie)
        _, length = struct.unpack("<B5xH", self._read(8))
        self._read(length * 4)
        self._socket.sendall(struct.pack("<BxHHxx", 98, 4, 5) + b"XTEST\0\0\0")
        self._opcode = self._read(32)[9]

    def key(self) -> None:
        """Press and release it, and wait until that is done."""
        self._do((2, KEYCODE_A, 0, 0), (3, KEYCODE_A, 0, 0))

    def click(self) -> None:
        """Move, press, release, and wait until that is done."""
        self._do((6, 0, 640, 400), (4, 1, 0, 0), (5, 1, 0, 0))

    def close(self) -> None:
        """Disconnect."""
        self._socket.close()

    def _do(self, *inputs: tuple[int, int, int, int]) -> None:
        fakes = [struct.pack("<BBHBB18xhh8x", self._opcode, 2, 9, *event) for event in inputs]
        self._socket.sendall(b"".join(fakes) + struct.pack("<BxH", 43, 1))  # GetInputFocus
        self._read(32)

    def _read(self, size: int) -> bytes:
        return self._socket.recv(size, socket.MSG_WAITALL)


if __name__ == "__main__":
    sys.exit(main())
