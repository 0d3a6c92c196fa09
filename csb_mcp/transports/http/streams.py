"""Answers that go on: events as they happen, a log as it is printed.

Nothing is queued here: the next piece is asked for when the last has left, so a slow client costs
no memory. One that takes nothing for a while is cut off.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, cast

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from csb_mcp.decode import answers
from csb_mcp.errors import CsbError
from csb_mcp.model import Event
from csb_mcp.transports.http import problems
from csb_mcp.transports.http.endpoint import cancelled, unless_gone
from csb_mcp.transports.http.reading import Gone

log = logging.getLogger(__name__)

KEEP_ALIVE = 15.0
SLOW = 20.0  # seconds that a client may take for one piece
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]


class TooSlow(Exception):
    """The client takes nothing of what it asked for."""


async def taken(sending: Awaitable[None], scope: Scope) -> None:
    """Wait until the client's side has room again; drop the connection if that takes too long."""
    try:
        async with asyncio.timeout(SLOW):
            await sending
    except TimeoutError:
        # Closing would first wait for what the client does not take.
        abort = scope.get("state", {}).get("abort")
        if abort is not None:
            abort()
        raise TooSlow from None


class EventStream(Response):
    """``text/event-stream`` of what happens, until the client goes."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[Event]) -> None:
        super().__init__()
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["method"] == "HEAD":
            await self._begin(send)
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            await unless_gone(self._pump(scope, send), receive)
        except Gone:
            return
        except TooSlow:
            log.info("a reader of events took none for %g s", SLOW)
            return
        await send({"type": "http.response.body", "body": b""})

    async def _begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    async def _pump(self, scope: Scope, send: Send) -> None:
        """Send events. The first is asked for before we answer: from then on none is missed."""
        async with aclosing(cast("AsyncGenerator[Event]", self._events)) as events:
            coming = asyncio.ensure_future(anext(events))
            try:
                await asyncio.sleep(0)
                await self._begin(send)
                while True:
                    done, _ = await asyncio.wait({coming}, timeout=KEEP_ALIVE)
                    data = _sent(coming.result()) if done else b": still here\n\n"
                    await taken(send(_part(data)), scope)
                    if done:
                        coming = asyncio.ensure_future(anext(events))
            except StopAsyncIteration:
                return
            except CsbError as error:
                await taken(send(_part(_failed(error))), scope)
            finally:
                await cancelled(coming)


def _part(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


def _sent(event: Event) -> bytes:
    return f"id: {event.sequence}\ndata: {_line(answers.event(event))}\n\n".encode()


def _failed(error: CsbError) -> bytes:
    return f"event: problem\ndata: {_line(problems.problem_of(error))}\n\n".encode()


def _line(value: dict[str, Any]) -> str:
    """On one line, and ASCII: what divides lines for some reader cannot be in it."""
    return json.dumps(value, allow_nan=False)
