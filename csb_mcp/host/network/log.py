"""The connection log that an egress proxy writes, read back: its word, parsed as hostile."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from csb_mcp.lib.safe_open import tail
from csb_mcp.model import Connection, TriedHost, Verdict

Line = TypeVar("Line", Connection, TriedHost)
_NAMES = ("log.1", "log")  # the older first
_LINE_BYTES = 512  # on average, at most; a longer one only means that fewer are found
_MOST_BYTES = 8 << 20
_MOST_TEXT = 300
_MOST_HOSTS = 200


def last_connections(folder: Path, limit: int) -> Sequence[Connection]:
    """The last ``limit`` lines, oldest first; what is no line of a proxy is left out."""
    found: list[Connection] = []
    for name in reversed(_NAMES):
        if len(found) < limit:
            found = [*_lines(folder, name, limit - len(found)), *found]
    return found


def tried_hosts(folder: Path) -> Sequence[TriedHost]:
    """What the proxy has added up since the sandbox was made; who was tried last comes first."""
    try:
        data = tail(folder, "totals", _MOST_HOSTS * _LINE_BYTES)
    except OSError:
        return []
    found = list(_parsed(data, _tried))[:_MOST_HOSTS]
    return sorted(found, key=lambda host: host.last, reverse=True)


def _lines(folder: Path, name: str, limit: int) -> list[Connection]:
    try:
        data = tail(folder, name, min(_MOST_BYTES, limit * _LINE_BYTES))
    except OSError:
        return []
    return list(_parsed(data, _connection))[-limit:] if limit > 0 else []


def _parsed(data: bytes, read: Callable[[dict[str, Any]], Line]) -> Iterator[Line]:
    for line in data.split(b"\n"):
        try:
            yield read(cast("dict[str, Any]", json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # the first one may be cut in half, the last one may be being written


def _connection(line: dict[str, Any]) -> Connection:
    return Connection(
        time=_number(line["time"]),
        host=_text(line["host"]),
        port=int(_number(line["port"])),
        verdict=Verdict(line["verdict"]),
        why=_text(line.get("why", "")),
        address=_text(line.get("address", "")),
        sent=int(_number(line.get("sent", 0))),
        received=int(_number(line.get("received", 0))),
        seconds=_number(line.get("seconds", 0.0)),
    )


def _tried(line: dict[str, Any]) -> TriedHost:
    names = ("port", "allowed", "refused", "sent", "received")
    counts = {name: int(_number(line[name])) for name in names}
    return TriedHost(host=_text(line["host"]), last=_number(line["last"]), **counts)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    if not math.isfinite(value) or not 0 <= value < 1 << 63:
        raise ValueError("out of range")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return "".join(c if c.isprintable() else "?" for c in value[:_MOST_TEXT])
