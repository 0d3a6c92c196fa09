"""The arguments of calls that act on a display."""

from dataclasses import dataclass

from csb_mcp.decode.fields import Fields
from csb_mcp.decode.values import (
    MAX_WIDTH,
    between,
    list_items,
    named,
    non_empty,
    one_of,
    reference,
    shown,
    token,
)
from csb_mcp.errors import InvalidInput
from csb_mcp.model import Point

BUTTONS = ("left", "middle", "right")
MAX_CLICKS = 3
MAX_NOTCHES = 100
MAX_POINTS = 100

_coordinate = between(0, MAX_WIDTH)
_notches = between(-MAX_NOTCHES, MAX_NOTCHES)


@dataclass(frozen=True, slots=True)
class Click:
    """Arguments of click. With ``frame``, places are pixels of that screenshot."""

    sandbox: str
    at: Point
    button: str
    count: int
    frame: str | None


@dataclass(frozen=True, slots=True)
class Drag:
    """Arguments of drag."""

    sandbox: str
    path: tuple[Point, ...]
    button: str
    frame: str | None


@dataclass(frozen=True, slots=True)
class Scroll:
    """Arguments of scroll: notches to the right and down."""

    sandbox: str
    at: Point
    dx: int
    dy: int
    frame: str | None


@dataclass(frozen=True, slots=True)
class TypeText:
    """Arguments of type_text."""

    sandbox: str
    text: str


def click(values: object) -> Click:
    """Arguments of click."""
    fields = Fields(values, ("sandbox", "x", "y", "button", "count", "frame"))
    return Click(
        fields.need("sandbox", reference),
        _at(fields),
        fields.get("button", one_of(BUTTONS), "left"),
        fields.get("count", between(1, MAX_CLICKS), 1),
        fields.get("frame", token, None),
    )


def drag(values: object) -> Drag:
    """Arguments of drag. A point is ``[x, y]``."""
    fields = Fields(values, ("sandbox", "path", "button", "frame"))
    return Drag(
        fields.need("sandbox", reference),
        fields.need("path", _path),
        fields.get("button", one_of(BUTTONS), "left"),
        fields.get("frame", token, None),
    )


def scroll(values: object) -> Scroll:
    """Arguments of scroll. At least one of ``dx`` and ``dy`` is not zero."""
    fields = Fields(values, ("sandbox", "x", "y", "dx", "dy", "frame"))
    sandbox, at = fields.need("sandbox", reference), _at(fields)
    dx, dy = fields.get("dx", _notches, 0), fields.get("dy", _notches, 0)
    if not dx and not dy:
        raise InvalidInput(
            "neither dx nor dy says how far",
            field="dy",
            hint="Give notches of the wheel: dy=3 scrolls down, dy=-3 up, dx=3 to the right",
        )
    return Scroll(sandbox, at, dx, dy, fields.get("frame", token, None))


def type_text(values: object) -> TypeText:
    """Arguments of type_text."""
    fields = Fields(values, ("sandbox", "text"))
    return TypeText(fields.need("sandbox", reference), fields.need("text", non_empty))


def _at(fields: Fields) -> Point:
    return Point(fields.need("x", _coordinate), fields.need("y", _coordinate))


def _path(value: object) -> tuple[Point, ...]:
    items = list_items(value)
    if not 2 <= len(items) <= MAX_POINTS:
        raise InvalidInput(
            f"give 2 to {MAX_POINTS} points", hint="For example [[100, 200], [300, 200]]"
        )
    return tuple(named(f"[{index}]", _point, item) for index, item in enumerate(items))


def _point(value: object) -> Point:
    items = list_items(value)
    if len(items) != 2:
        raise InvalidInput(f"{shown(value)} is not a point", hint="Give [x, y]")
    x, y = (named(f"[{axis}]", _coordinate, item) for axis, item in enumerate(items))
    return Point(x, y)
