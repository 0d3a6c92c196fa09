"""One path of the face: finds the route, reads the request, calls, and answers whatever happens."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from csb_mcp.lib.text import one_line
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http import problems, reading
from csb_mcp.transports.http.problems import Refused
from csb_mcp.transports.http.reading import Gone
from csb_mcp.transports.http.replies import nothing
from csb_mcp.transports.http.route import Request, Route

log = logging.getLogger(__name__)

T = TypeVar("T")


class Endpoint:
    """An ASGI application for the routes of one path."""

    def __init__(self, routes: Sequence[Route], service: SandboxService) -> None:
        self._routes = {route.method: route for route in routes}
        self._service = service
        head = ("HEAD",) if "GET" in self._routes else ()
        self._allow = ", ".join((*self._routes, *head, "OPTIONS"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._answer(scope, receive)
        except Gone:
            return
        except Exception as error:  # noqa: BLE001 whatever it is, the client gets the one shape
            response = problems.answer(error)
        await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        method: str = scope["method"]
        if method == "OPTIONS":
            return nothing({"allow": self._allow})
        route = self._routes.get("GET" if method == "HEAD" else method)
        if route is None:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                "method_not_allowed",
                f"{one_line(method, 32)} is not for this path; valid: {self._allow}",
                headers={"allow": self._allow},
            )
        return await self._call(route, scope, receive)

    async def _call(self, route: Route, scope: Scope, receive: Receive) -> Response:
        headers = Headers(scope=scope)
        arguments: dict[str, object] = {
            **scope.get("path_params", {}),
            **reading.query(scope["query_string"], route.query),
        }
        if route.method == "POST":  # a body elsewhere has no meaning (RFC 9110, 9.3.1)
            arguments |= await reading.body(headers, receive, route.body)
        request = Request(self._service, arguments, headers)
        return await unless_gone(route.handler(request), receive)


async def unless_gone(call: Awaitable[T], receive: Receive) -> T:
    """What ``call`` gives. It is cancelled when its client goes away: then raises Gone."""
    running = asyncio.ensure_future(call)
    gone = asyncio.ensure_future(until_gone(receive))
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        raise Gone
    finally:
        await cancelled(running, gone)


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancel them and wait until that has come true; what they raised then concerns nobody."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
