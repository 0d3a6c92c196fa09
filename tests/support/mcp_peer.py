"""The other end of the daemon's MCP socket, by hand: what a client says, byte for byte."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from csb_mcp import __version__
from csb_mcp.transports.mcp.lines import MAX_LINE

PREFACE = {"version": __version__, "toolsets": None, "read_only": False}
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "a", "version": "1"},
}


class Peer:
    """The other end, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.last = 0

    async def say(self, value: object) -> None:
        line = value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
        self.writer.write(line)
        await self.writer.drain()

    async def hear(self) -> Any:
        """The next message; None after the last."""
        try:
            async with asyncio.timeout(20):
                line = await self.reader.readline()
        except ConnectionResetError:  # closed before it read all that we said
            return None
        return json.loads(line) if line else None

    async def ask(self, method: str, **params: Any) -> int:
        self.last += 1
        params["_meta"] = META
        await self.say({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        return self.last

    async def call(self, name: str, **arguments: Any) -> Any:
        await self.ask("tools/call", name=name, arguments=arguments)
        return await self.hear()


@asynccontextmanager
async def connected(path: Path, preface: object = PREFACE) -> AsyncGenerator[Peer]:
    reader, writer = await asyncio.open_unix_connection(path, limit=2 * MAX_LINE)
    peer = Peer(reader, writer)
    try:
        await peer.say(preface)
        yield peer
    finally:
        writer.close()


@asynccontextmanager
async def greeted(path: Path, **changes: object) -> AsyncGenerator[Peer]:
    async with connected(path, PREFACE | changes) as peer:
        assert (await peer.hear())["ok"] is True
        yield peer


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
