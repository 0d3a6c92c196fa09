"""What is typed at agents that ask in the terminal: keys with the pauses that they need."""

from collections.abc import Iterable, Sequence

from csb_mcp.errors import InvalidInput
from csb_mcp.model import Question
from csb_mcp.ports.agent import Stroke

# What comes in one burst is taken for a paste, its Enter too; and a dialog needs a moment between
# two keys, for it draws itself anew in between.
AFTER_PASTE = 0.4
BETWEEN = 0.15
_FRESH = 0.6  # keys that come sooner after a dialog are thought to be meant for what was there


def entered() -> Stroke:
    """What submits that which was pasted."""
    return Stroke(keys=("Enter",), pause=AFTER_PASTE)


def pressed(keys: Sequence[str]) -> tuple[Stroke, ...]:
    """Keys for a dialog, one by one."""
    return tuple(
        Stroke(keys=(key,), pause=BETWEEN if at else _FRESH) for at, key in enumerate(keys)
    )


def moves(question: Question, option: str) -> list[str]:
    """Keys from the marked option to ``option``. Raises InvalidInput if none is marked."""
    keys = [one.key for one in question.options]
    if question.marked not in keys:
        raise InvalidInput("it cannot be seen which option is marked", field="option")
    steps = keys.index(option) - keys.index(question.marked)
    return ["Down" if steps > 0 else "Up"] * abs(steps)


def no_option(option: str, keys: Iterable[str]) -> InvalidInput:
    """For the caller to raise."""
    return InvalidInput(f"{option!r} is no option here", field="option", choices=tuple(keys))


def no_text(option: str, fitting: Sequence[str]) -> InvalidInput:
    """For the caller to raise. ``fitting``: options that do take text."""
    return InvalidInput(
        f"option {option} takes no text",
        field="text",
        choices=fitting,
        hint="answer without text" + (", or an option that takes it" if fitting else ""),
    )
