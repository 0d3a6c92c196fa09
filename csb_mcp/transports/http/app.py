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

from csb_mcp.lib.text import one_line
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http import openapi, problems
from csb_mcp.transports.http.endpoint import Endpoint
from csb_mcp.transports.http.guard import Guard
from csb_mcp.transports.http.live_log import LiveLog
from csb_mcp.transports.http.problems import Refused
from csb_mcp.transports.http.replies import Reply, encoded
from csb_mcp.transports.http.route import Request, Route, json_answer
from csb_mcp.transports.http.routes import ROUTES

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
        middleware=[Middleware(Guard, closing=closing)],
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
    http = [HttpRoute(path, Endpoint(own, service)) for path, own in by_path.items()]
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
