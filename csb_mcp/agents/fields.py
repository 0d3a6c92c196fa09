"""Fields of a line of JSON that somebody hostile may have written: of the right kind or nothing."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import cast

from csb_mcp.lib.text import one_line

_MAX_NAME = 200
_MAX_TOKENS = 10**12
Fields = Mapping[str, object]


def decoded(line: bytes) -> Fields:
    """The object that ``line`` is; empty if it is none."""
    try:
        value: object = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return fields(value)


def fields(value: object) -> Fields:
    """``value`` if it is an object, else an empty one."""
    return cast("Fields", value) if isinstance(value, dict) else {}


def items(value: object, limit: int) -> list[object]:
    """The first ``limit`` of a list; empty if it is none."""
    return cast("list[object]", value)[:limit] if isinstance(value, list) else []


def name(value: Fields, key: str) -> str:
    """A short text on one line."""
    text = value.get(key)
    if not isinstance(text, str):
        return ""
    plain = len(text) <= _MAX_NAME and text.isascii() and text.isprintable()
    return text if plain else one_line(text, _MAX_NAME)


def count(value: Fields, key: str) -> int:
    """A number of tokens."""
    number = value.get(key)
    return number if type(number) is int and 0 <= number <= _MAX_TOKENS else 0


def moment(value: Fields) -> float:
    """The time in ``timestamp``, in seconds since 1970; 0 if there is none."""
    try:
        return datetime.fromisoformat(name(value, "timestamp")).timestamp()
    except (ValueError, OverflowError):
        return 0.0
