"""What is typed at Codex: a prompt, an answer, an interrupt."""

from collections.abc import Sequence

from csb_mcp.agents.codex.dialogs import CANCEL, NOTES
from csb_mcp.agents.strokes import BETWEEN, entered, moves, no_option, no_text, pressed
from csb_mcp.model import Question
from csb_mcp.ports.agent import Stroke


def submit(text: str) -> Sequence[Stroke]:
    """See ``ports.Agent.submit``.

    A space keeps what begins like a command from being one, and Enter after a last word that looks
    like a file's or a skill's name from completing that.
    """
    if text.lstrip().startswith(("/", "!")):
        text = " " + text.lstrip()
    if text.split()[-1:] and text.split()[-1].startswith(("@", "$", "/")):
        text = text.rstrip() + " "
    return (Stroke(text=text, paste=True), entered())


def answer(question: Question, option: str, text: str | None) -> Sequence[Stroke]:
    """See ``ports.Agent.answer``. A digit chooses at once, but marks where trust is asked for."""
    keys = {one.key: one.label for one in question.options}
    if option not in keys:
        raise no_option(option, keys)
    if text is None and question.kind == "trust":
        return pressed([*moves(question, option), "Enter"])
    if text is None:
        return pressed(["Escape" if option == CANCEL else option])
    fitting = [key for key, label in keys.items() if question.free and label.startswith(NOTES)]
    if option not in fitting:
        raise no_text(option, fitting)
    typed = Stroke(text=" ".join(text.split()), paste=True, pause=BETWEEN)
    return (*pressed([*moves(question, option), "Tab"]), typed, entered())
