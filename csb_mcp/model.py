"""The values that every layer speaks of: frozen, slotted, standard library only.

Times are POSIX seconds (float, UTC); faces print them as RFC 3339. Sizes are bytes, durations
seconds, coordinates display pixels with the origin at the top left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

MAX_WAIT = 45.0
"""Seconds of one wait: desktop clients cut calls at 60."""
MAX_COMMAND = 600.0
"""Seconds of one run_command that is not in the background."""
MAX_TEXT = 256 * 1024
"""Bytes of UTF-8 in one argument."""
MAX_ROWS = 10_000
"""Rows of a terminal's history."""


class SandboxState(StrEnum):
    """``creating -> running <-> paused -> stopped | dead | failed``."""

    CREATING = "creating"  # a row is in the store; processes may or may not exist yet
    RUNNING = "running"  # display, terminal and helper have answered
    PAUSED = "paused"  # frozen by us
    STOPPED = "stopped"  # we ended it, on request, at its ttl or at shutdown
    DEAD = "dead"  # it ended by itself, or was lost
    FAILED = "failed"  # it never came up; everything was rolled back

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return self in (SandboxState.STOPPED, SandboxState.DEAD, SandboxState.FAILED)


class AgentState(StrEnum):
    """What the agent inside is doing. Until an adapter tells, it is ``NONE``."""

    NONE = "none"


@dataclass(frozen=True, slots=True)
class Geometry:
    """Size of a display in pixels; the depth is always 24."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a display, in display pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What was asked for, already checked for form (not yet for policy).

    ``ttl`` is wall-clock seconds from creation, None for no limit. ``command`` is the argument
    vector that ``agent="command"`` runs. ``env`` is added to the payload's environment; it never
    appears in an argument vector.
    """

    project_dir: Path
    name: str | None = None
    backend: str = "bubblewrap"
    agent: str = "shell"
    command: tuple[str, ...] = ()
    network: str = "none"
    workspace: str = "direct"
    geometry: Geometry = Geometry(1280, 800)
    gl: bool = False
    ttl: float | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``asked``: limit name to what was asked; ``enforced_by``: limit name to what enforces it."""

    asked: Mapping[str, str] = field(default_factory=dict[str, str])
    enforced_by: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The record of one sandbox, as every face shows it.

    ``uid`` is the host uid that the payload runs as, never 0. ``attach`` is a ready command for a
    person. ``exit_status`` is the payload's own (128 + n for a signal n), if it ended by itself.
    ``unguarded`` are the protected paths (relative to the project) that did not exist at the start
    and so could not be bound read-only; ``warnings`` tell, among others, when one of them appears.
    """

    id: str
    spec: SandboxSpec
    state: SandboxState
    uid: int
    created_at: float
    name: str | None = None
    agent_state: AgentState = AgentState.NONE
    ended_at: float | None = None
    reason: str | None = None
    exit_status: int | None = None
    limits: Limits = Limits()
    attach: str = ""
    unguarded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the pieces of one sandbox lie on the host. Nothing of a sandbox lies elsewhere.

    ``runtime`` (tmpfs, short path) dies with the sandbox; ``state`` (disk) stays until delete. Both
    are 0700 and belong to the uid that the sandbox's tree runs as. Of ``runtime`` only ``x11`` and
    ``exec`` are seen inside, read-only; of ``state`` only ``home``, read-write.
    """

    runtime: Path
    state: Path

    @property
    def tmux_socket(self) -> Path:
        """The tmux server's own socket."""
        return self.runtime / "tmux"

    @property
    def lifeline(self) -> Path:
        """Lock file whose flock(2) is held, through inheritance, exactly as long as tmux lives."""
        return self.runtime / "lifeline"

    @property
    def x11(self) -> Path:
        """Holds the X socket ``X0``; bound inside at /tmp/.X11-unix."""
        return self.runtime / "x11"

    @property
    def framebuffer(self) -> Path:
        """Folder of Xvfb's -fbdir, with ``Xvfb_screen0`` (XWD); never seen by the payload."""
        return self.runtime / "fb"

    @property
    def xauthority(self) -> Path:
        """FamilyWild MIT-MAGIC-COOKIE-1 file; bound inside at /run/csb/Xauthority."""
        return self.runtime / "xauth"

    @property
    def display_ready(self) -> Path:
        """FIFO that Xvfb's -displayfd writes its number and a newline into."""
        return self.runtime / "display.fifo"

    @property
    def exec(self) -> Path:
        """Requests of run_command: a folder each with its command and FIFOs."""
        return self.runtime / "exec"

    @property
    def control(self) -> Path:
        """FIFO from the daemon to the helper; passed inside by descriptor only."""
        return self.runtime / "control.fifo"

    @property
    def status(self) -> Path:
        """FIFO from the helper to the daemon; passed inside by descriptor only."""
        return self.runtime / "status.fifo"

    @property
    def environment(self) -> Path:
        """NUL-separated KEY=VALUE pairs for the payload, read by the launcher."""
        return self.runtime / "environment"

    @property
    def home(self) -> Path:
        """The payload's home, bound inside at /home/agent."""
        return self.state / "home"

    @property
    def log(self) -> Path:
        """What the terminal printed, raw bytes; the part before it, if any, is ``log.1``."""
        return self.state / "log"

    @property
    def last_screen(self) -> Path:
        """PNG of the display, taken when the sandbox ended."""
        return self.state / "last-screen.png"

    @property
    def last_terminal(self) -> Path:
        """Text of the terminal, taken when the sandbox ended."""
        return self.state / "last-terminal.txt"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process tree.

    ``prefix`` goes before the *root* of the tree (tmux): it changes uid and stages folders, and
    is empty where nothing of the kind is needed. ``argv`` runs inside that root, in a pane.
    """

    argv: tuple[str, ...]
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that this host lacks. ``repair`` is a command line or a sentence."""

    what: str
    why: str
    repair: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a display: ``pixels`` are rows of BGRX bytes, ``stride`` bytes a row.

    ``number`` grows by one whenever the picture differs from the one before it. It starts anew
    with each daemon, so it is only compared together with the cursor's epoch.
    """

    number: int
    width: int
    height: int
    stride: int
    pixels: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An encoded picture. ``scale`` is image pixels per display pixel (1.0, 0.5, ...)."""

    data: bytes
    format: str
    width: int
    height: int
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Screenshot:
    """``image`` is None if the screen did not change since the frame that was named.

    ``frame`` is the name of this picture, to be given back as ``if_changed_since``.
    ``tokens`` is roughly what a vision model pays for it (width * height / 750).
    """

    frame: str
    image: Image | None
    region: Region
    tokens: int = 0


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


