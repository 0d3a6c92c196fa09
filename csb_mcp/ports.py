"""The contracts between the rooms. Implementations are terse; what they owe is written here.

Everything is asynchronous unless it is a plain look at memory. Every wait has a deadline. All
methods may raise :class:`~csb_mcp.errors.CsbError` subclasses only; anything else is a defect.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import (
    BackgroundCommand,
    CommandResult,
    Condition,
    Event,
    Folders,
    Frame,
    Geometry,
    HostUsage,
    Image,
    KeysSent,
    Launch,
    Metrics,
    Problem,
    Region,
    Rows,
    Sandbox,
    SandboxSpec,
    SandboxState,
    SandboxUsage,
    Screenshot,
    TerminalView,
    WaitResult,
)


class Helper(Protocol):
    """The daemon's end of the channel to PID 1 inside a sandbox.

    Everything that comes back is the sandbox's word: it is parsed as hostile.
    """

    @property
    def init_pid(self) -> int:
        """Host pid of PID 1 inside."""
        ...

    async def run(
        self, command: str, *, cwd: str | None, stdin: bytes, timeout: float, max_output: int
    ) -> CommandResult:
        """Run ``bash -c command`` inside, in a session of its own, until it exits.

        ``cwd`` is a path inside, None for the project. Of stdout and stderr the first
        ``max_output`` bytes each are kept, the rest is read and dropped. After ``timeout`` seconds,
        or if the caller is cancelled, its process group is killed. Many may run at once.

        Raises HelperFailed (killed by the payload, no process left to give, no such cwd),
        SandboxEnded.
        """
        ...

    async def start(self, command: str, *, cwd: str | None) -> BackgroundCommand:
        """Start ``bash -c command`` inside and return at once; output goes to files in its /tmp."""
        ...

    async def terminate(self) -> None:
        """Ask all processes inside to end (SIGTERM, SIGHUP, SIGCONT). Does not wait for them."""
        ...

    def path_exists(self, path: str) -> bool:
        """Whether ``path`` (absolute, inside) exists; looked up from outside, links stay inside."""
        ...

    def port_open(self, port: int) -> bool:
        """Whether a TCP socket inside listens on ``port``; read from outside."""
        ...

    def close(self) -> None:
        """Let go of the channel. The sandbox goes on. Idempotent."""
        ...


class Backend(Protocol):
    """One way to isolate: bubblewrap here; others later."""

    @property
    def name(self) -> str:
        """As in ``create_sandbox(backend=...)``."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for it; empty if sandboxes can be made. May start processes."""
        ...

    def choose_uid(self, project: Path, taken: Collection[int]) -> int:
        """The host uid that a payload working in ``project`` shall have; never 0.

        ``taken`` are uids of existing sandboxes. Raises HostUnable if there is no such uid.
        """
        ...

    def unguarded(self, project: Path) -> Sequence[str]:
        """Protected paths of ``project`` (relative) that do not exist, so cannot be guarded."""
        ...

    async def prepare(self, sandbox: Sandbox, folders: Folders, project_fd: int) -> Launch:
        """Fill ``folders`` (FIFOs, home, environment) and say how to start the payload's tree.

        ``project_fd`` is an open O_PATH descriptor of the folder that policy checked; it stays
        the caller's and stays open until create is done.
        """
        ...

    async def connect(self, folders: Folders, pane_pid: int, deadline: float) -> Helper:
        """Wait until the helper inside has answered, by ``deadline`` (loop time). Also adopts.

        ``pane_pid`` is the launcher's pid. Raises DeadlineExceeded, HelperFailed with what the
        launcher said.
        """
        ...


class Display(Protocol):
    """One screen."""

    @property
    def geometry(self) -> Geometry:
        """Its size."""
        ...

    @property
    def damage(self) -> Pulse:
        """Beats soon after something was drawn, perhaps without a change: after a beat, capture."""
        ...

    async def capture(self) -> Frame:
        """The screen now, whole (not torn); the kept frame itself if nothing changed.

        Needs nothing from the X server, so it works while a client grabs it. Raises DisplayFailed.
        """
        ...

    async def encode(self, frame: Frame, region: Region, *, max_width: int, format: str) -> Image:
        """``region`` of ``frame`` as ``png``, ``jpeg`` or ``webp`` (lossless), at most so wide."""
        ...

    async def close(self) -> None:
        """Let go of it; the display goes on. Idempotent."""
        ...


