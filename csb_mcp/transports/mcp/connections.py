"""All MCP clients of the daemon's Unix socket: a task each, and no state that outlives it."""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Sequence

import anyio
from mcp.server.mcpserver import MCPServer

from csb_mcp.errors import CsbError, InvalidInput
from csb_mcp.model import Problem
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.lines import MAX_LINE, InFlight, LineReader, LineWriter
from csb_mcp.transports.mcp.preface import MAX_BYTES, Preface, accepted, parse_preface, refused
from csb_mcp.transports.mcp.server import build_server, lowlevel_of
from csb_mcp.transports.mcp.updates import Updates

log = logging.getLogger(__name__)

_PREFACE_SECONDS = 5.0
_CLOSE_SECONDS = 2.0  # for a peer to take what was still to be sent

Problems = Callable[[], Sequence[Problem]]


class Connections:
    """Accepts connections and serves each. ``problems`` is asked for ``csb-mcp doctor``.

    ``updates`` is what all faces that speak MCP share; None makes one.
    """

    def __init__(
        self, service: SandboxService, problems: Problems, updates: Updates | None = None
    ) -> None:
        self._service = service
        self._updates = Updates(service) if updates is None else updates
        self._problems = problems
        self._servers: dict[Preface, MCPServer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Clients that are connected."""
        return len(self._tasks)

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Serve a bound Unix socket. The caller closes what is returned, then us."""
        return await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE)

    async def close(self) -> None:
        """Cancel calls in flight and drop all connections; sandboxes do not notice."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * _CLOSE_SECONDS)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._handle(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _peer_uid(writer) == os.geteuid():
                await self._serve(reader, writer)
        except (EOFError, OSError, asyncio.LimitOverrunError):
            log.debug("a client went away before it said what it wants")
        except Exception:
            # One connection's defect must not be another's: it is logged and this one dropped.
            log.exception("a connection failed")
        finally:
            await _close(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            preface = await _read_preface(reader)
            if preface.doctor:
                writer.write(accepted(await asyncio.to_thread(self._problems)))
                return
            server = self._server(preface)
        except CsbError as error:
            writer.write(refused(error))
            return
        writer.write(accepted())
        in_flight = InFlight()
        outbound = LineWriter(writer, in_flight)
        inbound = LineReader(reader, outbound, in_flight, _socket(writer).fileno())
        lowlevel = lowlevel_of(server)
        try:
            await lowlevel.run(inbound, outbound, lowlevel.create_initialization_options())
        except* anyio.BrokenResourceError:
            # The SDK relays messages between two tasks of its own. If one comes in while we cancel
            # it, the one that passes it on may find the other gone.
            log.debug("a message came in while its connection was being closed")

    def _server(self, preface: Preface) -> MCPServer:
        if preface not in self._servers:
            self._servers[preface] = build_server(
                self._service,
                toolsets=preface.toolsets,
                read_only=preface.read_only,
                updates=self._updates,
            )
        return self._servers[preface]


async def _read_preface(reader: asyncio.StreamReader) -> Preface:
    try:
        async with asyncio.timeout(_PREFACE_SECONDS):
            line = await reader.readuntil(b"\n")
    except TimeoutError as error:
        raise InvalidInput(
            f"nothing came within {_PREFACE_SECONDS:g} s", field="preface"
        ) from error
    if len(line) > MAX_BYTES:
        raise InvalidInput(f"is longer than {MAX_BYTES} bytes", field="preface")
    return parse_preface(line)


def _socket(writer: asyncio.StreamWriter) -> socket.socket:
    return writer.get_extra_info("socket")


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    """Uid of the process that connected (SO_PEERCRED, unix(7))."""
    credentials = _socket(writer).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return struct.unpack("3i", credentials)[1]


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
