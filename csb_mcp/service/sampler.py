"""Looks at what is used, now and then: for histories, and to tell when a limit was hit."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from csb_mcp.errors import CsbError
from csb_mcp.model import HostUsage, Sandbox
from csb_mcp.ports import Meter
from csb_mcp.service.history import History
from csb_mcp.service.registry import Live, Registry

_log = logging.getLogger(__name__)
PERIOD = 2.0  # seconds between two looks
_MAX_SHARE = 50  # looking takes at most this part of a processor, whatever a look costs here

Warn = Callable[[str, str], Awaitable[None]]


class Sampler:
    """One task for all sandboxes. ``warn`` puts a warning into a record."""

    def __init__(self, registry: Registry, meter: Meter, warn: Warn) -> None:
        self._registry = registry
        self._meter = meter
        self._warn = warn
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
            spent = await self._look()
            await asyncio.sleep(max(PERIOD, spent * _MAX_SHARE))

    async def _look(self) -> float:
        """Look at all, one after another; gives the seconds that it took."""
        began = time.thread_time()
        processes = 0
        for live in list(self._registry.live.values()):
            try:
                usage = live.enclosure.usage(live.terminal.server_pid)
                live.history.add(usage)
                processes += usage.processes
                await self.check(live)
            except CsbError as error:
                _log.debug("sandbox %s was not looked at: %s", live.id, error)
            await asyncio.sleep(0)
        self.host.add_host(self._meter.host(), processes)
        return time.thread_time() - began

    async def check(self, live: Live) -> str | None:
        """Tell of limits that were hit since the last look; gives that in words."""
        before, live.history.hits = live.history.hits, live.enclosure.hits()
        now = live.history.hits
        hit = [name for name in now if now[name] > before.get(name, 0)]
        if not hit:
            return None
        record = self._registry.find(live.id)
        for name in hit:
            await self._warn(live.id, _told(record, name))
        return ", ".join(_told(record, name) for name in hit)


def _told(record: Sandbox, name: str) -> str:
    asked = record.limits.asked.get(name, "")
    by = record.limits.enforced_by.get(name, "")
    return f"the limit {name} ({asked}) was hit, enforced by {by}"


def with_running(usage: HostUsage, registry: Registry) -> HostUsage:
    """The host's usage, with how many sandboxes run."""
    return replace(usage, sandboxes_running=len(registry.live))