class Displays(Protocol):
    """Makes displays."""

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for it."""
        ...

    async def prepare(self, folders: Folders, geometry: Geometry, *, gl: bool) -> Launch:
        """Make its folders, cookie and FIFO; say how to start the X server."""
        ...

    async def connect(self, folders: Folders, geometry: Geometry, deadline: float) -> Display:
        """Wait until it answers, by ``deadline`` (loop time). Also adopts one that runs already.

        Raises DeadlineExceeded, DisplayFailed.
        """
        ...


class Terminal(Protocol):
    """One tmux server with the payload's pane and the display's; the root of a sandbox's tree."""

    @property
    def server_pid(self) -> int:
        """Pid of the tmux server."""
        ...

    @property
    def pane_pid(self) -> int:
        """Pid of the program in the main pane (the launcher)."""
        ...

    @property
    def output(self) -> Pulse:
        """Beats when the pane printed something (within about a millisecond, coalesced)."""
        ...

    @property
    def idle_seconds(self) -> float:
        """Time since the pane last printed (or since we connected)."""
        ...

    async def send(self, text: str | None, keys: Sequence[str], *, paste: bool = False) -> None:
        """Type ``text`` literally, then press ``keys`` (tmux names: ``Enter``, ``C-c``, ``F5``).

        ``paste`` wraps the text as a bracketed paste if the program asked for that. All names are
        checked before anything is sent. Raises InvalidInput (unknown key name, with suggestions),
        TerminalFailed.
        """
        ...

    async def rows(self, since: int | None) -> Rows:
        """Rows that changed after generation ``since``; None: all of the visible screen."""
        ...

    async def history(self, lines: int) -> Rows:
        """The last ``lines`` rows, history included, trailing blank rows left out."""
        ...

    async def wait_exit(self) -> int:
        """Wait until the payload's pane ends; gives its exit status (128 + n for a signal n).

        Raises TerminalFailed if the tmux server itself went away.
        """
        ...

    async def display_error(self) -> str | None:
        """What the display's pane printed, if its program has ended; None while it runs."""
        ...

    async def close(self) -> None:
        """Detach our client; the tree goes on. Idempotent."""
        ...

    async def kill(self, deadline: float) -> None:
        """End the whole tree: SIGTERM, then SIGKILL at ``deadline`` (loop time). Idempotent.

        Afterwards no process of the tree is left.
        """
        ...


