"""Responses that are whole before the first byte goes out."""

import json
from collections.abc import Mapping

from starlette.responses import Response

_ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Reply(Response):
    """Bytes with a type. Nothing of it is to be kept, unless ``headers`` say otherwise."""

    def __init__(
        self,
        content: bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        media_type: str | None = None,
    ) -> None:
        super().__init__(content, status, {**_ALWAYS, **(headers or {})}, media_type)


def encoded(value: object) -> bytes:
    """JSON in UTF-8. A lone surrogate, which has no UTF-8, becomes a question mark."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace")


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON answer."""
    return Reply(encoded(value), status, headers, "application/json")


def as_text(text: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A plain text answer."""
    return Reply(text.encode(errors="replace"), 200, headers, "text/plain; charset=utf-8")


def nothing(headers: Mapping[str, str] | None = None) -> Reply:
    """Done, and nothing to tell."""
    return Reply(b"", 204, headers)
