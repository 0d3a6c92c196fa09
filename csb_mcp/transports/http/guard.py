"""What holds for every request, those to mounted faces included."""

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from csb_mcp.transports.http import problems
from csb_mcp.transports.http.endpoint import cancelled
from csb_mcp.transports.http.problems import Refused

MAX_AT_ONCE = 256  # requests in flight, streams among them


class Guard:
    """Refuses what is too much at once; when ``closing`` is set, ends what is in flight."""

    def __init__(self, app: ASGIApp, closing: asyncio.Event) -> None:
        self._app = app
        self._closing = closing
        self._present = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if self._present >= MAX_AT_ONCE and scope["type"] == "http":
            await problems.answer(_busy())(scope, receive, send)
            return
        self._present += 1
        try:
            await self._pass(scope, receive, send)
        finally:
            self._present -= 1

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a live log closes with a code of its own
            await self._app(scope, receive, send)
            return
        response = _Response(send)
        try:
            await self._unless_closing(scope, receive, response)
        except Exception as error:  # noqa: BLE001 whatever it is, the client gets the one shape
            await response.end(error, scope, receive)

    async def _unless_closing(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = asyncio.ensure_future(self._app(scope, receive, send))
        ending = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({running, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise _ending()
            running.result()
        finally:
            await cancelled(running, ending)


class _Response:
    """Knows how far a response has come, so that it can be brought to an end."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._complete = False

    async def __call__(self, message: Message) -> None:
        self._started = True
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)

    async def end(self, error: Exception, scope: Scope, receive: Receive) -> None:
        """Say what went wrong, if there is still a place for it; else let the stream end."""
        problem = problems.answer(error)  # logs what is a defect
        if not self._started:
            await problem(scope, receive, self._send)
        elif not self._complete:
            await self._send({"type": "http.response.body", "body": b""})


def _busy() -> Refused:
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        f"{MAX_AT_ONCE} requests are in flight",
        hint="End some of them, or try again later",
        headers={"retry-after": "1"},
    )


def _ending() -> Refused:
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "ending",
        "the daemon ended before the call did",
        hint="Sandboxes go on. Start the daemon again, and look what came of the call",
    )
