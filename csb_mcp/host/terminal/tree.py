"""The processes below a tmux server, and their end."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence

from csb_mcp.lib.processes import ProcessHandle, descendants, hold

FINAL_SECONDS = 5.0


class Tree:
    """Handles of the server and its panes, taken while they were known to be those processes.

    They are held from the start, so the panes can be ended also after the server is gone. The owner
    closes it.
    """

    def __init__(self, server: ProcessHandle, panes: Sequence[ProcessHandle]) -> None:
        self.server = server
        self._panes = list(panes)

    async def end(
        self, deadline: float, settle: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Ask the panes' programs to end, then the server; SIGKILL what is left at ``deadline``.

        ``deadline`` is loop time. ``settle`` is awaited in between: the server may have something
        of the panes' last words left to read. A process in uninterruptible sleep may outlast the
        SIGKILL; after five seconds it is left. Idempotent.
        """
        found = [*self._panes, *_below(self._panes)]
        for handle in found:
            # HUP, because interactive shells ignore TERM, and because it is what closing a terminal
            # means; CONT, or a stopped process would see neither.
            for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
                handle.kill(signum)
        # Half of the time: some end only when the terminal hangs up, which the server's end does
        # (an interactive bash that was just about to read when the signal came).
        now = asyncio.get_running_loop().time()
        if await _ended(found, now + (deadline - now) / 2) and settle is not None:
            await settle()
        found = [self.server, *found]
        found += _below(found)  # before the server ends: later nobody knows whose they were
        self.server.kill(signal.SIGTERM)  # does what kill-server does, also if our client is gone
        self.server.kill(signal.SIGCONT)
        await _ended(found, deadline)
        await self._kill(found)
        _close(handle for handle in found if handle not in (self.server, *self._panes))

    def close(self) -> None:
        """Let go of the handles. Idempotent."""
        _close([self.server, *self._panes])

    @staticmethod
    async def _kill(found: list[ProcessHandle]) -> None:
        """SIGKILL, again and again while what is being killed still forks."""
        give_up = asyncio.get_running_loop().time() + FINAL_SECONDS
        while alive := [handle for handle in found if handle.alive()]:
            found += _below(alive)
            for handle in found:
                handle.kill(signal.SIGKILL)
            if not await _ended(found, give_up):
                return


def _below(roots: Sequence[ProcessHandle]) -> list[ProcessHandle]:
    """Handles of all below ``roots`` that are not among them."""
    known = {root.pid for root in roots if root.alive()}  # a dead one's pid may be another's by now
    handles = hold(sorted(_pids_below(known) - known))
    still = _pids_below(known)  # nor may a pid have changed hands before we held it
    _close(handle for handle in handles if handle.pid not in still)
    return [handle for handle in handles if handle.pid in still]


def _pids_below(roots: Iterable[int]) -> set[int]:
    return {pid for root in roots for pid in descendants(root)}


async def _ended(handles: Sequence[ProcessHandle], deadline: float) -> bool:
    """Wait for all of them until ``deadline``; whether they have ended."""
    loop = asyncio.get_running_loop()
    waits = {loop.create_task(handle.wait()) for handle in handles if handle.alive()}
    if not waits:
        return True
    _, left = await asyncio.wait(waits, timeout=max(0.0, deadline - loop.time()))
    for task in left:
        task.cancel()
    return not left


def _close(handles: Iterable[ProcessHandle]) -> None:
    for handle in handles:
        handle.close()
