"""A route as data: what it takes, what it answers, and the one function behind it.

The Starlette routes, the OpenAPI document and docs/rest.md are all made from these, so no route can
be served and not be documented.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from csb_mcp import errors
from csb_mcp.decode.schemas import Arguments
from csb_mcp.errors import CsbError
from csb_mcp.ports import SandboxService
from csb_mcp.transports.http.problems import status_of

Json = dict[str, Any]

_ALWAYS = (HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
_WITH_BODY = (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
_NAMED = (errors.NotFound, errors.Ambiguous, errors.DeadlineExceeded)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, read: ``arguments`` are those of path, query and body together."""

    service: SandboxService
    arguments: Mapping[str, object]
    headers: Headers


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which a request goes well. ``content`` is by media type, ``headers`` by name."""

    description: str
    content: Mapping[str, Json] = field(default_factory=dict[str, Json])
    headers: Mapping[str, Json] = field(default_factory=dict[str, Json])


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """``path`` is written as OpenAPI does: ``/api/sandboxes/{sandbox}``.

    ``name`` is unique: the operation's. ``tool`` is the MCP tool with the same arguments, if any.
    ``errors`` are those of the service beside the ones that any call with a sandbox may give.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    description: str = ""
    query: Arguments | None = None
    body: Arguments | None = None
    headers: Mapping[str, Json] = field(default_factory=dict[str, Json])
    errors: tuple[type[CsbError], ...] = ()
    tool: str | None = None
    refusals: tuple[HTTPStatus, ...] = ()

    @property
    def of_sandbox(self) -> bool:
        """Its path names a sandbox."""
        return "{sandbox}" in self.path

    @property
    def statuses(self) -> tuple[int, ...]:
        """Statuses of all the problems that it may answer with."""
        kinds = (*self.errors, *(_NAMED if self.of_sandbox else ()))
        found = {*_ALWAYS, *self.refusals, *(status_of(kind) for kind in kinds)}
        if self.method == "POST":
            found.update(_WITH_BODY)
        return tuple(sorted(int(status) for status in found))


def json_answer(
    description: str, schema: Json, headers: Mapping[str, Json] | None = None
) -> Answer:
    """An answer in JSON."""
    return Answer(description, {"application/json": schema}, headers or {})


def reference(name: str) -> Json:
    """A schema of :mod:`csb_mcp.transports.http.answers`, by name."""
    return {"$ref": f"#/components/schemas/{name}"}
