"""A moment in which no client draws, so that a picture comes out whole."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from csb_mcp.host.display.x11 import Connection, Lost, NoServer

_PATIENCE = 0.035  # seconds; an idle server takes 0.1 ms, one under a flood of drawing 5 to 20


class Stillness:
    """Holds the X server of ``folder`` grabbed for moments. For one user at a time.

    Its connection is kept from the first use on, and is not that of Damage: a reply there may be
    waited for, for any length of time, by somebody else.
    """

    def __init__(self, folder: Path, cookie: bytes) -> None:
        self._folder = folder
        self._cookie = cookie
        self._connection: Connection | None = None

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[bool]:
        """In the block no client draws. Gives False if the server did not agree to that in time.

        Should this process die in the block, the kernel closes the connection, and so ends the
        grab.
        """
        connection = await self._grab()
        try:
            yield connection is not None
        finally:
            if connection:
                connection.ungrab()

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()

    async def _grab(self) -> Connection | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                if self._connection is None:
                    self._connection = await Connection.open(self._folder, self._cookie)
                await self._connection.grab()
                return self._connection
        except (TimeoutError, Lost, NoServer):
            await self.close()
            return None
        except asyncio.CancelledError:
            await self.close()  # else the grab would come about later, and nobody would end it
            raise
