"""MCP as streamable HTTP: routes for another application to serve, and their lifetime."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings

from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.server import build_server

_MAX_SESSIONS = 256  # of clients that still begin with a handshake


class StreamableHttp:
    """``/mcp`` with the default tools.

    Clients of the handshake era get a session each, which notifications need; the modern one has
    none. On a Unix socket no browser can be tricked into coming here, and Host says nothing, so
    neither it nor Origin is looked at: who serves this on TCP has to.
    """

    def __init__(self, service: SandboxService) -> None:
        self._server = build_server(service)
        app = self._server.streamable_http_app(
            max_sessions=_MAX_SESSIONS,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self.routes: Sequence[Any] = app.routes

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncGenerator[None]:
        """Sessions live within it. Enter it once; a mounted application's own is never entered."""
        async with self._server.session_manager.run():
            yield
