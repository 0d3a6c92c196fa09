"""What goes to stdout and stderr. Nothing that a sandbox wrote acts on a terminal."""

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from csb_mcp.lib.text import one_line, plain_text

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "dim": 2, "bold": 1}
_OF_STATE = {
    **dict.fromkeys(("paused", "creating"), "yellow"),
    **dict.fromkeys(("dead", "failed"), "red"),
    "running": "green",
    "stopped": "dim",
}
_BARS = "▁▂▃▄▅▆▇█"
_GAP = "  "


def say(text: str = "") -> None:
    """A line for a reader, made safe."""
    print(plain_text(text), flush=True)


def put(text: str) -> None:
    """Text of our own, as it is."""
    print(text, end="", flush=True)


def note(text: str) -> None:
    """A line beside the answer, on stderr."""
    print(plain_text(text), file=sys.stderr)


def show_json(value: Any) -> None:
    """For programs: one line; on a terminal some more. ASCII alone, so nothing in it acts."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def give(text: str, stream: TextIO | None = None) -> None:
    """What a program inside printed, made safe; no line is ended that it did not end."""
    target = stream or sys.stdout
    target.write(plain_text(text))
    target.flush()


def paint(text: str, colour: str) -> str:
    """Coloured on a terminal, unless NO_COLOR is set (no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paint_state(state: str, text: str) -> str:
    """``text`` in the colour of a sandbox's state."""
    colour = _OF_STATE.get(state)
    return paint(text, colour) if colour else text


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    colour_of: int = -1,
    prose: bool = False,
) -> None:
    """Columns as wide as they need; the last one takes what a terminal has left.

    ``colour_of``: the column that bears a state. ``prose``: the last column is read from its
    beginning, so its end is cut.
    """
    cells = [[one_line(cell, 4096) for cell in row] for row in (head, *rows)]
    widths = [max(columns(row[i]) for row in cells) for i in range(len(head))]
    room = _room(widths)
    for number, row in enumerate(cells):
        row[-1] = fit(row[-1][::-1], room)[::-1] if prose else fit(row[-1], room)
        shown = [
            cell + " " * (width - columns(cell))
            for cell, width in zip(row[:-1], widths[:-1], strict=True)
        ]
        if number == 0:
            print(paint(_GAP.join([*shown, row[-1]]).rstrip(), "bold"))
            continue
        if colour_of >= 0:
            shown[colour_of] = paint_state(row[colour_of], shown[colour_of])
        print(_GAP.join([*shown, row[-1]]).rstrip())


def _room(widths: Sequence[int]) -> int:
    """Columns for the last one; all it needs where no terminal bounds it."""
    if not sys.stdout.isatty():
        return widths[-1]
    import shutil  # noqa: PLC0415 a fifth of all that a verb reads, and for terminals alone

    left = shutil.get_terminal_size().columns - sum(widths[:-1]) - len(_GAP) * (len(widths) - 1)
    return max(left, 8)


def fit(text: str, room: int) -> str:
    """``text`` in ``room`` columns; of a longer one the end, for that tells paths apart."""
    if columns(text) <= room:
        return text
    while text and columns(text) > room - 1:
        text = text[1:]
    return "…" + text


def columns(text: str) -> int:
    """How wide a terminal shows it."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def pairs(items: Iterable[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    found = [(name, value) for name, value in items if value]
    width = max((len(name) for name, _ in found), default=0)
    for name, value in found:
        print(f"{name:<{width}}  {one_line(value, 4096)}")


def sparkline(values: Sequence[float], top: float | None = None) -> str:
    """A bar for each value, of ``top`` or of the highest."""
    most = top or max(values, default=0.0) or 1.0
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(value / most * last)))] for value in values)


def size(count: float) -> str:
    """Bytes as people write them."""
    for unit in ("B", "K", "M", "G"):
        if count < 1024 or unit == "G":
            break
        count /= 1024
    return f"{count:.1f}{unit}" if count < 10 and unit != "B" else f"{count:.0f}{unit}"


def span(seconds: float) -> str:
    """A duration as people write it, in one unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{max(0.0, seconds):.0f}s"
