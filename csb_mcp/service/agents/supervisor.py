"""A watch for each live sandbox with an agent; what it sees goes into the record and the events."""

import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import Budget, Sandbox, SandboxState
from csb_mcp.service.agents.budgets import WARN, shares
from csb_mcp.service.agents.budgets import told as told_of
from csb_mcp.service.agents.comparison import Comparison
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.creation import Pieces
from csb_mcp.service.events import Events
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
SPOOL = ".csb/spool"
"""Where agents' hooks write, below the home."""
_DIFFERS = "its transcript and its proxy's count of tokens differ: see its usage"
_BURST, _PER_SECOND = 64.0, 2.0  # events: at once, and then


class Acts(Protocol):
    """What is done about a budget that is used up; the lifecycle does it."""

    async def pause(self, sandbox_id: str) -> object:
        """Hold it still."""
        ...

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into its record, once."""
        ...


class Supervisor:
    """Begins watches and publishes what they see."""

    def __init__(
        self,
        settings: Settings,
        pieces: Pieces,
        registry: Registry,
        events: Events,
        acts: Acts,
    ) -> None:
        self._acts = acts
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
        if sandbox.counted is not None:
            live.agent.count(sandbox.counted.whole, 0)
        return [self._run(live.agent, home), self._tell(live, live.agent)]

    async def _run(self, watch: AgentWatch, home: int) -> None:
        try:
            await watch.run()
        finally:
            os.close(home)

    async def _tell(self, live: Live, watch: AgentWatch) -> None:
        """Apart from the watch: a disk or a lock that is busy does not keep it from seeing."""
        budget, told = _Budget(), set[tuple[str, float, bool]]()
        comparison = Comparison()
        while True:
            seen = watch.news.count
            try:
                await self._record(live, watch)
                while watch.changes:
                    kind, data = watch.changes.popleft()
                    if budget.take():
                        await self._events.publish(live.id, kind, **data)
                await self._keep_budget(live, watch, told)
                await self._compare(live, watch, comparison)
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

    async def _keep_budget(
        self, live: Live, watch: AgentWatch, told: set[tuple[str, float, bool]]
    ) -> None:
        """``told``: what was said already, by name, bound, and whether it was the end."""
        record = self._registry.find(live.id)
        budget = record.spec.budget
        for name, share in shares(watch, budget).items():
            full, bound = share >= 1, budget.given[name]
            if share < WARN or (name, bound, full) in told:
                continue
            told.add((name, bound, full))
            words = told_of(watch, budget, name)
            data = {"budget": name, "used": words, "percent": f"{min(share, 99) * 100:.0f}"}
            await self._events.publish(live.id, "budget", **data)
            if full and record.state is SandboxState.RUNNING:
                await self._acts.pause(live.id)
                await self._acts.warn(
                    live.id, f"paused: {words}; resume it with a higher {name}, or stop it"
                )
        await self._warn_unpriced(live, watch, budget)

    async def _compare(self, live: Live, watch: AgentWatch, comparison: Comparison) -> None:
        """Told once: of the same sandbox, by an earlier daemon, too."""
        found = comparison.look(watch.usage, watch.under_way, time.monotonic())
        if found is None or _DIFFERS in self._registry.find(live.id).warnings:
            return
        await self._events.publish(live.id, "usage_differs", **found)
        await self._acts.warn(live.id, _DIFFERS)

    async def _warn_unpriced(self, live: Live, watch: AgentWatch, budget: Budget) -> None:
        if budget.max_cost is not None and watch.usage.unpriced:
            await self._acts.warn(
                live.id,
                f"max_cost does not hold for model {watch.usage.unpriced[0]}: "
                "the settings have no price of it",
            )


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
