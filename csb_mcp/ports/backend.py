"""What isolates a payload, and the way to its inside."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from csb_mcp.model import (
    BackgroundCommand,
    CommandResult,
    Folders,
    Launch,
    Problem,
    Sandbox,
    SandboxSpec,
)
from csb_mcp.ports.agent import Program, Seed


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

    def full(self) -> Sequence[str]:
        """Those of the backend's ``bounds`` that are folders and have no room left."""
        ...

    def port_open(self, port: int) -> bool:
        """Whether a TCP socket inside listens on ``port``; read from outside."""
        ...

    def client_of(self, port: int) -> str | None:
        """Name of the program inside whose TCP connection has this local port; read from outside.

        The sandbox's word: a program names itself as it likes.
        """
        ...

    async def open_way_out(self) -> None:
        """Make the listener inside anew and hand it to the egress proxy, after that was restarted.

        Raises HelperFailed, SandboxEnded.
        """
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

    def bounds(self, spec: SandboxSpec) -> Mapping[str, tuple[str, str]]:
        """What it bounds beside what is asked for: name to the limit and to what enforces it."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for it; empty if sandboxes can be made. May start processes."""
        ...

    def choose_uid(self, project: Path, taken: Collection[int], offered: int | None = None) -> int:
        """The host uid that a payload working in ``project`` shall have; never 0.

        ``taken`` are uids of existing sandboxes; ``offered`` is one of them that may be had, and is
        taken if it is as good as any. Raises HostUnable if there is no such uid.
        """
        ...

    def unguarded(self, project: Path) -> Sequence[str]:
        """Protected paths of ``project`` (relative) that do not exist, so cannot be guarded."""
        ...

    async def ground(self, sandbox: Sandbox, folders: Folders, project_fd: int | None) -> Launch:
        """Say how to start a tree whose launcher waits until :meth:`begin`; make what it waits at.

        Of ``sandbox`` only its id, uid and what a spare shares with it is known. ``project_fd``:
        see :meth:`prepare`; None if :meth:`show_project` follows. Raises HostUnable.
        """
        ...

    async def show_project(
        self, sandbox: Sandbox, folders: Folders, project_fd: int, namespace: int
    ) -> None:
        """Show the tree the project, which it was started without.

        ``namespace``: an open descriptor of the tree's mount namespace. Raises HostUnable.
        """
        ...

    async def prepare(
        self,
        sandbox: Sandbox,
        folders: Folders,
        project_fd: int,
        environment: Mapping[str, str],
        *,
        program: Program | None = None,
        seed: Seed | None = None,
    ) -> None:
        """Fill ``folders`` with the payload's (home, environment), and what the launcher will obey.

        ``environment`` is added to what the spec asks for: the way out's, which must be there.
        ``program``: the agent's, instead of the shell or the spec's command; ``seed``: what it
        needs in its home. ``project_fd`` is an open O_PATH descriptor of the folder that policy
        checked; it stays the caller's and stays open until create is done.
        """
        ...

    async def begin(self, folders: Folders, pane_pid: int, deadline: float) -> Helper:
        """Let the launcher go on with what was prepared; then as :meth:`connect`."""
        ...

    async def connect(self, folders: Folders, pane_pid: int, deadline: float) -> Helper:
        """Wait until the helper inside has answered, by ``deadline`` (loop time). Also adopts.

        ``pane_pid`` is the launcher's pid. Raises DeadlineExceeded, HelperFailed with what the
        launcher said.
        """
        ...
