"""The one event stream: kept in the store, followed by any number of readers."""

from collections.abc import AsyncIterator, Mapping, Sequence

from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import Event
from csb_mcp.ports import Store


class Events:
    """Publishes and replays. Readers fetch from the store, so a slow one costs nobody anything."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._news = Pulse()
        self.last = 0

    async def restore(self) -> None:
        """Continue the numbering of an earlier daemon."""
        self.last = await self._store.last_event()

    async def publish(self, sandbox: str, kind: str, /, **data: str) -> None:
        """Keep an event and wake the readers."""
        event = await self._store.append_event(sandbox, kind, data)
        self.last = max(self.last, event.sequence)
        self._news.beat()

    async def keep(
        self,
        sandbox: str,
        changes: Sequence[tuple[str, Mapping[str, str]]],
        *,
        memory: str | None = None,
        prompt: int | None = None,
    ) -> None:
        """As :meth:`~csb_mcp.ports.Store.keep`; and wake the readers."""
        for event in await self._store.keep(sandbox, changes, memory=memory, prompt=prompt):
            self.last = max(self.last, event.sequence)
        if changes:
            self._news.beat()

    async def follow(self, after: int | None) -> AsyncIterator[Event]:
        """Events after sequence number ``after`` (None: from now on), as they happen."""
        position = self.last if after is None else after
        while True:
            seen = self._news.count
            for event in await self._store.events(position):
                position = event.sequence
                yield event
            await self._news.beyond(seen)
