"""What a sandbox may use, and what it does use."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from csb_mcp.model import HostUsage, Problem, Sandbox, SandboxUsage


class Enclosure(Protocol):
    """What bounds, freezes and measures one sandbox's tree: a cgroup, or what takes its place.

    ``prefix`` goes before the root of the tree (before all else), ``payload_prefix`` before the
    launcher in its pane. Both end in what executes the words that follow them.
    """

    @property
    def prefix(self) -> tuple[str, ...]:
        """Enters what bounds the whole tree; run with the daemon's own uid."""
        ...

    @property
    def payload_prefix(self) -> tuple[str, ...]:
        """Enters what is frozen by pause: the payload, not its terminal and display.

        Run in the pane, with the sandbox's uid.
        """
        ...

    @property
    def enforced_by(self) -> Mapping[str, str]:
        """What enforces ``memory``, ``cpus`` and ``pids`` on this host, or ``nothing``."""
        ...

    @property
    def walks(self) -> bool:
        """A look walks through all processes: it may take long, and may be taken in a thread."""
        ...

    def usage(self, root_pid: int) -> SandboxUsage:
        """One look at the tree below ``root_pid``. Less than a tenth of a millisecond by cgroup."""
        ...

    async def uphold(self, root_pid: int) -> SandboxUsage:
        """A look as :meth:`usage`, taken every few seconds, off the event loop where it takes long.

        What no limit of the kernel's holds is held by it: of a tree that uses too much memory the
        greatest process of the payload is killed, and that counts as a hit.
        """
        ...

    def hits(self) -> Mapping[str, int]:
        """How often each limit was hit so far (limit name to a count that only grows)."""
        ...

    async def freeze(self, pane_pid: int) -> None:
        """Hold all of the payload still. Idempotent. Raises DeadlineExceeded, HostUnable.

        ``pane_pid``: the launcher's. What is frozen may not die before it is thawed.
        """
        ...

    async def thaw(self, pane_pid: int) -> None:
        """Let it go on. Idempotent; also when nothing is there any more."""
        ...

    async def remove(self) -> None:
        """Remove what was made, once the tree has ended; what still runs in it is killed first.

        Idempotent.
        """
        ...

    def close(self) -> None:
        """Let go of descriptors; the limits stay. Idempotent."""
        ...


class Limiter(Protocol):
    """Makes enclosures, as strong as this host allows."""

    def problems(self) -> Sequence[Problem]:
        """What keeps limits from being enforced here (none of it fatal). May start processes."""
        ...

    async def make(self, sandbox: Sandbox) -> Enclosure:
        """An enclosure with the limits of ``sandbox.spec``, for its uid. Raises HostUnable."""
        ...

    def adopt(self, sandbox: Sandbox) -> Enclosure:
        """That of a sandbox which runs already, or what is left of it. Changes nothing."""
        ...


class Meter(Protocol):
    """Measures the host."""

    def host(self) -> HostUsage:
        """One look at the host."""
        ...
