"""A client of the HTTP face, over a real Unix socket."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from starlette.routing import BaseRoute
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosedError

from csb_mcp.ports import SandboxService
from csb_mcp.transports.http.app import Lifespan, build_http_app
from csb_mcp.transports.http.server import HttpServer

DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Station:
    """A face that is served, and its socket."""

    path: Path
    server: HttpServer

    def client(self) -> httpx2.AsyncClient:
        return rest_client(self.path)

    def live(self, target: str) -> connect:
        return live(self.path, target)

    async def raw(self, *chunks: bytes) -> bytes:
        """All that is answered to these bytes, until the other end closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        try:
            for chunk in chunks:
                writer.write(chunk)
            async with asyncio.timeout(DEADLINE):
                return await reader.read()
        finally:
            writer.close()


def rest_client(path: Path) -> httpx2.AsyncClient:
    """Requests to the daemon behind a socket."""
    transport = httpx2.AsyncHTTPTransport(uds=str(path))
    return httpx2.AsyncClient(transport=transport, base_url="http://csb", timeout=60)


def live(path: Path, target: str) -> connect:
    """A WebSocket to it."""
    return unix_connect(str(path), f"ws://csb{target}", compression=None, open_timeout=DEADLINE)


async def heard(connection: ClientConnection) -> tuple[str | bytes, int | None, str | None]:
    """All frames until it is closed, and how it was."""
    found: list[Any] = []
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionClosedError):
            async for frame in connection:
                found.append(frame)  # noqa: PERF401 what came before it broke counts too
    empty = b"" if found and isinstance(found[0], bytes) else ""
    return empty.join(found), connection.close_code, connection.close_reason


@asynccontextmanager
async def serving(
    service: SandboxService,
    path: Path,
    *,
    mounts: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
) -> AsyncGenerator[Station]:
    """Serve the face of ``service`` at ``path``."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    server = HttpServer(build_http_app(service, mounts=mounts, lifespan=lifespan))
    await server.start(listener)
    try:
        yield Station(path, server)
    finally:
        await server.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(DEADLINE):
        while not condition():
            await asyncio.sleep(0.01)
