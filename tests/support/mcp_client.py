"""The SDK's own client."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.server.mcpserver import MCPServer


@asynccontextmanager
async def connection(server: MCPServer | str, mode: str, **options: Any) -> AsyncGenerator[Client]:
    """A client of an address, or of a server in this process; ``mode``: the era, as the SDK says.

    It lives in a task of its own: the SDK's scopes must be left in the task that entered them, and
    a fixture of pytest is left in another.
    """
    connected: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
    finished = asyncio.Event()

    async def stay() -> None:
        try:
            async with Client(server, mode=mode, **options) as client:
                connected.set_result(client)
                await finished.wait()
        except Exception as error:
            if connected.done():
                raise
            connected.set_exception(error)

    task = asyncio.create_task(stay())
    try:
        yield await connected
    finally:
        finished.set()
        await task
