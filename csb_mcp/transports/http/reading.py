"""From the bytes of a request to the arguments of a call; what they mean is decode's matter."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NoReturn, cast
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive

from csb_mcp.decode.schemas import Arguments
from csb_mcp.errors import InvalidInput
from csb_mcp.lib.text import one_line
from csb_mcp.transports.http.problems import Refused

MAX_BODY = 1024 * 1024
_MAX_FIELDS = 64
_NO_ARGUMENTS = Arguments({})


class Gone(Exception):
    """The client is no longer there."""


def query(raw: bytes, known: Arguments | None) -> dict[str, object]:
    """The arguments in a query string: text, but lists (by comma) and truths as the schema says.

    Raises InvalidInput, naming what is unknown or was given twice.
    """
    valid = (known or _NO_ARGUMENTS).properties
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise InvalidInput("cannot be read", field="query") from error
    found: dict[str, object] = {}
    for key, value in pairs:
        name = one_line(key, 64)
        if key not in valid:
            raise InvalidInput("unknown query parameter", field=name, choices=tuple(valid))
        if key in found:
            raise InvalidInput("was given twice", field=name)
        found[key] = _value(value, valid[key])
    return found


def _value(value: str, schema: Mapping[str, Any]) -> object:
    if schema.get("type") == "array":
        return value.split(",")
    if schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(value, value)
    return value


async def body(headers: Headers, receive: Receive, known: Arguments | None) -> dict[str, object]:
    """The arguments in a JSON body; no body is an empty object.

    Raises Refused, InvalidInput, Gone.
    """
    raw = await _bytes(headers, receive)
    if not raw:
        return {}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            f"the body is {one_line(kind, 80) or 'of no type'}, not application/json",
            hint="Send JSON, with the header Content-Type: application/json",
            headers={"accept": "application/json"},
        )
    valid = (known or _NO_ARGUMENTS).properties
    values = _object(raw)
    for key in values:
        if key not in valid:  # "sandbox" among them, which the path has named
            raise InvalidInput("unknown argument", field=one_line(key, 64), choices=tuple(valid))
    return values


async def _bytes(headers: Headers, receive: Receive) -> bytes:
    told = headers.get("content-length", "0")
    if told.isdecimal() and int(told[:20]) > MAX_BODY:
        raise _too_large()
    found = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        found += message.get("body", b"")
        if len(found) > MAX_BODY:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(found)


def _too_large() -> Refused:
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "content_too_large",
        f"the body has more than {MAX_BODY} bytes",
        hint="Put big text into a file in the project",
        headers={"connection": "close"},  # what is still to come is not read
    )


def _object(raw: bytes) -> dict[str, object]:
    try:
        values: object = json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"is not JSON: {one_line(str(error), 120)}", field="body") from error
    if not isinstance(values, dict):
        raise InvalidInput("is not a JSON object", field="body")
    return cast("dict[str, object]", values)


def _no_number(name: str) -> NoReturn:
    """NaN and its like, which Python reads and JSON does not have."""
    raise ValueError(f"{name} is no number")
