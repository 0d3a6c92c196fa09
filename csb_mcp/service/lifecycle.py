"""The life of sandboxes: create, pause, resume, stop, delete, and the end by itself.

One rule holds it together: whoever changes a sandbox's state holds its lock. Each part of a life
has a module of its own; here they meet, and here is said what is watched over one that runs.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from csb_mcp.config import Settings
from csb_mcp.errors import TerminalFailed
from csb_mcp.model import Budget, Sandbox, SandboxSpec, SandboxState
from csb_mcp.ports import Meter
from csb_mcp.service.agents.supervisor import Supervisor
from csb_mcp.service.calls import finish
from csb_mcp.service.core import Core
from csb_mcp.service.creator import Creator
from csb_mcp.service.ender import Ender
from csb_mcp.service.events import Events
from csb_mcp.service.gatekeeper import Gatekeeper
from csb_mcp.service.ground import Ground
from csb_mcp.service.holder import Holder
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry
from csb_mcp.service.restart import Restart
from csb_mcp.service.sampler import Sampler
from csb_mcp.service.spares import Spares
from csb_mcp.service.vigil import Vigil

_log = logging.getLogger(__name__)


class Lifecycle(Core):
    """Brings sandboxes up and down. Holds no state of its own beside the registry."""

    def __init__(
        self,
        settings: Settings,
        pieces: Pieces,
        registry: Registry,
        events: Events,
        meter: Meter,
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        core = (settings, pieces, registry, events)
        self._supervisor = Supervisor(*core, self)
        self._ender = Ender(*core, self._supervisor.last)
        self._holder = Holder(*core)
        self._spares = Spares(*core)
        self._creator = Creator(*core, begin=self._begin, ender=self._ender, spares=self._spares)
        self._restart = Restart(*core, begin=self._begin, roll_back=self._creator.roll_back)
        self._vigil = Vigil(registry, events, pieces.watcher, self.stop)
        self._gatekeeper = Gatekeeper(pieces, registry, events, self._vigil.warn)
        self._sampler = Sampler(settings, registry, meter, self)

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """See :meth:`~csb_mcp.ports.SandboxService.create`."""
        return await self._creator.create(spec)

    async def pause(self, sandbox_id: str) -> Sandbox:
        """Hold its payload still. Raises SandboxEnded, Conflict."""
        return await self._holder.pause(sandbox_id)

    async def resume(self, sandbox_id: str, budget: Budget) -> Sandbox:
        """Let it go on, with a larger budget. Raises SandboxEnded, Conflict (it is used up)."""
        return await self._holder.resume(sandbox_id, budget)

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into the record, once, and publish it."""
        await self._vigil.warn(sandbox_id, warning)

    async def stop(self, sandbox_id: str, reason: str = "stopped on request") -> Sandbox:
        """End it; what has ended already stays as it is."""
        return await finish(self._stop(sandbox_id, reason))

    async def _stop(self, sandbox_id: str, reason: str) -> Sandbox:
        async with self._registry.lock(sandbox_id):
            live = self._registry.live.get(sandbox_id)
            if live is not None:
                await self._ender.end(live, SandboxState.STOPPED, reason, None)
            elif not (sandbox := self._registry.find(sandbox_id)).state.ended:
                await self._ender.end_unadopted(sandbox, reason)
            return self._registry.find(sandbox_id)

    async def delete(self, sandbox_id: str) -> Sandbox:
        """End it if it runs, then remove its folders and its record."""
        return await finish(self._delete(sandbox_id))

    async def _delete(self, sandbox_id: str) -> Sandbox:
        sandbox = await self._stop(sandbox_id, "deleted")
        async with self._registry.lock(sandbox_id):
            await self._remove(sandbox)
            await self._registry.remove(sandbox_id)
        await self._events.publish(sandbox_id, "deleted")
        return sandbox

    async def _remove(self, sandbox: Sandbox) -> None:
        """Its folders, and what the undoing of a create may have left."""
        ground = Ground(self._pieces, sandbox)
        ground.enclosure = self._pieces.limiter.adopt(sandbox)
        if not await ground.undo():
            raise TerminalFailed(
                "something of it still runs",
                sandbox=sandbox.id,
                hint="the daemon's log says what; try again in a moment",
            )

    async def restore(self) -> None:
        """After a start of the daemon: take up what an earlier one left."""
        await self._supervisor.restore()
        await self._restart.run()
        await self._spares.end_left()
        await self._supervisor.tell_of_lost()
        self._sampler.start()

    @property
    def sampler(self) -> Sampler:
        """Histories of the host and, by way of it, of the sandboxes."""
        return self._sampler

    async def close(self) -> None:
        """Let go of all sandboxes; they go on."""
        await self._sampler.close()
        for live in list(self._registry.live.values()):
            await self._supervisor.keep(live)
            await live.close()
        self._registry.live.clear()
        await self._spares.close()

    def _begin(self, live: Live, sandbox: Sandbox) -> None:
        self._registry.live[live.id] = live
        self._spawn(live, self._watch(live))
        self._spawn(live, self._vigil.files(sandbox))
        for work in self._supervisor.watches(live, sandbox):
            self._spawn(live, work)
        if sandbox.spec.network == "allowlist":
            self._spawn(live, self._gatekeeper.watch(live))
        if sandbox.spec.ttl is not None:
            self._spawn(live, self._vigil.age(sandbox, sandbox.spec.ttl))
        if sandbox.spec.idle_timeout is not None:
            self._spawn(live, self._vigil.idleness(live, sandbox.spec.idle_timeout))

    @staticmethod
    def _spawn(live: Live, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        live.tasks.add(task)
        task.add_done_callback(live.tasks.discard)
        task.add_done_callback(_log_defect)

    async def _watch(self, live: Live) -> None:
        try:
            status: int | None = await live.terminal.wait_exit()
            reason = f"its program exited with status {status}"
        except TerminalFailed as error:
            status, reason = None, f"lost: {error.message}"
        if not live.ending and (hits := self._sampler.hits(live)):
            reason = "; ".join((reason, *hits))
        async with self._registry.lock(live.id):
            if not live.ended.is_set():
                await self._ender.end(live, SandboxState.DEAD, reason, status)


def _log_defect(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a watch over a sandbox failed", exc_info=error)
