"""Serves the application on a Unix socket: uvicorn's protocols, with a lifetime of our own.

uvicorn's own ``serve`` takes over signals, wakes ten times a second and waits for every open stream
when it ends. What it has of protocols needs none of that.
"""

import asyncio
import logging
import os
import socket
import struct
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from csb_mcp.transports.http.replies import encoded

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
MAX_HEADERS = 32 * 1024  # bytes of a request line with its headers
MAX_MESSAGE = 64 * 1024  # bytes of a WebSocket message, to which nobody listens anyway
KEEP_ALIVE = 60
DRAIN = 2.0  # seconds that open answers have to end in


class HttpServer:
    """One listener. The caller binds the socket; closing takes it away."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        config = uvicorn.Config(
            app,
            loop="none",
            http=cast("Any", _Protocol),
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,
            lifespan="off",  # entered and left here, in one task
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            h11_max_incomplete_event_size=MAX_HEADERS,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """Clients that are connected."""
        return len(self._server.server_state.connections)

    async def start(self, listener: socket.socket) -> None:
        """Serve a bound Unix socket, which is ours from now on."""
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(listener, ready))
        await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()

    async def close(self) -> None:
        """End open answers, drop all connections; sandboxes do not notice. May be called again."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self, listener: socket.socket, ready: asyncio.Future[None]) -> None:
        try:
            async with self._app.router.lifespan_context(self._app):
                await self._server.startup(sockets=[listener])
                ready.set_result(None)
                await self._ending.wait()
                await self._drain()
        finally:
            listener.close()

    async def _drain(self) -> None:
        state = self._server.server_state
        for server in self._server.servers:
            server.close()
        self._app.state.closing.set()
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=DRAIN)
        for connection in tuple(state.connections):
            connection.shutdown()
        for task in tuple(state.tasks):
            task.cancel()
        await self._gone()

    async def _gone(self) -> None:
        """Let connections flush what they have; the deaf are not waited for."""
        state = self._server.server_state
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN
        while (state.connections or state.tasks) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in tuple(state.connections):
            connection.transport.abort()


class _Protocol(H11Protocol):
    """Turns strangers and crowds away before a byte is read, and says so in our shape."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] uvicorn's own narrows it
        crowded = len(self.connections) >= MAX_CONNECTIONS
        if crowded or peer_uid(transport) != os.geteuid():
            self.transport = transport
            transport.abort()
            return
        # For an answer that nobody takes: closing would wait until it is taken.
        self.app_state = {**self.app_state, "abort": transport.abort}
        super().connection_made(transport)

    @override
    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    @override
    def send_400_response(self, msg: str) -> None:
        """What is no HTTP. It may come at any moment, so nothing is known of the answers before."""
        problem = {
            "type": "urn:csb-mcp:error:invalid_input",
            "title": "Bad Request",
            "status": 400,
            "detail": f"this is no HTTP request, or its headers have more than {MAX_HEADERS} bytes",
            "code": "invalid_input",
        }
        content = encoded(problem)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:
            self.transport.write(head.encode() + content)
        self.transport.close()


def peer_uid(transport: asyncio.Transport) -> int:
    """Uid of the process that connected (SO_PEERCRED, unix(7))."""
    connected: socket.socket = transport.get_extra_info("socket")
    return struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
