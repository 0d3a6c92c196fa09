"""The OpenAPI document, made from the routes that are served."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from csb_mcp import __version__
from csb_mcp.decode.schemas import REFERENCE, Arguments
from csb_mcp.transports.http import problems
from csb_mcp.transports.http.answers import SCHEMAS
from csb_mcp.transports.http.route import Answer, Route, reference

Json = dict[str, Any]

_ABOUT = (
    "Sandboxes for coding agents. The daemon serves this on a Unix socket, to its own user alone: "
    "`curl --unix-socket $XDG_RUNTIME_DIR/csb-mcp/daemon/http.sock http://csb/api/sandboxes`. "
    "Every GET answers HEAD too, every path OPTIONS. Unknown arguments are refused."
)


def document(routes: Iterable[Route]) -> Json:
    """All of it, ready to be written as JSON."""
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "csb-mcp", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(SCHEMAS),
            "responses": {str(int(status)): _problem(status) for status in _statuses(routes)},
        },
    }


def operation(route: Route) -> Json:
    """One route."""
    found: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": list(_parameters(route)),
        "responses": {
            **{str(status): _answer(answer) for status, answer in route.answers.items()},
            **{str(s): {"$ref": f"#/components/responses/{s}"} for s in route.statuses},
        },
    }
    if route.description:
        found["description"] = route.description
    if route.body is not None:
        found["requestBody"] = _body(route.body)
    return found


def _parameters(route: Route) -> Iterable[Json]:
    if route.of_sandbox:
        yield {"name": "sandbox", "in": "path", "required": True, "schema": REFERENCE}
    if route.query is not None:
        for name, schema in route.query.properties.items():
            yield _parameter(name, "query", schema)
    for name, schema in route.headers.items():
        yield _parameter(name, "header", schema)


def _parameter(name: str, place: str, schema: Mapping[str, Any]) -> Json:
    found: Json = {"name": name, "in": place, "required": False, "schema": dict(schema)}
    if schema.get("type") == "array":
        found |= {"style": "form", "explode": False}  # x=1,2 and not x=1&x=2
    return found


def _body(arguments: Arguments) -> Json:
    content = {"application/json": {"schema": arguments.schema()}}
    return {"required": bool(arguments.required), "content": content}


def _answer(answer: Answer) -> Json:
    found: Json = {"description": answer.description}
    if answer.content:
        found["content"] = {kind: {"schema": schema} for kind, schema in answer.content.items()}
    if answer.headers:
        found["headers"] = {
            name: {"required": True, "schema": schema} for name, schema in answer.headers.items()
        }
    return found


def _problem(status: HTTPStatus) -> Json:
    return {
        "description": status.phrase,
        "content": {problems.MEDIA_TYPE: {"schema": reference("Problem")}},
    }


def _statuses(routes: Iterable[Route]) -> list[HTTPStatus]:
    return sorted({HTTPStatus(status) for route in routes for status in route.statuses})
