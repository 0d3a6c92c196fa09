"""Cursors and frame names: opaque to callers, checked when they come back.

Both carry the daemon's epoch: row generations and frame numbers start anew with each daemon, so an
older one is recognised and answered with everything instead of a wrong difference.
"""

import secrets
from dataclasses import dataclass

from csb_mcp.errors import InvalidInput

EPOCH = secrets.token_hex(3)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in one sandbox: in the event stream and in its terminal's rows."""

    sandbox: str
    event: int
    generation: int | None

    def __str__(self) -> str:
        return f"{self.sandbox}.{EPOCH}.{self.event}.{self.generation or 0}"


def parse_cursor(text: str, sandbox: str) -> Cursor:
    """Back from text. Of an older daemon: ``generation`` is None. Raises InvalidInput."""
    parts = text.split(".")
    numbers = parts[2:]
    if len(parts) != 4 or not all(n.isascii() and n.isdigit() and len(n) < 16 for n in numbers):
        raise InvalidInput(
            "not a cursor", field="cursor", hint="give one from an earlier answer, or none"
        )
    if parts[0] != sandbox:
        raise InvalidInput(
            f"this cursor belongs to sandbox {parts[0]!r}, not {sandbox!r}", field="cursor"
        )
    event, generation = map(int, numbers)
    return Cursor(sandbox, event, generation if parts[1] == EPOCH else None)


def frame_name(number: int) -> str:
    """The name under which a frame is given out."""
    return f"{EPOCH}-{number}"


def frame_number(name: str, field: str) -> int | None:
    """Back from a name; None if another daemon gave it out. Raises InvalidInput."""
    epoch, dash, number = name.partition("-")
    if not dash or not (number.isascii() and number.isdigit() and len(number) < 16):
        raise InvalidInput("not a frame", field=field, hint="give the frame of a screenshot")
    return int(number) if epoch == EPOCH else None
