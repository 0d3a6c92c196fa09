"""JSON, a line each, without the module ``json``: that brings ``re``, and the two take 9 ms.

What is used here of ``_json`` is what ``json`` itself is made of.
"""

import _json


def _refuse(text: str) -> object:
    raise ValueError(f"{text} is no JSON")


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse)
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own


_scan = _json.make_scanner(_Context())  # pyright: ignore[reportArgumentType]


def decoded(line: bytes | bytearray) -> dict[str, object]:
    """The object in a line. Raises ValueError."""
    text = line.decode().strip()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, RecursionError) as error:
        raise ValueError("no JSON") from error
    if end != len(text) or not isinstance(value, dict):
        raise ValueError("not one JSON object")
    return value  # pyright: ignore[reportUnknownVariableType]


def encoded(value: object) -> str:
    """As JSON, in ASCII, in one line."""
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return _object(value)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return "[" + ",".join(map(encoded, value)) + "]"  # pyright: ignore[reportUnknownArgumentType]
    raise TypeError(type(value).__name__)


def _object(value: dict[str, object]) -> str:
    return "{" + ",".join(f"{encoded(key)}:{encoded(item)}" for key, item in value.items()) + "}"
