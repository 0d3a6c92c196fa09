"""The daemon's end of one egress proxy: JSON lines over its control socket.

The proxy reads what a payload sends, so it may have been taken over: its lines are bounded and
parsed as hostile. At worst it lies about its own sandbox.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from csb_mcp.errors import DeadlineExceeded, EgressFailed
from csb_mcp.host.network.counts import count_of
from csb_mcp.lib.hosts import normal_host
from csb_mcp.model import Ask, ProxyCount
from csb_mcp.ports import ClientOf

LINE_BYTES = 1 << 20
_ANSWER_SECONDS = 10.0
_REST = 10  # times as long as a look at who asked took, before the next one
_ASKS = 1024  # kept until somebody takes them; more come again by themselves


class ProxyGate:
    """See :class:`~csb_mcp.ports.Gate`. Made by :func:`meet`; its owner closes it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sandbox: str,
        client_of: ClientOf,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._sandbox = sandbox
        self._client_of = client_of
        self._asks: list[Ask] = []
        self._asked = asyncio.Event()
        self._answers: list[asyncio.Future[None]] = []
        self._count: ProxyCount | None = None
        self._recounted = asyncio.Event()
        self._gone = False
        self._look_at = 0.0  # loop time
        self._listening = asyncio.create_task(self._listen())

    async def rule(self, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """See :class:`~csb_mcp.ports.Gate`."""
        await self.do({"do": "rules", "allow": list(allowed), "deny": list(denied)})

    async def allow_once(self, host: str, port: int) -> None:
        """See :class:`~csb_mcp.ports.Gate`."""
        await self.do({"do": "once", "host": host, "port": port})

    async def asks(self) -> Sequence[Ask]:
        """See :class:`~csb_mcp.ports.Gate`."""
        while not self._asks:
            if self._gone:
                raise self._failed("the egress proxy went away")
            self._asked.clear()
            await self._asked.wait()
        found, self._asks = self._asks, []
        return found

    @property
    def counted(self) -> ProxyCount | None:
        """See :class:`~csb_mcp.ports.Gate`."""
        return self._count

    async def counts(self) -> ProxyCount:
        """See :class:`~csb_mcp.ports.Gate`."""
        while self._count is None or not self._recounted.is_set():
            if self._gone:
                raise self._failed("the egress proxy went away")
            self._recounted.clear()
            await self._recounted.wait()
        self._recounted.clear()
        return self._count

    def close(self) -> None:
        """See :class:`~csb_mcp.ports.Gate`."""
        self._listening.cancel()
        self._end()

    async def do(self, request: Mapping[str, Any]) -> None:
        """Send a request and wait until it is done. Raises EgressFailed."""
        if self._gone:
            raise self._failed("the egress proxy went away")
        line = json.dumps(request).encode() + b"\n"
        if len(line) >= LINE_BYTES:
            raise self._failed("that is more than the egress proxy takes at once")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers.append(done)  # answers come in the order of the requests
        self._writer.write(line)
        try:
            await asyncio.wait_for(asyncio.shield(done), _ANSWER_SECONDS)
        except TimeoutError:
            raise self._failed("the egress proxy does not answer") from None

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                await self._take(_parsed(line))
                await asyncio.sleep(0)  # as long as there are lines, to read does not wait
        except (
            OSError,
            ValueError,
        ):  # a line too long, or no JSON: it is not to be trusted further
            pass
        finally:
            self._end()

    async def _take(self, message: Mapping[str, Any]) -> None:
        if "used" in message:
            self.recount(message["used"])
        elif isinstance(message.get("asked"), dict):
            await self._note(cast("Mapping[str, Any]", message["asked"]))
        elif message.keys() & {"done", "error"} and self._answers:
            done = self._answers.pop(0)
            if done.done():
                return
            if "done" in message:
                done.set_result(None)
            else:
                why = ascii(message["error"])[:200]
                done.set_exception(self._failed(f"the egress proxy refused: {why}"))

    async def _note(self, asked: Mapping[str, Any]) -> None:
        """One that waits for this: seen, then with the program that asks, while it is connected.

        To look takes the longer, the more processes there are inside, and somebody there may ask
        all the time: most of it is left to others.
        """
        peer, number = asked.get("peer"), asked.get("id")
        program, now = None, asyncio.get_running_loop().time
        if isinstance(peer, int) and 0 < peer < 65536 and now() >= self._look_at:
            begun = now()
            with contextlib.suppress(OSError):
                program = await asyncio.to_thread(self._client_of, peer)
            self._look_at = now() + _REST * (now() - begun)
        self.remember(asked, program)
        if isinstance(number, int):
            self._writer.write(json.dumps({"do": "seen", "id": number}).encode() + b"\n")
            if self._writer.transport.get_write_buffer_size() > LINE_BYTES:
                self._writer.transport.abort()  # a close would wait until all is sent
                raise ValueError("it does not read what it asked for")

    def remember(self, asked: Mapping[str, Any], program: str | None = None) -> None:
        """Keep what was asked for until :meth:`asks`. Raises ValueError if it is malformed."""
        ask = Ask(
            host=normal_host(asked.get("host")),
            port=int(_number(asked.get("port"), 1, 65535)),
            count=int(_number(asked.get("count"), 1, 1 << 53)),
            time=float(_number(asked.get("time"), 0, 1 << 53)),
            program=program,
        )
        if len(self._asks) < _ASKS:
            self._asks.append(ask)
        self._asked.set()

    def recount(self, used: object) -> None:
        """Keep what was counted. Raises ValueError if it is malformed."""
        self._count = count_of(used)
        self._recounted.set()

    def _end(self) -> None:
        self._gone = True
        self._recounted.set()
        self._writer.close()
        self._asked.set()
        for done in self._answers:
            if not done.done():
                done.set_exception(self._failed("the egress proxy went away"))
                done.exception()  # looked at: nobody may be waiting for this one
        self._answers.clear()

    def _failed(self, why: str) -> EgressFailed:
        return EgressFailed(why, sandbox=self._sandbox)


async def meet(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    sandbox: str,
    client_of: ClientOf,
    deadline: float,
) -> ProxyGate:
    """The gate of a fresh connection, after the proxy's first line; ``reader`` has LINE_BYTES.

    Raises EgressFailed, DeadlineExceeded (loop time); the connection is closed then.
    """
    try:
        async with asyncio.timeout_at(deadline):
            hello = _parsed(await reader.readline())
        if hello.get("hello") != 1:
            raise ValueError("no hello")
        gate = ProxyGate(reader, writer, sandbox, client_of)
        for asked in cast("list[Any]", hello.get("asked") or [])[:_ASKS]:
            gate.remember(asked)
        if "used" in hello:
            gate.recount(hello["used"])
    except TimeoutError:
        writer.close()
        raise DeadlineExceeded("the egress proxy did not answer in time") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        writer.close()
        raise EgressFailed(f"this is no egress proxy: {error}", sandbox=sandbox) from error
    except asyncio.CancelledError:
        writer.close()
        raise
    return gate


def _parsed(line: bytes) -> Mapping[str, Any]:
    """Raises ValueError."""
    try:
        found: object = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004  one kind of error for a bad line
    return cast("Mapping[str, Any]", found)


def _number(value: object, least: int, most: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError("a number is missing, or out of its range")
    return value
