"""What a look at an agent costs: its transcript, which has grown long, and its screen.

The floor of a transcript is to read and decode the new lines alone, from a file that is open.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from csb_mcp.agents.claude import Claude
from csb_mcp.lib.safe_open import open_folder

SIZE = 200 * 1024**2
NEW = 20
TIMES = 200
MOST_TRANSCRIPT = 1.0  # ms
MOST_SCREEN = 1.0  # ms
PROJECT = Path("/home/me/app")
SCREEN = Path(__file__).parents[1] / "tests/fixtures/screens/claude-2.1.332/permission-bash.txt"


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


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


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


def show(name: str, times: list[float]) -> float:
    """Print a row; gives the median."""
    median = statistics.median(times)
    print(f"{name:48} {median:8.3f} ({statistics.quantiles(times)[0]:.3f})")
    return median


def main() -> int:
    """Print the table; 1 if a bound was missed."""
    base = Path(tempfile.mkdtemp(prefix="csb", dir="/dev/shm"))
    try:
        floor, ours = transcript(base)
    finally:
        shutil.rmtree(base)
    rows = SCREEN.read_text().split("\n")
    agent = Claude()
    screens = [milliseconds(lambda: agent.screen(rows)) for _ in range(TIMES)]
    print("ms: median (first quartile)")
    show(f"floor: decode {NEW} lines", floor)
    promises = (
        (show(f"ours, {NEW} new lines of {SIZE >> 20} MB", ours), MOST_TRANSCRIPT),
        (show("ours, a screen with a question", screens), MOST_SCREEN),
    )
    missed = [f"{value:.2f} ms, to be at most {most:g}" for value, most in promises if value > most]
    for what in missed:
        print(f"MISSED: {what}")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
