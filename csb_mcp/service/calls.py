"""What the service's calls share: cursors, and a deadline for what takes milliseconds."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from csb_mcp.errors import DeadlineExceeded, DisplayFailed, SandboxEnded, TerminalFailed
from csb_mcp.model import Rows
from csb_mcp.service.core import Core
from csb_mcp.service.cursor import Cursor
from csb_mcp.service.registry import Live

_ANSWER_SECONDS = 10.0  # for what needs no more than the terminal or the display
TYPING_SECONDS = 45.0  # a thousand characters that no key has take ten seconds
_T = TypeVar("_T")


class Calls(Core):
    """Base of each group of calls; the groups together are the service."""

    def _cursor(self, live: Live, rows: Rows) -> str:
        turns = live.agent.view.finished if live.agent is not None else 0
        return str(Cursor(live.id, self._events.last, rows.generation, turns))


@asynccontextmanager
async def answering(live: Live, seconds: float = _ANSWER_SECONDS) -> AsyncGenerator[None]:
    """A deadline, with errors that name the sandbox; the sandbox is not idle meanwhile."""
    try:
        with live.busy():
            async with asyncio.timeout(seconds):
                yield
    except (TerminalFailed, DisplayFailed) as error:
        if not live.ending:
            raise
        raise SandboxEnded("it ended meanwhile", sandbox=live.id) from error
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"it did not answer within {seconds:g} s", sandbox=live.id
        ) from error


async def finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Run ``work`` to its end even if we are cancelled meanwhile; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - the work's own; result() raises it below
            break
    if cancelled is not None and not task.cancelled():
        task.exception()  # retrieved, so that it is not reported as lost
        raise cancelled
    return task.result()
