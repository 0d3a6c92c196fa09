"""Looks at what is used, now and then: for histories, and to act when a limit was hit."""

import asyncio
import logging
import time
from dataclasses import replace
from typing import Protocol

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.lib.units import size_text
from csb_mcp.model import HostUsage, Sandbox, SandboxState
from csb_mcp.ports import Meter
from csb_mcp.service.history import History
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
PERIOD = 2.0  # seconds between two looks
_MAX_SHARE = 50  # looking takes at most this part of a processor, whatever a look costs here


class Acts(Protocol):
    """What the sampler may do to a sandbox."""

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into its record, once."""
        ...

    async def pause(self, sandbox_id: str) -> Sandbox:
        """Hold it still."""
        ...


class Sampler:
    """One task for all sandboxes."""

    def __init__(self, settings: Settings, registry: Registry, meter: Meter, acts: Acts) -> None:
        self._reserve = settings.disk_reserve
        self._registry = registry
        self._meter = meter
        self._acts = acts
        self._task: asyncio.Task[None] | None = None
        self.host = History()

    def start(self) -> None:
        """Begin to look; :meth:`close` ends it."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            began = time.thread_time()
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - logged; one look must not end all looks
                _log.exception("a look at what is used failed")
            spent = time.thread_time() - began
            await asyncio.sleep(max(PERIOD, spent * _MAX_SHARE))

    async def _look(self) -> None:
        """Look at all, one after another."""
        host = self._meter.host()
        processes = 0
        for live in list(self._registry.live.values()):
            try:
                usage = live.enclosure.usage(live.terminal.server_pid)
                wrote = usage.io_written is None or usage.io_written != live.history.written
                live.history.add(usage)
                processes += usage.processes
                await self.check(live)
                await self._keep_room(live, host, wrote=wrote)
            except CsbError as error:  # it is ending, say
                _log.debug("sandbox %s was not looked at: %s", live.id, error)
            await asyncio.sleep(0)
        self.host.add_host(host, processes)

    async def check(self, live: Live) -> str | None:
        """Tell of limits that were hit since the last look; gives that in words."""
        before, now = live.history.hits, dict(live.enclosure.hits())
        if live.helper is not None:
            now |= {name: before.get(name, 0) + 1 for name in live.helper.full()}
        live.history.hits = {**before, **now}
        hit = [name for name in now if now[name] > before.get(name, 0)]
        record = self._registry.find(live.id)
        told = [_told(record, name) for name in hit]
        for warning in told:
            await self._acts.warn(live.id, warning)
        return ", ".join(told) or None

    async def _keep_room(self, live: Live, host: HostUsage, *, wrote: bool) -> None:
        """Pause who writes while the disk is nearly full: no limit of the kernel's is for that."""
        running = self._registry.find(live.id).state is SandboxState.RUNNING
        if host.disk_free < self._reserve and wrote and running:
            await self._acts.pause(live.id)
            await self._acts.warn(
                live.id,
                f"paused: the disk has less than {size_text(self._reserve)} free (disk_reserve in "
                "the settings); make room, then resume it",
            )


def _told(record: Sandbox, name: str) -> str:
    asked = record.limits.asked.get(name, "")
    by = record.limits.enforced_by.get(name, "")
    return f"the limit {name} ({asked}) was hit, enforced by {by}"


def with_running(usage: HostUsage, registry: Registry) -> HostUsage:
    """The host's usage, with how many sandboxes run."""
    return replace(usage, sandboxes_running=len(registry.live))
