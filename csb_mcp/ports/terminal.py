"""A terminal, the root of a sandbox's tree."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Folders, Launch, Problem, Rows


class Terminal(Protocol):
    """One tmux server with the payload's pane and what runs beside it; a sandbox tree's root.

    What runs beside the payload has a name: ``display``, and ``egress`` where there is a proxy.
    """

    @property
    def server_pid(self) -> int:
        """Pid of the tmux server."""
        ...

    def mount_namespace(self) -> int:
        """A descriptor, the caller's, of the mount namespace that the tree is in (namespaces(7)).

        Raises TerminalFailed if the server has ended.
        """
        ...

    @property
    def pane_pid(self) -> int:
        """Pid of the program in the main pane (the launcher)."""
        ...

    @property
    def running(self) -> bool:
        """Whether the program in the main pane still runs."""
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

    async def error_beside(self, name: str) -> str | None:
        """What the program ``name`` printed, if it has ended; None while it runs."""
        ...

    async def restart_beside(self, name: str) -> None:
        """Start the program ``name`` anew, as it was started; one that runs is ended first.

        Raises TerminalFailed.
        """
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
        self, folders: Folders, payload: Launch, beside: Mapping[str, Launch], deadline: float
    ) -> Terminal:
        """Start tmux with all panes, lifeline held. Raises TerminalFailed, DeadlineExceeded.

        ``beside``: what runs beside the payload, by name; of it only ``argv`` counts.
        """
        ...

    async def adopt(self, folders: Folders, deadline: float) -> Terminal | None:
        """Connect to one that runs already; None if, by its lifeline, it does not run (any more).

        Waits for one that is just starting. Raises TerminalFailed if it runs and does not answer.
        """
        ...
