"""Looks at what is used, now and then: for histories, and to act when a limit was hit."""

import asyncio
import logging
import time
from collections.abc import Sequence
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
_MAX_PERIOD = 10.0
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
        self._acting: dict[str, asyncio.Task[None]] = {}
        self.host = History()

    def start(self) -> None:
        """Begin to look; :meth:`close` ends it."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop. Idempotent."""
        if self._task is not None:
            tasks = {self._task, *self._acting.values()}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _run(self) -> None:
        while True:
            try:
                spent = await self._look()
            except Exception:  # noqa: BLE001 - logged; one look must not end all looks
                _log.exception("a look at what is used failed")
                spent = 0.0
            await asyncio.sleep(min(max(PERIOD, spent * _MAX_SHARE), _MAX_PERIOD))

    async def _look(self) -> float:
        """Look at all, one after another; gives the seconds that looking took."""
        host = self._meter.host()
        processes, spent = 0, 0.0
        for live in list(self._registry.live.values()):
            if live.ending:
                continue
            began = time.perf_counter()
            usage = await live.enclosure.uphold(live.terminal.server_pid)
            told = self.hits(live)
            spent += time.perf_counter() - began
            wrote = usage.io_written is None or usage.io_written != live.history.written
            live.history.add(usage)
            processes += usage.processes
            self._act(live, told, full=wrote and host.disk_free < self._reserve)
            await asyncio.sleep(0)
        self.host.add_host(host, processes)
        return spent

    def hits(self, live: Live) -> list[str]:
        """Limits that were hit since the last look, in words."""
        before, now = live.history.hits, dict(live.enclosure.hits())
        if live.helper is not None:
            now |= {name: before.get(name, 0) + 1 for name in live.helper.full()}
        live.history.hits = {**before, **now}
        record = self._registry.find(live.id)
        return [_told(record, name) for name in now if now[name] > before.get(name, 0)]

    def _act(self, live: Live, warnings: Sequence[str], *, full: bool) -> None:
        """In a task of the sandbox's own, one at a time: it may have to wait for its lock."""
        running = self._registry.find(live.id).state is SandboxState.RUNNING
        if live.id in self._acting or not (warnings or (full and running)):
            return
        task = asyncio.create_task(self._warn(live.id, warnings, pause=full and running))
        self._acting[live.id] = task
        task.add_done_callback(lambda _: self._acting.pop(live.id, None))

    async def _warn(self, sandbox: str, warnings: Sequence[str], *, pause: bool) -> None:
        try:
            for warning in warnings:
                await self._acts.warn(sandbox, warning)
            if pause:
                await self._acts.pause(sandbox)
                await self._acts.warn(
                    sandbox,
                    f"paused: the disk has less than {size_text(self._reserve)} free "
                    "(disk_reserve in the settings); make room, then resume it",
                )
        except CsbError as error:  # it has ended, say, or the disk takes no warning
            _log.warning("sandbox %s: %s", sandbox, error)


def _told(record: Sandbox, name: str) -> str:
    asked = record.limits.asked.get(name, "")
    by = record.limits.enforced_by.get(name, "")
    return f"the limit {name} ({asked}) was hit, enforced by {by}"


def with_running(usage: HostUsage, registry: Registry) -> HostUsage:
    """The host's usage, with how many sandboxes run."""
    return replace(usage, sandboxes_running=len(registry.live))
