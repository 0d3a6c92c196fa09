"""Prompts that wait for their turn, kept in the store, so that they outlive a daemon.

One is marked before its first key is typed. So none is typed twice, whenever a daemon dies: of one
that was marked already, the next daemon looks for the proof only.
"""

import logging
from collections import deque
from collections.abc import Iterable

from csb_mcp.errors import Conflict, CsbError
from csb_mcp.lib.pulse import Pulse
from csb_mcp.model import QueuedPrompt
from csb_mcp.ports import Store
from csb_mcp.service.events import Events

_log = logging.getLogger(__name__)
MAX_QUEUED = 16
GONE = "the sandbox ended before its turn came"


class Queue:
    """That of one sandbox, oldest first. ``first`` leaves it there until it is done."""

    def __init__(
        self, sandbox: str, store: Store, events: Events, waiting: Iterable[QueuedPrompt] = ()
    ) -> None:
        self._sandbox = sandbox
        self._store = store
        self._events = events
        self._waiting = deque(waiting)
        self._news = Pulse()
        self._coming = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def typed(self) -> QueuedPrompt | None:
        """One that an earlier daemon had begun to type."""
        first = self._waiting[0] if self._waiting else None
        return first if first is not None and first.typed is not None else None

    async def put(self, text: str) -> None:
        """Add one. Raises Conflict (there are enough), StoreUnusable."""
        if len(self) + self._coming >= MAX_QUEUED:
            raise Conflict(
                f"{MAX_QUEUED} prompts are queued already",
                sandbox=self._sandbox,
                hint="wait until some were submitted",
            )
        self._coming += 1
        try:
            self._waiting.append(await self._store.queue_prompt(self._sandbox, text))
        finally:
            self._coming -= 1
        self._news.beat()

    async def first(self) -> QueuedPrompt:
        """The one whose turn it is, as soon as there is one."""
        while not self._waiting:
            await self._news.beyond(self._news.count)
        return self._waiting[0]

    async def mark(self, prompt: QueuedPrompt, typed: int) -> None:
        """It is about to be typed; ``typed``: how many prompts the transcripts have."""
        await self._store.mark_prompt(prompt.id, typed)

    async def done(self, prompt: QueuedPrompt, kind: str, **data: str) -> None:
        """Take it out, and tell what became of it."""
        self._waiting.remove(prompt)
        await _done(self._events, prompt, kind, data)


async def give_up(events: Events, store: Store, sandbox: str, reason: str) -> None:
    """Tell of all that still waited when it ended."""
    try:
        for prompt in await store.prompts(sandbox):
            await _done(events, prompt, "prompt_failed", {"reason": reason})
    except CsbError as error:
        _log.warning("sandbox %s: its queued prompts are not told of: %s", sandbox, error)


async def _done(events: Events, prompt: QueuedPrompt, kind: str, data: dict[str, str]) -> None:
    try:
        await events.keep(prompt.sandbox, [(kind, data)], prompt=prompt.id)
    except CsbError as error:  # the next daemon finds it marked, looks for its proof, and tells
        _log.warning("sandbox %s: %s is not on disk: %s", prompt.sandbox, kind, error)
