"""What is watched over a running sandbox: its age, its idleness, files that it should not make.

Each watch is a task of the sandbox's own that ends with it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from csb_mcp.model import Sandbox, SandboxState
from csb_mcp.ports import Watcher
from csb_mcp.service.events import Events
from csb_mcp.service.registry import Live, Registry

_SLICE_SECONDS = 60.0

Stop = Callable[[str, str], Awaitable[object]]


class Vigil:
    """The watches. ``stop`` ends a sandbox, with a reason."""

    def __init__(self, registry: Registry, events: Events, watcher: Watcher, stop: Stop) -> None:
        self._registry = registry
        self._events = events
        self._watcher = watcher
        self._stop = stop

    async def age(self, sandbox: Sandbox, ttl: float) -> None:
        """Stop it ``ttl`` seconds after its creation."""
        at = sandbox.created_at + ttl
        while (left := at - time.time()) > 0:
            # In slices: the wall clock may be set meanwhile.
            await asyncio.sleep(min(left, _SLICE_SECONDS))
        await self._stop(sandbox.id, "its ttl has passed")

    async def idleness(self, live: Live, timeout: float) -> None:
        """Stop it once nothing was printed, typed or called for ``timeout`` seconds.

        While it is paused no time passes for it; a resume counts as a call.
        """
        while (left := timeout - (0.0 if self._paused(live) else live.idle_seconds)) > 0:
            await asyncio.sleep(left)
        await self._stop(live.id, f"nothing was printed, typed or called for {timeout:g} s")

    def _paused(self, live: Live) -> bool:
        return self._registry.find(live.id).state is SandboxState.PAUSED

    async def files(self, sandbox: Sandbox) -> None:
        """Warn when the payload makes a file that the host may execute unasked."""
        watched = self._watcher.appearing(sandbox.spec.project_dir, sandbox.unguarded)
        async for path in watched:
            await self.warn(
                sandbox.id,
                f"{path} appeared in the project: programs on the host may execute it unasked",
            )

    async def warn(self, sandbox_id: str, warning: str) -> None:
        """Put a warning into the record, once, and publish it."""
        async with self._registry.lock(sandbox_id):
            record = self._registry.find(sandbox_id)
            if warning in record.warnings:
                return
            await self._registry.put(replace(record, warnings=(*record.warnings, warning)))
        await self._events.publish(sandbox_id, "warning", warning=warning)
