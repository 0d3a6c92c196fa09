"""What comes from a terminal, and from commands beside it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """Terminal rows that changed after ``generation`` *since*.

    ``rows`` are (number, text) in order, numbers absolute from the terminal's start (scrolled rows
    keep theirs). ``gap``: rows were lost from the history between the two looks, or ``since`` is
    unknown; then all rows of the screen are given. ``cursor_row`` is an absolute row number, too;
    ``cursor_column`` counts from 0.
    """

    rows: tuple[tuple[int, str], ...]
    generation: int
    gap: bool
    cursor_row: int
    cursor_column: int


@dataclass(frozen=True, slots=True)
class TerminalView:
    """Answer of read_terminal. ``changed_only``: only rows changed since the cursor are given."""

    rows: tuple[tuple[int, str], ...]
    cursor: str
    changed_only: bool
    gap: bool
    cut: int = 0  # rows left out at the top because of ``lines``


@dataclass(frozen=True, slots=True)
class KeysSent:
    """Answer of send_keys: what was sent, in tmux's words, and the cursor from before it."""

    sent: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What run_command gives. ``exit_code`` is 128 + n for a signal n.

    ``truncated``: more was printed than is given here; the rest is lost. ``timed_out``: the
    deadline passed and the command's process group was killed.
    """

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool = False
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class BackgroundCommand:
    """A command that goes on by itself. The paths are inside the sandbox."""

    pid: int
    stdout_path: str
    stderr_path: str


@dataclass(frozen=True, slots=True, eq=False)
class LogPart:
    """A part of what a terminal printed, raw bytes, in order.

    ``offset`` counts bytes from the terminal's start; ``next`` is where the part after this one
    begins. ``gap``: what lay between the offset that was asked for and this one is no longer kept.
    ``ended``: the sandbox has ended, so nothing follows once this part is empty.
    """

    data: bytes
    offset: int
    next: int
    gap: bool = False
    ended: bool = False
