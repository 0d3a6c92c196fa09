"""The face as one ASGI application: routes, live logs, the document that describes them."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from csb_mcp.lib.text import one_line
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http import openapi, problems
from csb_mcp.transports.http.endpoint import Endpoint
from csb_mcp.transports.http.live_log import LiveLog
from csb_mcp.transports.http.problems import Refused
from csb_mcp.transports.http.replies import Reply, encoded
from csb_mcp.transports.http.route import Request, Route, json_answer
from csb_mcp.transports.http.routes import ROUTES

MAX_AT_ONCE = 256  # requests in flight, streams among them

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def all_routes() -> tuple[Route, ...]:
    """All that is served and documented, the document itself included."""
    content: list[bytes] = []

    async def document(_: Request) -> Reply:
        return Reply(content[0], 200, None, "application/json")

    routes = (
        *ROUTES,
        Route(
            method="GET",
            path="/openapi.json",
            name="openapi",
            summary="All of this as an OpenAPI document",
            handler=document,
            answers={200: json_answer("Version 3.1", {"type": "object"})},
        ),
    )
    content.append(encoded(openapi.document(routes)))
    return routes


def build_http_app(
    service: SandboxService, *, mounts: Sequence[BaseRoute] = (), lifespan: Lifespan | None = None
) -> Starlette:
    """The application. ``mounts`` are other faces on the same socket; ``lifespan`` is theirs.

    ``state.closing`` is an event: once set, long answers end and calls in flight are cancelled.
    """
    closing = asyncio.Event()
    app = Starlette(
        routes=[*_served(service, closing), *mounts],
        exception_handlers={HTTPException: _refused},
        middleware=[Middleware(_Crowd)],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.closing = closing
    return app


def _served(service: SandboxService, closing: asyncio.Event) -> list[BaseRoute]:
    by_path: dict[str, list[Route]] = {}
    for route in all_routes():
        by_path.setdefault(route.path, []).append(route)
    live = WebSocketRoute("/ws/sandboxes/{sandbox}/logs", LiveLog(service, closing).__call__)
    http = [HttpRoute(path, Endpoint(own, service, closing)) for path, own in by_path.items()]
    return [*http, live]


async def _refused(request: HttpRequest, error: Exception) -> Response:
    """What the router itself refuses: a path that nothing answers at."""
    if isinstance(error, HTTPException) and error.status_code != HTTPStatus.NOT_FOUND:
        status = HTTPStatus(error.status_code)
        code = status.phrase.lower().replace(" ", "_")
        return problems.answer(Refused(status, code, str(error.detail), headers=error.headers))
    path = one_line(request.url.path, 200)
    return problems.answer(
        Refused(
            HTTPStatus.NOT_FOUND,
            "no_such_route",
            f"nothing answers at {path}",
            hint="GET /openapi.json lists what does",
        )
    )


class _Crowd:
    """Refuses what is too much at once, before it costs anything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._present = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._present >= MAX_AT_ONCE:
            await _busy()(scope, receive, send)
            return
        counted = scope["type"] != "lifespan"
        self._present += counted
        try:
            await self._app(scope, receive, send)
        finally:
            self._present -= counted


def _busy() -> Response:
    return problems.answer(
        Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "busy",
            f"{MAX_AT_ONCE} requests are in flight",
            hint="End some of them, or try again later",
            headers={"retry-after": "1"},
        )
    )
