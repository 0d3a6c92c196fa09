"""Folders, records, and what appears in them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Event, Folders, LogPart, QueuedPrompt, Sandbox


class Watcher(Protocol):
    """Watches folders that a payload can write."""

    def appearing(self, folder: Path, paths: Sequence[str]) -> AsyncIterator[str]:
        """Those of ``paths`` (relative to ``folder``) that exist, each once, as they appear.

        A link on the way counts as the path itself. Ends when all have appeared, or at once if the
        host has no watch left to give.
        """
        ...


class Spool(Protocol):
    """A folder into which somebody hostile puts small files for us to read, each once."""

    @property
    def news(self) -> Pulse:
        """Beats when something appeared in it (coalesced; may miss some after it was replaced)."""
        ...

    async def take(self) -> tuple[Sequence[bytes], bool]:
        """What is there now, by name, and whether there was more than anybody could mean.

        Never waits for more. Each file is removed once it was read, or passed over: what is no
        regular file, what is longer than 64 KiB, and the oldest of a flood. Never raises.
        """
        ...

    def close(self) -> None:
        """Let go. Idempotent."""
        ...


class Spools(Protocol):
    """Opens spools."""

    def open(self, home: int, path: str) -> Spool:
        """The spool ``path`` below ``home``, an open O_PATH descriptor that stays the caller's."""
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

    async def read_log(self, folders: Folders, offset: int | None, limit: int) -> LogPart:
        """A part of the terminal's log: at most ``limit`` bytes from ``offset`` on.

        ``offset`` None: the last ``limit`` bytes. What was never printed gives an empty part; what
        is no longer kept, the oldest that is, with ``gap``. Raises HostUnable.
        """
        ...

    async def remove_runtime(self, folders: Folders) -> None:
        """Remove the runtime folder. Idempotent."""
        ...

    async def remove(self, folders: Folders) -> None:
        """Remove both, whatever a payload made of them. Idempotent. Raises HostUnable."""
        ...


class Store(Protocol):
    """Records, events and queued prompts on disk.

    Every method returns after the data outlives a SIGKILL.
    """

    async def insert(self, sandbox: Sandbox) -> None:
        """Add a record; a spare of that id is none from then on.

        Raises Conflict if its name is taken by a sandbox that has not ended.
        """
        ...

    async def insert_spare(self, sandbox_id: str, uid: int) -> None:
        """A spare is about to be made."""
        ...

    async def delete_spare(self, sandbox_id: str) -> None:
        """It was ended. Idempotent."""
        ...

    async def spares(self) -> dict[str, int]:
        """All spares that were neither taken nor ended: id to uid."""
        ...

    async def update(self, sandbox: Sandbox) -> None:
        """Replace a record."""
        ...

    async def delete(self, sandbox_id: str) -> None:
        """Forget a record and all that belongs to it."""
        ...

    async def all(self) -> list[Sandbox]:
        """All records, oldest first."""
        ...

    async def append_event(self, sandbox: str, kind: str, data: Mapping[str, str]) -> Event:
        """Number and keep an event."""
        ...

    async def keep(
        self,
        sandbox: str,
        changes: Sequence[tuple[str, Mapping[str, str]]],
        *,
        memory: str | None = None,
        prompt: int | None = None,
    ) -> list[Event]:
        """Number and keep events (kind and data); all of it, or nothing.

        With them ``memory``, which takes the place of what was kept of that sandbox's agent, and
        that the queued ``prompt`` is done with.
        """
        ...

    async def memories(self) -> dict[str, str]:
        """What was kept of agents, by their sandboxes."""
        ...

    async def memory(self, sandbox: str) -> str | None:
        """What was kept of that one's."""
        ...

    async def queue_prompt(self, sandbox: str, text: str) -> QueuedPrompt:
        """Keep a prompt until :meth:`keep` is told that it is done with."""
        ...

    async def mark_prompt(self, prompt: int, typed: int) -> None:
        """From now on it is ``typed``."""
        ...

    async def prompts(self, sandbox: str | None = None) -> list[QueuedPrompt]:
        """Those that are kept, oldest first."""
        ...

    async def events(self, after: int, sandbox: str | None = None) -> list[Event]:
        """Events with a greater sequence number, oldest first."""
        ...

    async def recent_events(self, sandbox: str, count: int) -> list[Event]:
        """The last ``count`` of a sandbox, oldest first."""
        ...

    async def last_event(self) -> int:
        """The greatest sequence number ever given, 0 if none."""
        ...

    async def close(self) -> None:
        """Flush and close. Idempotent."""
        ...
