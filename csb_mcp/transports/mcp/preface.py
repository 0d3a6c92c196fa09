"""The one line that a client of the daemon's socket sends before MCP begins, and its answer.

The two ends are two processes that may be of different versions: this line tells, before either
misreads the other.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from csb_mcp import __version__
from csb_mcp.errors import Conflict, CsbError, InvalidInput
from csb_mcp.model import Problem

MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Preface:
    """What the client wants: MCP with these tools, or (``doctor``) the host's problems."""

    toolsets: frozenset[str] | None = None
    read_only: bool = False
    doctor: bool = False


def parse_preface(line: bytes) -> Preface:
    """Read it. Raises InvalidInput; Conflict if the other end is of another version."""
    values = _object(line)
    if (version := values.pop("version", None)) != __version__:
        raise Conflict(
            f"the daemon (pid {os.getpid()}) is version {__version__}, "
            f"this csb-mcp is {version!s:.40}",
            hint=f"Restart the daemon: kill {os.getpid()} ends it, sandboxes go on, and the next "
            "csb-mcp starts a new one that takes them up",
        )
    toolsets = values.pop("toolsets", None)
    read_only, doctor = values.pop("read_only", False), values.pop("doctor", False)
    if values or not isinstance(read_only, bool) or not isinstance(doctor, bool):
        raise InvalidInput("holds an unknown key or a wrong value", field="preface")
    return Preface(None if toolsets is None else _names(toolsets), read_only, doctor)


def _object(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line[:MAX_BYTES])
    except ValueError as error:
        raise InvalidInput("is not JSON", field="preface") from error
    if not isinstance(values, dict):
        raise InvalidInput("is not an object", field="preface")
    return cast("dict[str, Any]", values)


def _names(value: object) -> frozenset[str]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    names = [item for item in items if isinstance(item, str)]
    if not names or len(names) != len(items):
        raise InvalidInput("is not a list of names", field="toolsets")
    return frozenset(names)


def accepted(problems: Sequence[Problem] | None = None) -> bytes:
    """The answer to a preface that is well."""
    values: dict[str, Any] = {"ok": True, "version": __version__, "pid": os.getpid()}
    if problems is not None:
        values["problems"] = [asdict(problem) for problem in problems]
    return _line(values)


def refused(error: CsbError) -> bytes:
    """The answer to one that is not."""
    return _line({"error": str(error)})


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"
