"""The way out of a sandbox: its egress proxy, a process of its own beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from csb_mcp.model import (
    Ask,
    Connection,
    Folders,
    Launch,
    Problem,
    ProxyCount,
    Sandbox,
    TriedHost,
)

ClientOf = Callable[[int], str | None]
"""The program inside that a TCP port of the sandbox's loopback belongs to, if it can be seen."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What a network mode needs beside the payload.

    ``environment`` goes to the payload: placeholders of secrets, or those secrets that the settings
    want inside. ``warnings`` go to the record: what this mode should keep apart and cannot here.
    """

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()


class Gate(Protocol):
    """The daemon's end of one proxy. Every call raises EgressFailed once the proxy has gone."""

    async def rule(self, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Replace the rules: presets resolved by the caller, a denial wins. In force on return.

        Connections that the new rules would not allow are cut.
        """
        ...

    async def allow_once(self, host: str, port: int) -> None:
        """Let one connection through, within ten minutes."""
        ...

    async def asks(self) -> Sequence[Ask]:
        """Wait until hosts were asked for that no rule names; those since the last call.

        After a connect, first those that the proxy remembers (at most 256 names).
        """
        ...

    @property
    def counted(self) -> ProxyCount | None:
        """What it counted since it started, as last told; None if it counts nothing."""
        ...

    async def counts(self) -> ProxyCount:
        """Wait until it tells something that was not given here yet."""
        ...

    def close(self) -> None:
        """Let go. The proxy goes on with the rules that it has. Idempotent."""
        ...


class Gates(Protocol):
    """Makes ways out."""

    def problems(self) -> Sequence[Problem]:
        """What this host lacks for a network other than none (none of it fatal)."""
        ...

    async def ground(self, sandbox: Sandbox, folders: Folders) -> Launch | None:
        """The proxy to start, its folders made; None if this mode has none.

        Raises HostUnable (a tool is missing for this mode).
        """
        ...

    def outlook(self, network: str) -> object:
        """What a way out in this mode is made by on this host: when it differs, that is stale."""
        ...

    async def prepare(self, sandbox: Sandbox, folders: Folders) -> WayOut:
        """What is this sandbox's own: its secrets.

        Raises HostUnable (a secret cannot be read), InvalidInput (the settings do not name it).
        """
        ...

    async def connect(
        self, sandbox: Sandbox, folders: Folders, client_of: ClientOf, deadline: float
    ) -> Gate:
        """Connect to the proxy by ``deadline`` (loop time) and give it its secrets. Also adopts.

        It allows nothing until :meth:`Gate.rule`. Raises EgressFailed, DeadlineExceeded.
        """
        ...

    def connections(self, folders: Folders, limit: int) -> Sequence[Connection]:
        """The last ``limit`` lines of the log, oldest first; of an ended sandbox, too."""
        ...

    def tried(self, folders: Folders) -> Sequence[TriedHost]:
        """What was ever logged, added up, the one tried last first; a moment behind."""
        ...
