"""JSON-RPC messages, one a line, between asyncio streams and the SDK.

The SDK's own stdio transport needs a thread per direction. Its server asks only for something to
iterate over and something to send to; these are that, without tasks in between.
"""

import asyncio
import select
from types import TracebackType
from typing import Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

MAX_LINE = 16 * 1024 * 1024

_DRAIN_SECONDS = 660.0  # the longest run_command, and a minute
_CANCELLED = "notifications/cancelled"
_OPEN_END = "subscriptions/listen"  # a request that is answered only when the connection ends


class InFlight:
    """Requests that were read and are not answered yet."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def received(self, message: JSONRPCMessage) -> None:
        """Count a request; forget one that the client cancels, for it is never answered."""
        if isinstance(message, JSONRPCRequest) and message.method != _OPEN_END:
            self._ids.add(str(message.id))
            self._empty.clear()
        elif isinstance(message, JSONRPCNotification) and message.method == _CANCELLED:
            self._forget((message.params or {}).get("requestId"))

    def sent(self, message: JSONRPCMessage) -> None:
        """Forget a request that is answered."""
        if isinstance(message, JSONRPCResponse | JSONRPCError):
            self._forget(message.id)

    def _forget(self, request: object) -> None:
        self._ids.discard(str(request))  # a client may cancel 1 as "1", says the SDK
        if not self._ids:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until there are none."""
        await self._empty.wait()


class _Stream:
    """What the SDK expects of either direction beside its verb. Closing is the owner's."""

    async def aclose(self) -> None:
        """Nothing: the socket is closed once, by who accepted it."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        return None


class LineWriter(_Stream):
    """Sends messages. Raises anyio.BrokenResourceError, as the SDK expects, if the peer is gone."""

    def __init__(self, writer: asyncio.StreamWriter, in_flight: InFlight) -> None:
        self._writer = writer
        self._in_flight = in_flight

    async def send(self, item: SessionMessage, /) -> None:
        """Send one; returns when the peer has taken most of it, so a slow one slows us down."""
        line = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        try:
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise anyio.BrokenResourceError from error
        finally:
            self._in_flight.sent(item.message)

    async def flushed(self) -> None:
        """Wait until the peer has taken most of what was sent. Raises OSError."""
        await self._writer.drain()


class LineReader(_Stream):
    """Gives messages until the peer has closed its end *and* has its answers, or is gone."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: LineWriter,
        in_flight: InFlight,
        descriptor: int,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._in_flight = in_flight
        self._descriptor = descriptor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        while (line := await self._line()) is not None:
            if message := await self._parse(line):
                self._in_flight.received(message)
                return SessionMessage(message)
        await self._answered()
        raise StopAsyncIteration

    async def receive(self) -> SessionMessage | Exception:
        """One message. Raises anyio.EndOfStream after the last."""
        try:
            return await self.__anext__()
        except StopAsyncIteration as error:
            raise anyio.EndOfStream from error

    async def _line(self) -> bytes | None:
        """The next line, of at most :data:`MAX_LINE`; longer ones are skipped and refused."""
        try:
            # A peer that does not read its answers gets no more requests read.
            await self._writer.flushed()
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial or None
        except asyncio.LimitOverrunError as error:
            await self._skip(error.consumed)
            await self._refuse(INVALID_REQUEST, f"a message may have {MAX_LINE} bytes, not more")
            return b""
        except OSError:
            return None

    async def _skip(self, consumed: int) -> None:
        """Drop the rest of a line whose first ``consumed`` bytes are buffered."""
        while consumed:
            try:
                await self._reader.readexactly(consumed)
                await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                consumed = error.consumed
            except (asyncio.IncompleteReadError, OSError):
                return
            else:
                return

    async def _parse(self, line: bytes) -> JSONRPCMessage | None:
        if not line.strip():
            return None
        try:
            return jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError as error:
            if error.errors(include_input=False)[0]["type"] == "json_invalid":
                await self._refuse(PARSE_ERROR, "not JSON")
            else:
                await self._refuse(INVALID_REQUEST, "not a JSON-RPC message")
            return None

    async def _refuse(self, code: int, words: str) -> None:
        error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=words))
        try:
            await self._writer.send(SessionMessage(error))
        except anyio.BrokenResourceError:
            return

    async def _answered(self) -> None:
        """After the peer's last byte: wait until all is answered, or it does not listen any more.

        When this returns the SDK cancels what still runs.
        """
        waits = {
            asyncio.ensure_future(self._in_flight.empty()),
            asyncio.ensure_future(_hung_up(self._descriptor)),
        }
        try:
            await asyncio.wait(waits, timeout=_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()


async def _hung_up(descriptor: int) -> None:
    """Wait until both directions of a socket are shut.

    After EOF a socket is readable for ever, so the loop's own reader would spin; an epoll set that
    asks for nothing reports EPOLLHUP alone (epoll_ctl(2)), and is itself something to poll.
    """
    loop = asyncio.get_running_loop()
    hung_up = loop.create_future()
    with select.epoll() as epoll:
        epoll.register(descriptor, 0)
        loop.add_reader(epoll.fileno(), lambda: hung_up.done() or hung_up.set_result(None))
        try:
            await hung_up
        finally:
            loop.remove_reader(epoll.fileno())
