"""What tmux tells of its panes: their state, and the rows that stand on them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

from csb_mcp.host.terminal.control import Blocks, Control
from csb_mcp.lib.text import screen_row

_BUFFER = "csb-look"
_ESCAPE = re.compile(rb"\\([0-7]{3}|.)")

RowText = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class Pane:
    """One pane. ``status`` is known once its program has ended (128 + n for a signal n).

    ``dead``: and tmux has read, and logged, all that it printed.
    """

    name: str
    id: str
    pid: int
    dead: bool
    status: int | None

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """From a line of ``list_panes``."""
        name, pane, pid, dead, end = line.decode().split(" ")
        code, _, signum = end.partition(",")
        status = 128 + int(signum) if signum else int(code) if code else None
        return cls(name, pane, int(pid), dead == "1", status)


async def list_panes(control: Control) -> dict[str, Pane]:
    """All panes by their session's name. Raises TerminalFailed."""
    state = "#{pane_dead} #{pane_dead_status},#{pane_dead_signal}"
    form = f"#{{session_name}} #{{pane_id}} #{{pane_pid}} {state}"
    (lines,) = await control.request([f"list-panes -a -F '{form}'"])
    return {pane.name: pane for pane in map(Pane.parse, lines)}


async def capture(
    control: Control, pane: str, reach: int, form: str
) -> tuple[list[int], list[bytes]]:
    """Numbers of ``form``, length of history and height; then the rows, all of one moment.

    The rows are the screen's and at most ``reach`` above it, as ``row_text`` can read them.
    """
    commands = [
        f"display-message -p -t {pane} '{form} #{{history_size}} #{{pane_height}}'",
        # Not -p: tmux 3.3 forgets to free what it prints to a control client that way, and grows
        # by the whole capture each time.
        f"capture-pane -t {pane} -S -{reach} -b {_BUFFER}",
        f"show-buffer -b {_BUFFER}",
    ]
    state, _, rows = await control.request(commands, row_count=partial(_row_count, reach))
    # The buffer ends in a line end, after which tmux prints one more.
    return [int(number) for number in state[0].split()], rows[: _row_count(reach, [state])]


async def row_text(control: Control) -> RowText:
    """What makes a captured row into plain text: some tmux escape it, as vis(3) does."""
    commands = [f"set-buffer -b {_BUFFER} '\\'", f"show-buffer -b {_BUFFER}"]
    _, shown = await control.request(commands)
    return screen_row if shown == [b"\\"] else _unescaped


def _row_count(reach: int, blocks: Blocks) -> int:
    history, height = blocks[0][0].split()[-2:]
    return min(int(history), reach) + int(height)


def _unescaped(row: bytes) -> str:
    if b"\\" in row:
        row = _ESCAPE.sub(_byte, row)
    return screen_row(row)


def _byte(escape: re.Match[bytes]) -> bytes:
    octal = escape[1] if len(escape[1]) == 3 else None
    return escape[1] if octal is None else bytes([int(octal, 8) & 0xFF])
