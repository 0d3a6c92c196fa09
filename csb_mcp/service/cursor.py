"""Cursors and frame names: opaque to callers, checked when they come back.

Both carry the daemon's epoch: row generations and frame numbers start anew with each daemon, so an
older one is recognised and answered with everything instead of a wrong difference. A frame's name
also says which part of the display its picture shows and how large, so that a place on the picture
can be found on the display again, by whatever daemon.
"""

import secrets
from dataclasses import dataclass
from typing import Self

from csb_mcp.errors import InvalidInput
from csb_mcp.model import Frame, Image, Point, Region

EPOCH = secrets.token_hex(3)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in one sandbox: in the event stream, in its terminal's rows, in its turns."""

    sandbox: str
    event: int
    generation: int | None
    turns: int | None = 0

    def __str__(self) -> str:
        numbers = f"{self.event}.{self.generation or 0}.{self.turns or 0}"
        return f"{self.sandbox}.{EPOCH}.{numbers}"


def parse_cursor(text: str, sandbox: str) -> Cursor:
    """Back from text. Of an older daemon: no generation. Raises InvalidInput."""
    parts = text.split(".")
    numbers = parts[2:]
    if len(parts) != 5 or not all(map(_is_number, numbers)):
        raise InvalidInput(
            "not a cursor", field="cursor", hint="give one from an earlier answer, or none"
        )
    if parts[0] != sandbox:
        raise InvalidInput(
            f"this cursor belongs to sandbox {parts[0]!r}, not {sandbox!r}", field="cursor"
        )
    event, generation, turns = map(int, numbers)
    if parts[1] != EPOCH:
        return Cursor(sandbox, event, None, turns)
    return Cursor(sandbox, event, generation, turns)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


@dataclass(frozen=True, slots=True)
class View:
    """What a picture shows: ``width`` display pixels from ``x``, ``y`` on, ``pixels`` wide.

    ``pixels`` 0: the whole display in its own size.
    """

    x: int = 0
    y: int = 0
    width: int = 0
    pixels: int = 0

    @classmethod
    def of(cls, region: Region, image: Image, frame: Frame) -> Self:
        """That of ``image``, which shows ``region`` of ``frame``."""
        if (region.width, region.height, image.width) == (frame.width, frame.height, frame.width):
            return cls()
        return cls(region.x, region.y, region.width, image.width)

    def on_display(self, at: Point, fields: tuple[str, str]) -> Point:
        """The display's pixel in the middle of the picture's. Raises InvalidInput (``fields``)."""
        if not self.pixels:
            return at
        if at.x >= self.pixels:
            raise InvalidInput(
                f"{at.x} is not on that picture, which is {self.pixels} pixels wide",
                field=fields[0],
                hint="leave frame out to give display pixels",
            )
        scale = self.width / self.pixels
        return Point(self.x + int((at.x + 0.5) * scale), self.y + int((at.y + 0.5) * scale))


@dataclass(frozen=True, slots=True)
class FrameName:
    """A frame that was given out. ``number`` is None if another daemon did so."""

    number: int | None
    view: View


def frame_name(number: int, view: View | None = None) -> str:
    """The name under which a frame is given out."""
    name = f"{EPOCH}-{number}"
    if view is None or not view.pixels:
        return name
    return f"{name}-{view.x}.{view.y}.{view.width}.{view.pixels}"


def parse_frame(name: str, field: str) -> FrameName:
    """Back from a name. Raises InvalidInput."""
    epoch, number, view = (*name.split("-", 2), "", "")[:3]
    shown = view.split(".") if view else []
    if not _is_number(number) or len(shown) not in (0, 4) or not all(map(_is_number, shown)):
        raise InvalidInput("not a frame", field=field, hint="give the frame of a screenshot")
    return FrameName(int(number) if epoch == EPOCH else None, View(*map(int, shown)))
