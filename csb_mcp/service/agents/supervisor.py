"""A watch for each live sandbox with an agent; what it sees goes into the record and the events."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, Protocol

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError, NotFound
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import Budget, QueuedPrompt, Sandbox, SandboxState
from csb_mcp.ports import Agent
from csb_mcp.service.agents.budgets import WARN, shares
from csb_mcp.service.agents.budgets import told as told_of
from csb_mcp.service.agents.chronicle import Chronicle
from csb_mcp.service.agents.comparison import Comparison
from csb_mcp.service.agents.memory import Memory, as_text, from_text
from csb_mcp.service.agents.queue import GONE, Queue, give_up
from csb_mcp.service.agents.speaker import speak
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.core import Core
from csb_mcp.service.events import Events
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
SPOOL = ".csb/spool"
"""Where agents' hooks write, below the home."""
_LAST_SECONDS = 2.0  # for what its transcripts say at its end
_DIFFERS = "its transcript and its proxy's count of tokens differ: see its usage"


class Acts(Protocol):
    """What is done about a budget that is used up; the lifecycle does it."""

    async def pause(self, sandbox_id: str) -> object:
        """Hold it still."""
        ...

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into its record, once."""
        ...


class Supervisor(Core):
    """Begins watches and publishes what they see."""

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events, acts: Acts
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        self._acts = acts
        self._memories: dict[str, str] = {}
        self._prompts: dict[str, list[QueuedPrompt]] = {}

    async def restore(self) -> None:
        """Load what an earlier daemon knew of agents. Before the first of them is watched."""
        self._memories = await self._registry.store.memories()
        for prompt in await self._registry.store.prompts():
            self._prompts.setdefault(prompt.sandbox, []).append(prompt)

    async def tell_of_lost(self) -> None:
        """Of prompts whose sandbox ended as the daemon did. Once all records are known."""
        for sandbox in self._prompts:
            with contextlib.suppress(NotFound):
                if self._registry.find(sandbox).state.ended:
                    await give_up(self._events, self._registry.store, sandbox, GONE)

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
        live.agent = watch = self._watch(live, sandbox, agent, home)
        if sandbox.counted is not None:
            watch.count(sandbox.counted.whole, 0)
        return [
            self._run(watch, home),
            self._tell(live, watch),
            speak(live, watch, lambda: self._runs(live)),
        ]

    def _watch(self, live: Live, sandbox: Sandbox, agent: Agent, home: int) -> AgentWatch:
        project, store = sandbox.spec.project_dir, self._registry.store
        known = self._memories.pop(live.id, None)
        waiting = self._prompts.pop(live.id, [])
        return AgentWatch(
            agent,
            live.terminal,
            self._pieces.spools.open(home, SPOOL),
            agent.transcripts(home, project),
            project=project,
            prices=self._settings.prices,
            memory=(known and from_text(known)) or Memory(state=sandbox.agent_state),
            queue=Queue(live.id, store, self._events, waiting),
        )

    def _runs(self, live: Live) -> bool:
        return self._registry.find(live.id).state is SandboxState.RUNNING

    async def _run(self, watch: AgentWatch, home: int) -> None:
        try:
            await watch.run()
        finally:
            os.close(home)

    async def _tell(self, live: Live, watch: AgentWatch) -> None:
        """Apart from the watch: a disk or a lock that is busy does not keep it from seeing."""
        chronicle, comparison = Chronicle(self._events, live.id, watch), Comparison()
        while True:
            seen = watch.news.count
            try:
                await self._record(live, watch)
                await chronicle.keep()
                await self._keep_budget(live, watch)
                await self._compare(live, watch, comparison)
            except CsbError as error:  # the disk is full, say
                _log.warning("sandbox %s: its agent's state is not kept: %s", live.id, error)
            await watch.news.beyond(seen)

    async def last(self, live: Live) -> None:
        """Take in what its agent left, once nothing of it runs any more. Never raises CsbError."""
        if live.agent is None:
            return
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await live.agent.read_transcripts()
        await self.keep(live)

    async def keep(self, live: Live) -> None:
        """Put into the store what is not there yet. Never raises CsbError."""
        if live.agent is not None:
            with contextlib.suppress(CsbError):
                await Chronicle(self._events, live.id, live.agent).keep()

    async def _record(self, live: Live, watch: AgentWatch) -> None:
        if self._registry.find(live.id).agent_state is watch.view.state:
            return
        async with self._registry.lock(live.id):
            record = self._registry.find(live.id)
            state = watch.view.state
            if record.agent_state is not state and not record.state.ended:
                await self._registry.put(replace(record, agent_state=state))

    async def _keep_budget(self, live: Live, watch: AgentWatch) -> None:
        record = self._registry.find(live.id)
        budget = record.spec.budget
        for name, share in shares(watch, budget).items():
            if share < WARN:
                continue
            words, full = told_of(watch, budget, name), share >= 1
            told = frozenset({(name, budget.given[name], full)})
            if not told <= watch.budgets:
                data = {"budget": name, "used": words, "percent": f"{min(share, 99) * 100:.0f}"}
                memory = as_text(replace(watch.memory, budgets=watch.budgets | told))
                await self._events.keep(live.id, [("budget", data)], memory=memory)
                watch.budgets |= told
            # Whatever was told: a daemon may have died between that and this.
            if full and record.state is SandboxState.RUNNING:
                await self._acts.pause(live.id)
                watch.news.beat()  # for whoever waits for what cannot come now
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
                f"the settings have no price of model {watch.usage.unpriced[0]}: "
                "max_cost goes by the dearest that is known",
            )
