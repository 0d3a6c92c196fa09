"""What is typed at Claude Code: a prompt, an answer, an interrupt."""

from collections.abc import Sequence

from csb_mcp.agents.claude.dialogs import SUBMIT, TICKED
from csb_mcp.agents.strokes import BETWEEN, entered, moves, no_option, no_text, pressed
from csb_mcp.errors import InvalidInput
from csb_mcp.model import Question
from csb_mcp.ports.agent import Stroke


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
    return (entered(),)


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
        raise no_option(option, keys)
    if text is not None:
        return _with_text(question, option, text)
    if question.kind == "trust":
        return pressed([*moves(question, option), "Enter"])
    return pressed([option])


def _several(keys: dict[str, str], option: str, text: str | None) -> Sequence[Stroke]:
    if text is not None:
        raise InvalidInput("several may be chosen here, and no text is taken", field="text")
    if option == SUBMIT:
        return pressed(["Tab"])
    ticks = [key for key, label in keys.items() if not label.startswith("Chat") and key != SUBMIT]
    if option in keys and option not in ticks:
        return pressed([option])
    wanted = {part.strip() for part in option.split(",")}
    if unknown := wanted - set(ticks):
        raise no_option(min(unknown), keys)
    changed = [key for key in ticks if (key in wanted) != keys[key].startswith(TICKED)]
    return pressed([*changed, "Tab"])


def _with_text(question: Question, option: str, text: str) -> Sequence[Stroke]:
    labels = {one.key: one.label for one in question.options}
    typed = Stroke(text=" ".join(text.split()), paste=True, pause=BETWEEN)
    whole = (typed, entered())
    if question.free and question.kind in ("choice", "plan"):
        fitting = [key for key, label in labels.items() if label.startswith(("Type so", "Tell Cl"))]
        if option in fitting:
            return (*pressed([option]), *whole)
    elif question.free and question.kind == "permission":
        if labels[option] in ("Yes", "No"):
            return (*pressed([*moves(question, option), "Tab"]), *whole)
        fitting = [key for key, label in labels.items() if label in ("Yes", "No")]
    else:
        fitting = []
    raise no_text(option, fitting)
