"""The service that every face translates: looks sandboxes up, checks ranges, asks the pieces."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError, InvalidInput
from csb_mcp.model import (
    MAX_WAIT,
    NO_BUDGET,
    Budget,
    Condition,
    Event,
    Metrics,
    Problem,
    Sandbox,
    SandboxSpec,
    SandboxState,
    SandboxUsage,
    WaitResult,
)
from csb_mcp.ports import Meter, Store
from csb_mcp.service.calls import answering
from csb_mcp.service.cursor import Cursor
from csb_mcp.service.desktop import Desktop
from csb_mcp.service.egress import WayOuts
from csb_mcp.service.events import Events
from csb_mcp.service.lifecycle import Lifecycle
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.sampler import with_running
from csb_mcp.service.supervision import Supervision
from csb_mcp.service.waits import Waiter


class Manager(Supervision, Desktop, WayOuts):
    """The :class:`~csb_mcp.ports.SandboxService`; its other calls are the bases'."""

    def __init__(self, settings: Settings, pieces: Pieces, store: Store, meter: Meter) -> None:
        super().__init__(settings, pieces, Registry(store), Events(store))
        self._store = store
        self._meter = meter
        self._lifecycle = Lifecycle(settings, pieces, self._registry, self._events, meter)

    async def restore(self) -> None:
        """Take up what an earlier daemon left. Called once, before the first request."""
        await self._lifecycle.restore()

    async def close(self) -> None:
        """Let go of everything; sandboxes go on."""
        await self._lifecycle.close()
        await self._store.close()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        made = await self._lifecycle.create(spec)
        if spec.task is None:
            return made
        # No turn had ended then: who waits with it cannot come too late for the first.
        return replace(made, cursor=str(Cursor(made.id, self._events.last, 0)))

    async def list(self, state: SandboxState | None = None) -> list[Sandbox]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return [s for s in self._registry.all() if state is None or s.state is state]

    async def get(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return self._registry.find(sandbox)

    async def pause(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.pause(self._registry.find(sandbox).id)

    async def resume(self, sandbox: str, budget: Budget = NO_BUDGET) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.resume(self._registry.find(sandbox).id, budget)

    async def stop(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.stop(self._registry.find(sandbox).id)

    async def delete(self, sandbox: str) -> Sandbox:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._lifecycle.delete(self._registry.find(sandbox).id)

    async def wait(
        self,
        sandboxes: Sequence[str],
        until: Sequence[Condition],
        *,
        mode: str,
        timeout: float,
        cursor: Mapping[str, str],
    ) -> WaitResult:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        _check_wait(sandboxes, until, mode, timeout)
        began = time.monotonic()
        waiter = Waiter(self._registry, sandboxes, cursor)
        with ExitStack() as busy:
            for live in waiter.live:
                busy.enter_context(live.busy())
            matches = await waiter.run(until, mode, timeout)
        wanted = 1 if mode == "any" else len(until) * len(set(sandboxes))
        cursors = {live.id: await self._cursor_now(live) for live in waiter.live}
        return WaitResult(
            satisfied=len(matches) >= wanted,
            matches=tuple(matches),
            cursors={key: text for key, text in cursors.items() if text},
            waited=time.monotonic() - began,
        )

    async def _cursor_now(self, live: Live) -> str:
        """Empty if it has ended meanwhile: the answer to a wait does not fail for that."""
        try:
            async with answering(live):
                return self._cursor(live, await live.terminal.rows(None))
        except CsbError:
            return ""

    async def metrics(self, sandbox: str | None) -> Metrics:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = None if sandbox is None else self._registry.running(sandbox)
        host = with_running(self._meter.host(), self._registry)
        if live is None:
            return Metrics(host, history=self._lifecycle.sampler.host.samples)
        return Metrics(host, await self._usage(live), live.history.samples)

    @staticmethod
    async def _usage(live: Live) -> SandboxUsage:
        """By cgroup at once; a walk through a thousand processes would hold up everybody."""
        if live.enclosure.walks:
            return await asyncio.to_thread(live.enclosure.usage, live.terminal.server_pid)
        return live.enclosure.usage(live.terminal.server_pid)

    def problems(self) -> Sequence[Problem]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        agents = self._pieces.agents.values()
        lacking = [problem for agent in agents for problem in agent.problems(self._settings)]
        named = [replace(problem, what=f"agent {problem.what}") for problem in lacking]
        return [*self._pieces.problems(), *named]

    async def recent_events(self, sandbox: str, count: int) -> Sequence[Event]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return await self._store.recent_events(self._registry.find(sandbox).id, count)

    def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        return self._events.follow(after)


def _check_wait(
    sandboxes: Sequence[str], until: Sequence[Condition], mode: str, timeout: float
) -> None:
    if not sandboxes:
        raise InvalidInput("name at least one sandbox", field="sandboxes")
    if not until:
        raise InvalidInput("give at least one condition", field="until")
    if mode not in ("any", "all"):
        raise InvalidInput(f"{mode!r} is unknown", field="mode", choices=("any", "all"))
    if not 0 < timeout <= MAX_WAIT:
        raise InvalidInput(
            f"{timeout:g} is not above 0 and at most {MAX_WAIT:g} seconds",
            field="timeout",
            hint="wait again with the cursor for longer",
        )