class Terminals(Protocol):
    """Makes terminals."""

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for it."""
        ...

    async def start(
        self, folders: Folders, payload: Launch, display: Launch, deadline: float
    ) -> Terminal:
        """Start tmux with both panes, lifeline held. Raises TerminalFailed, DeadlineExceeded."""
        ...

    async def adopt(self, folders: Folders, deadline: float) -> Terminal | None:
        """Connect to one that runs already; None if, by its lifeline, it does not run (any more).

        Waits for one that is just starting. Raises TerminalFailed if it runs and does not answer.
        """
        ...


class Watcher(Protocol):
    """Watches folders that a payload can write."""

    def appearing(self, folder: Path, paths: Sequence[str]) -> AsyncIterator[str]:
        """Those of ``paths`` (relative to ``folder``) that exist, each once, as they appear.

        A link on the way counts as the path itself. Ends when all have appeared, or at once if the
        host has no watch left to give.
        """
        ...


class Keeper(Protocol):
    """Makes, fills and removes the folders of sandboxes, and what is kept in them after the end."""

    def folders(self, sandbox_id: str) -> Folders:
        """Where that sandbox lies. A plain computation."""
        ...

    async def make(self, folders: Folders, uid: int) -> None:
        """Make both folders, 0700, owned by ``uid``. Raises HostUnable (full, forbidden)."""
        ...

    async def keep_last(
        self, folders: Folders, *, terminal: str | None, screen: bytes | None
    ) -> None:
        """Keep the last terminal and the last screen (PNG), as far as there are any."""
        ...

    async def last_terminal(self, folders: Folders) -> str:
        """What was kept, else empty."""
        ...

    async def last_screen(self, folders: Folders) -> bytes | None:
        """What was kept (PNG), else None."""
        ...

    async def remove_runtime(self, folders: Folders) -> None:
        """Remove the runtime folder. Idempotent."""
        ...

    async def remove(self, folders: Folders) -> None:
        """Remove both, whatever a payload made of them. Idempotent. Raises HostUnable."""
        ...


class Meter(Protocol):
    """Measures."""

    def host(self) -> HostUsage:
        """One look at the host."""
        ...

    def tree(self, root_pid: int) -> SandboxUsage:
        """One look at a process and all below it."""
        ...


class Store(Protocol):
    """Records and events on disk. Every method returns after the data outlives a SIGKILL."""

    async def insert(self, sandbox: Sandbox) -> None:
        """Add a record. Raises Conflict if its name is taken by a sandbox that has not ended."""
        ...

    async def update(self, sandbox: Sandbox) -> None:
        """Replace a record."""
        ...

    async def delete(self, sandbox_id: str) -> None:
        """Forget a record and its events."""
        ...

    async def all(self) -> list[Sandbox]:
        """All records, oldest first."""
        ...

    async def append_event(self, sandbox: str, kind: str, data: Mapping[str, str]) -> Event:
        """Number and keep an event."""
        ...

    async def events(self, after: int, sandbox: str | None = None) -> list[Event]:
        """Events with a greater sequence number, oldest first."""
        ...

    async def last_event(self) -> int:
        """The greatest sequence number ever given, 0 if none."""
        ...

    async def close(self) -> None:
        """Flush and close. Idempotent."""
        ...


class SandboxService(Protocol):
    """What every face translates. ``sandbox`` is an id, a unique prefix of one, or a name."""

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make a sandbox; returns when display, terminal and helper have answered.

        Raises InvalidInput, Forbidden, Conflict, HostUnable; CreateFailed after a full roll-back.
        """
        ...

    async def list(self, state: SandboxState | None = None) -> list[Sandbox]:
        """Records, newest first."""
        ...

    async def get(self, sandbox: str) -> Sandbox:
        """One record. Raises NotFound, Ambiguous."""
        ...

    async def stop(self, sandbox: str) -> Sandbox:
        """End it; keeps record, log and last screen. Ended already: gives the record."""
        ...

    async def delete(self, sandbox: str) -> Sandbox:
        """End it if need be, and remove all that is left of it; gives its last record."""
        ...

    async def send_keys(
        self, sandbox: str, *, text: str | None, keys: Sequence[str], target: str, paste: bool
    ) -> KeysSent:
        """Text, then keys, to the terminal."""
        ...

    async def read_terminal(
        self, sandbox: str, *, cursor: str | None, lines: int | None
    ) -> TerminalView:
        """Without cursor: the screen (or the last ``lines`` rows); with one: changed rows.

        Of an ended sandbox: its last screen.
        """
        ...

    async def run_command(
        self,
        sandbox: str,
        command: str,
        *,
        timeout: float,
        cwd: str | None,
        stdin: str | None,
        background: bool,
    ) -> CommandResult | BackgroundCommand:
        """Beside the terminal, through the helper."""
        ...

    async def screenshot(
        self,
        sandbox: str,
        *,
        region: Region | None,
        max_width: int,
        format: str,
        if_changed_since: str | None,
    ) -> Screenshot:
        """A picture of the display; of an ended sandbox, its last one (png only)."""
        ...

    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        """Until any (or all) conditions came true in any (or all) of the sandboxes, or timeout.

        mode "any": the first condition in any sandbox ends the wait; "all": every condition has
        to come true once in every sandbox. ``cursor``: terminal text is looked for in rows that
        changed since; without one, on the present screen first.
        """
        ...

    async def metrics(self, sandbox: str | None) -> Metrics:
        """The host, and a sandbox's tree if named."""
        ...

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Events as they happen; first those after sequence number ``after``, if given."""
        ...
