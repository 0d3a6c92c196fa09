"""What is typed at Claude Code: a prompt, an answer, an interrupt."""

from collections.abc import Sequence

from csb_mcp.agents.claude.dialogs import SUBMIT, TICKED
from csb_mcp.errors import InvalidInput
from csb_mcp.model import Question
from csb_mcp.ports.agent import Stroke

# What comes in one burst is taken for a paste, its Enter too; and a dialog needs a moment between
# two keys, for it draws itself anew in between.
_AFTER_PASTE = 0.4
_BETWEEN = 0.15
_FRESH = 0.6  # keys that come sooner after a dialog are thought to be meant for what was there


def submit(text: str) -> Sequence[Stroke]:
    """See ``ports.Agent.submit``.

    A space keeps what begins with a slash or an exclamation mark from being a command, and Enter
    after a backslash from being a new line.
    """
    if text.lstrip().startswith(("/", "!")):
        text = " " + text.lstrip()
    if text.rstrip().endswith("\\"):
        text = text.rstrip() + " "
    return (Stroke(text=text, paste=True), *retry())


def retry() -> Sequence[Stroke]:
    """See ``ports.Agent.retry``."""
    return (Stroke(keys=("Enter",), pause=_AFTER_PASTE),)


def interrupt() -> Sequence[Stroke]:
    """See ``ports.Agent.interrupt``."""
    return (Stroke(keys=("Escape",)),)


def answer(question: Question, option: str, text: str | None) -> Sequence[Stroke]:
    """See ``ports.Agent.answer``.

    Where several may be chosen, ``option`` names all of them ("1,3"), and what is ticked beside
    them is cleared; a bare ``submit`` leaves them as they are.
    """
    keys = {one.key: one.label for one in question.options}
    if SUBMIT in keys:
        return _several(keys, option, text)
    if option not in keys:
        raise _unknown(option, keys)
    if text is not None:
        return _with_text(question, option, text)
    if question.kind == "trust":
        return _pressed([*_moves(question, option), "Enter"])
    return _pressed([option])


def _several(keys: dict[str, str], option: str, text: str | None) -> Sequence[Stroke]:
    if text is not None:
        raise InvalidInput("several may be chosen here, and no text is taken", field="text")
    if option == SUBMIT:
        return _pressed(["Tab"])
    ticks = [key for key, label in keys.items() if not label.startswith("Chat") and key != SUBMIT]
    if option in keys and option not in ticks:
        return _pressed([option])
    wanted = {part.strip() for part in option.split(",")}
    if unknown := wanted - set(ticks):
        raise _unknown(min(unknown), keys)
    changed = [key for key in ticks if (key in wanted) != keys[key].startswith(TICKED)]
    return _pressed([*changed, "Tab"])


def _with_text(question: Question, option: str, text: str) -> Sequence[Stroke]:
    labels = {one.key: one.label for one in question.options}
    typed = Stroke(text=" ".join(text.split()), paste=True, pause=_BETWEEN)
    entered = (typed, Stroke(keys=("Enter",), pause=_AFTER_PASTE))
    if question.free and question.kind in ("choice", "plan"):
        fitting = [key for key, label in labels.items() if label.startswith(("Type so", "Tell Cl"))]
        if option in fitting:
            return (*_pressed([option]), *entered)
    elif question.free and question.kind == "permission":
        if labels[option] in ("Yes", "No"):
            return (*_pressed([*_moves(question, option), "Tab"]), *entered)
        fitting = [key for key, label in labels.items() if label in ("Yes", "No")]
    else:
        fitting = []
    raise InvalidInput(
        f"option {option} takes no text",
        field="text",
        choices=fitting,
        hint="answer without text" + (", or an option that takes it" if fitting else ""),
    )


def _moves(question: Question, option: str) -> list[str]:
    keys = [one.key for one in question.options]
    if question.marked not in keys:
        raise InvalidInput("it cannot be seen which option is marked", field="option")
    steps = keys.index(option) - keys.index(question.marked)
    return ["Down" if steps > 0 else "Up"] * abs(steps)


def _pressed(keys: Sequence[str]) -> tuple[Stroke, ...]:
    return tuple(
        Stroke(keys=(key,), pause=_BETWEEN if at else _FRESH) for at, key in enumerate(keys)
    )


def _unknown(option: str, keys: dict[str, str]) -> InvalidInput:
    return InvalidInput(f"{option!r} is no option here", field="option", choices=tuple(keys))
