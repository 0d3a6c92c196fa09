"""The end of a sandbox: its last words are kept, its tree ends, what only the running need goes."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.model import Region, Sandbox, SandboxState, kept_with
from csb_mcp.service.agents.queue import GONE, give_up
from csb_mcp.service.core import Core
from csb_mcp.service.events import Events
from csb_mcp.service.pieces import Pieces
from csb_mcp.service.registry import Live, Registry

_ADOPT_SECONDS = 10.0
_KILL_SECONDS = 1.0  # between SIGTERM and SIGKILL, for what the payload's end left behind
_LAST_ROWS = 2000  # of the terminal, kept after the end

Last = Callable[[Live], Awaitable[None]]


class Ender(Core):
    """Ends sandboxes. Whoever calls it holds the sandbox's lock.

    ``last`` takes in what an agent left, once nothing of it runs any more.
    """

    def __init__(
        self, settings: Settings, pieces: Pieces, registry: Registry, events: Events, last: Last
    ) -> None:
        super().__init__(settings, pieces, registry, events)
        self._last = last

    async def end(self, live: Live, state: SandboxState, reason: str, status: int | None) -> None:
        """End one that runs, for good; ``status`` is its program's, if that ended by itself."""
        await self._keep_last(live)
        live.ending = True
        patience = _KILL_SECONDS
        if self._registry.find(live.id).state is SandboxState.PAUSED:
            # Only what is thawed can die; it gets no time to do anything else.
            await live.enclosure.thaw(live.terminal.pane_pid)
            patience = 0.0
        elif state is SandboxState.STOPPED:
            await self._ask_to_end(live)
        await live.terminal.kill(asyncio.get_running_loop().time() + patience)
        await self._last(live)
        counted = None if live.gate is None else live.gate.counted
        await live.close()
        await live.enclosure.remove()
        await self._pieces.keeper.remove_runtime(live.folders)
        record = self._registry.find(live.id)
        ended = replace(
            record,
            state=state,
            reason=reason,
            exit_status=status,
            ended_at=time.time(),
            counted=record.counted if counted is None else kept_with(record.counted, counted),
        )
        await self._registry.put_ended(ended)
        del self._registry.live[live.id]
        live.ended.set()
        await give_up(self._events, self._registry.store, live.id, GONE)
        await self._events.publish(live.id, state.value, reason=reason)

    async def _ask_to_end(self, live: Live) -> None:
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                await live.need_helper().terminate()
                await live.terminal.wait_exit()

    async def _keep_last(self, live: Live) -> None:
        """A sandbox that no longer answers has no last words; that must not keep it from ending."""
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                rows = await live.terminal.history(_LAST_ROWS)
                live.last_rows = tuple(text for _, text in rows.rows)
        screen: bytes | None = None
        with contextlib.suppress(CsbError, TimeoutError):
            async with asyncio.timeout(self._settings.stop_timeout):
                screen = await _whole_screen(live)
        text = "\n".join(live.last_rows)
        await self._pieces.keeper.keep_last(live.folders, terminal=text, screen=screen)

    async def end_unadopted(self, sandbox: Sandbox, reason: str) -> None:
        """End one that did not answer when this daemon started.

        Raises TerminalFailed if it still does not: then a person has to look.
        """
        folders = self._pieces.keeper.folders(sandbox.id)
        enclosure = self._pieces.limiter.adopt(sandbox)
        now = asyncio.get_running_loop().time()
        terminal = await self._pieces.terminals.adopt(folders, now + _ADOPT_SECONDS)
        if terminal is not None:
            await enclosure.thaw(terminal.pane_pid)
            await terminal.kill(asyncio.get_running_loop().time() + _KILL_SECONDS)
        await enclosure.remove()
        await self._pieces.keeper.remove_runtime(folders)
        stopped = replace(sandbox, state=SandboxState.STOPPED, reason=reason, ended_at=time.time())
        await self._registry.put_ended(stopped)
        await give_up(self._events, self._registry.store, sandbox.id, GONE)
        await self._events.publish(sandbox.id, "stopped", reason=reason)


async def _whole_screen(live: Live) -> bytes:
    display = live.need_display()
    frame = await display.capture()
    region = Region(0, 0, frame.width, frame.height)
    image = await display.encode(frame, region, max_width=frame.width, format="png")
    return image.data