@dataclass(frozen=True, slots=True)
class TerminalText:
    """The text stands on the terminal, or passed through it since the cursor."""

    text: str


@dataclass(frozen=True, slots=True)
class TerminalRegex:
    """A Python regular expression finds a match on one row."""

    pattern: str


@dataclass(frozen=True, slots=True)
class TerminalIdle:
    """Nothing was printed for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ScreenChanged:
    """The display differs from the named frame."""

    frame: str


@dataclass(frozen=True, slots=True)
class ScreenStable:
    """The display has not changed for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Exited:
    """The sandbox has ended."""


@dataclass(frozen=True, slots=True)
class FileExists:
    """A path exists inside (relative to the project)."""

    path: str


@dataclass(frozen=True, slots=True)
class PortOpen:
    """Something inside listens on this TCP port."""

    port: int


Condition = (
    TerminalText
    | TerminalRegex
    | TerminalIdle
    | ScreenChanged
    | ScreenStable
    | Exited
    | FileExists
    | PortOpen
)


@dataclass(frozen=True, slots=True)
class Match:
    """One condition that came true. ``index`` counts from 0 in the list that was given."""

    sandbox: str
    index: int
    evidence: str


@dataclass(frozen=True, slots=True)
class WaitResult:
    """``satisfied`` is False if the timeout passed first. ``cursors``: the next, by sandbox id."""

    satisfied: bool
    matches: tuple[Match, ...]
    cursors: Mapping[str, str]
    waited: float


@dataclass(frozen=True, slots=True)
class HostUsage:
    """One look at the host. ``cpu_percent`` is of all cores together (0 to 100)."""

    cpu_percent: float
    cpu_count: int
    load: tuple[float, float, float]
    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int
    sandboxes_running: int = 0


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """One look at a sandbox's whole tree, its display and terminal included.

    ``memory`` is the resident set summed over processes (shared pages count once each).
    """

    processes: int
    memory: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Answer of metrics."""

    host: HostUsage
    sandbox: SandboxUsage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened. ``sequence`` grows over all sandboxes and daemon restarts."""

    sequence: int
    time: float
    sandbox: str
    kind: str
    data: Mapping[str, str] = field(default_factory=dict[str, str])
