"""A watch for each live sandbox with an agent; what it sees goes into the record and the events."""

import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import Sandbox
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.creation import Pieces
from csb_mcp.service.events import Events
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
SPOOL = ".csb/spool"
"""Where agents' hooks write, below the home."""
_BURST, _PER_SECOND = 64.0, 2.0  # events: at once, and then


class Supervisor:
    """Begins watches and publishes what they see."""

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events
    ) -> None:
        self._settings = settings
        self._pieces = pieces
        self._registry = registry
        self._events = events

    def watches(self, live: Live, sandbox: Sandbox) -> list[Coroutine[Any, Any, None]]:
        """Give ``live`` its watch; what is to run as long as it lives. None for a plain command."""
        agent = self._pieces.agents.get(sandbox.spec.agent)
        if agent is None:
            return []
        try:
            home = open_folder(live.folders.home)
        except OSError as error:
            _log.warning("sandbox %s: its agent is not watched: %s", live.id, error)
            return []
        spool = self._pieces.spools.open(home, SPOOL)
        transcripts = agent.transcripts(home, sandbox.spec.project_dir)
        prices = self._settings.prices
        live.agent = AgentWatch(agent, live.terminal, spool, transcripts, prices)
        return [self._run(live.agent, home), self._tell(live, live.agent)]

    async def _run(self, watch: AgentWatch, home: int) -> None:
        try:
            await watch.run()
        finally:
            os.close(home)

    async def _tell(self, live: Live, watch: AgentWatch) -> None:
        """Apart from the watch: a disk or a lock that is busy does not keep it from seeing."""
        budget = _Budget()
        while True:
            seen = watch.news.count
            try:
                await self._record(live, watch)
                while watch.changes:
                    kind, data = watch.changes.popleft()
                    if budget.take():
                        await self._events.publish(live.id, kind, **data)
            except CsbError as error:  # the disk is full, say
                _log.warning("sandbox %s: its agent's state is not kept: %s", live.id, error)
            await watch.news.beyond(seen)

    async def _record(self, live: Live, watch: AgentWatch) -> None:
        if self._registry.find(live.id).agent_state is watch.view.state:
            return
        async with self._registry.lock(live.id):
            record = self._registry.find(live.id)
            state = watch.view.state
            if record.agent_state is not state and not record.state.ended:
                await self._registry.put(replace(record, agent_state=state))


class _Budget:
    """How many events there may be: what happens inside may be made up."""

    def __init__(self) -> None:
        self._left, self._at = _BURST, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
