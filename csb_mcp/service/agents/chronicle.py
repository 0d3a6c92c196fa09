"""What an agent does, put into the event stream; and what of it the next daemon shall know.

Both go to the store in one transaction: no event comes twice or never, whenever a daemon dies.
"""

import time

from csb_mcp.lib.allowance import Allowance
from csb_mcp.service.agents.memory import Memory, as_text
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.events import Events

_BURST, _PER_SECOND = 64, 2.0  # events, for what happens inside may be made up: at once, and then
_PAUSE = 0.25  # seconds between two writes where there is no event


class Chronicle:
    """That of one sandbox."""

    def __init__(self, events: Events, sandbox: str, watch: AgentWatch) -> None:
        self._events = events
        self._sandbox = sandbox
        self._watch = watch
        self._allowance = Allowance(_BURST, _PER_SECOND)
        self._kept: Memory | None = None
        self._kept_at = 0.0

    async def keep(self) -> None:
        """Publish what there is to tell, and keep what changed. Raises StoreUnusable."""
        watch, memory, now = self._watch, self._watch.memory, time.monotonic()
        if not watch.changes and (memory == self._kept or now - self._kept_at < _PAUSE):
            return
        told = list(watch.changes)
        watch.changes.clear()
        try:
            let = [change for change in told if self._allowance.take()]
            await self._events.keep(self._sandbox, let, memory=as_text(memory))
        except BaseException:
            watch.changes.extendleft(reversed(told))
            raise
        self._kept, self._kept_at = memory, now
