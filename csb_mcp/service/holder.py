"""Pause and resume: hold a payload still, and let it go on within its budget."""

import time
from dataclasses import replace

from csb_mcp.errors import Conflict
from csb_mcp.model import Budget, Sandbox, SandboxState
from csb_mcp.service.agents.budgets import budget_words, used_up, with_budget
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.calls import finish
from csb_mcp.service.core import Core
from csb_mcp.service.registry import Live


class Holder(Core):
    """Freezes and thaws sandboxes."""

    async def pause(self, sandbox_id: str) -> Sandbox:
        """Hold its payload still. Raises SandboxEnded, Conflict."""
        return await finish(self._turn(sandbox_id, SandboxState.PAUSED))

    async def resume(self, sandbox_id: str, budget: Budget) -> Sandbox:
        """Let it go on, with a larger budget. Raises SandboxEnded, Conflict (it is used up)."""
        await finish(self._grant(sandbox_id, budget))
        return await finish(self._turn(sandbox_id, SandboxState.RUNNING))

    async def _grant(self, sandbox_id: str, budget: Budget) -> None:
        async with self._registry.lock(sandbox_id):
            live = self._registry.running(sandbox_id)
            record = self._registry.find(sandbox_id)
            if budget.given and live.agent is None:
                watch_of(live)  # raises: there is nothing to count
            budget = record.spec.budget.over(budget)
            if live.agent is not None and (full := used_up(live.agent, budget)):
                raise Conflict(
                    f"its budget is used up: {full}",
                    sandbox=sandbox_id,
                    hint=f"resume it with a higher {full.split()[0]}, or stop it",
                )
            if budget != record.spec.budget:
                asked = {**record.limits.asked, **budget_words(budget)}
                limits = with_budget(record.limits, asked)
                spec = replace(record.spec, budget=budget)
                await self._registry.put(replace(record, spec=spec, limits=limits))

    async def _turn(self, sandbox_id: str, state: SandboxState) -> Sandbox:
        async with self._registry.lock(sandbox_id):
            live = self._registry.running(sandbox_id)
            record = self._registry.find(sandbox_id)
            pausing, same = state is SandboxState.PAUSED, record.state is state
            if not (pausing and same):
                # Thawed also if it should run: a daemon may have died between freezing it and
                # saying so.
                await self._hold(live, still=pausing)
            if same:
                return record
            record = replace(record, state=state)
            try:
                await self._registry.put(record)
            except BaseException:
                await self._hold(live, still=not pausing)
                raise
        await self._events.publish(sandbox_id, "paused" if pausing else "resumed")
        return record

    @staticmethod
    async def _hold(live: Live, *, still: bool) -> None:
        act = live.enclosure.freeze if still else live.enclosure.thaw
        await act(live.terminal.pane_pid)
        live.last_call = time.monotonic()  # no time passes for it while it is paused
