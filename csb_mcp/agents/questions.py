"""Questions that an agent puts on the screen, put together so that each is known again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csb_mcp.lib.text import one_line
from csb_mcp.model import Option, Question

MAX_DETAIL = 2000
_MAX_LABEL = 300


@dataclass(frozen=True, slots=True)
class Choice:
    """One option as it stands on the screen."""

    key: str
    label: str
    marked: bool


def asked(
    kind: str,
    detail: str,
    choices: Sequence[Choice],
    *,
    tool: str = "",
    free: bool = False,
    beside: str = "",
    bare: Callable[[str], str] = str,
) -> Question:
    """``beside``: what else tells it from another. ``bare``: a label without what may change."""
    options = tuple(Option(c.key, one_line(c.label, _MAX_LABEL)) for c in choices)
    words = (kind, tool, beside, detail, *(o.key + bare(o.label) for o in options))
    digest = hashlib.sha256("\0".join(words).encode(errors="replace")).hexdigest()[:12]
    marked = next((c.key for c in choices if c.marked), "")
    return Question(
        id=digest,
        kind=kind,
        detail=detail[:MAX_DETAIL],
        options=options,
        tool=tool,
        free=free,
        marked=marked,
    )
