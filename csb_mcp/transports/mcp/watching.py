"""Looks at one sandbox until it ends, and calls back when something of it changed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from csb_mcp.errors import CsbError, NotFound, SandboxEnded
from csb_mcp.model import MAX_WAIT, AgentState, Region, ScreenChanged, TerminalText, TokensOver
from csb_mcp.ports import SandboxService

log = logging.getLogger(__name__)

Changed = Callable[[], None]

_AGAIN = 2.0  # seconds until the next try after a failure
_AFTER_DEFECT = 60.0
_PIXEL = Region(0, 0, 1, 1)  # the cheapest picture: what is asked for is its frame's name
_ANY = TerminalText("")  # stands in every row, so in each that changed since the cursor


async def follow_terminal(
    service: SandboxService, sandbox: str, changed: Changed, pause: float
) -> None:
    """Call ``changed`` after output, at most once in ``pause`` seconds, until the sandbox ends."""
    cursor = ""

    async def step() -> None:
        nonlocal cursor
        if not cursor:
            cursor = (await service.read_terminal(sandbox, cursor=None, lines=1)).cursor
        result = await service.wait(
            [sandbox], [_ANY], mode="any", timeout=MAX_WAIT, cursor={sandbox: cursor}
        )
        cursor = result.cursors.get(sandbox, "")
        if result.satisfied:
            changed()
            await asyncio.sleep(pause)

    await _until_end(sandbox, step)


async def follow_screen(
    service: SandboxService, sandbox: str, changed: Changed, pause: float
) -> None:
    """Call ``changed`` after something was drawn, as :func:`follow_terminal`."""
    frame = ""

    async def look() -> str:
        shot = await service.screenshot(
            sandbox, region=_PIXEL, max_width=_PIXEL.width, format="png", if_changed_since=None
        )
        return shot.frame

    async def step() -> None:
        nonlocal frame
        if not frame:
            frame = await look()
        until = [ScreenChanged(frame)]
        result = await service.wait([sandbox], until, mode="any", timeout=MAX_WAIT, cursor={})
        if result.satisfied:
            frame = await look()  # before telling: what is drawn from now on is told of again
            changed()
            await asyncio.sleep(pause)

    await _until_end(sandbox, step)


async def follow_agent(
    service: SandboxService, sandbox: str, changed: Changed, pause: float
) -> None:
    """Call ``changed`` after its agent used tokens, as :func:`follow_terminal`.

    All else that it does is an event. Returns at once if it has no agent.
    """
    used = -1

    async def step() -> None:
        nonlocal used
        found = await service.observe(sandbox, cursor=None)
        if found.agent.state is AgentState.NONE:
            raise _Over
        seen = found.usage.tokens  # by what the condition goes, or it would be true at once
        before, used = used, seen  # before telling: what is used from now on is told of again
        if before not in (-1, seen):
            changed()
        await asyncio.sleep(pause)
        await service.wait([sandbox], [TokensOver(used)], mode="any", timeout=MAX_WAIT, cursor={})

    await _until_end(sandbox, step)


class _Over(Exception):
    """There is nothing to watch."""


async def _until_end(sandbox: str, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except (SandboxEnded, NotFound, _Over):
            return
        except CsbError as error:
            log.debug("sandbox %s cannot be watched, trying again: %s", sandbox, error)
            await asyncio.sleep(_AGAIN)
        except Exception:  # a defect; it may not happen again
            log.exception("sandbox %s cannot be watched for a while", sandbox)
            await asyncio.sleep(_AFTER_DEFECT)
