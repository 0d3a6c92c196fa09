"""What the service's calls share: pieces, cursors, and a deadline for what takes milliseconds."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from csb_mcp.errors import DeadlineExceeded, DisplayFailed, SandboxEnded, TerminalFailed
from csb_mcp.model import Rows
from csb_mcp.service.creation import Pieces
from csb_mcp.service.cursor import Cursor
from csb_mcp.service.events import Events
from csb_mcp.service.registry import Live, Registry

_ANSWER_SECONDS = 10.0  # for what needs no more than the terminal or the display
TYPING_SECONDS = 45.0  # a thousand characters that no key has take ten seconds


class Calls:
    """Base of each group of calls; the groups together are the service."""

    def __init__(self, pieces: Pieces, registry: Registry, events: Events) -> None:
        self._pieces = pieces
        self._registry = registry
        self._events = events

    def _cursor(self, live: Live, rows: Rows) -> str:
        return str(Cursor(live.id, self._events.last, rows.generation))


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
