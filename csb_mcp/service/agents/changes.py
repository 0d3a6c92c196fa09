"""What is worth an event: from one view of an agent to the next. Plain computation."""

from collections.abc import Iterator, Mapping

from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentFault, AgentUsage, AgentView, Evidence, Question
from csb_mcp.service.agents.turns import TEXT

_QUIET = "nothing that is understood"

Change = tuple[str, Mapping[str, str]]
"""Kind and data of an event."""


def changes(before: AgentView, now: AgentView, by: Evidence, asked: str) -> Iterator[Change]:
    """``by``: the evidence that ``now`` goes by. ``asked``: id of the question told of last."""
    if now.state is not before.state:
        data = {"state": now.state.value, "before": before.state.value}
        data |= {"source": by.source.value, "detail": by.detail or _QUIET}
        yield "agent_state", data
    if now.question is not None and now.question.id != asked:
        yield "question", _of_question(now.question)


def agent_error(fault: AgentFault | None, by: Evidence) -> Change:
    """``by``: the evidence of the error, should nobody know more of it."""
    if fault is None:
        return "agent_error", {"kind": "other", "words": by.detail, "hint": "look at its screen"}
    words = one_line(fault.words, TEXT)
    return "agent_error", {"kind": fault.kind, "words": words, "hint": fault.hint}


def turn_finished(said: str, usage: AgentUsage) -> Change:
    """``usage``: with the turn's."""
    used, spent = usage.turn.total, f"{usage.turn_cost:.4f}"
    return "turn_finished", {"said": said, "tokens": str(used), "cost": spent}


def _of_question(question: Question) -> Mapping[str, str]:
    options = "; ".join(f"{option.key}: {option.label}" for option in question.options)
    words = {"tool": question.tool, "detail": question.detail, "options": options}
    words = {key: one_line(text, TEXT) for key, text in words.items() if text}
    return {"id": question.id, "kind": question.kind, **words}
