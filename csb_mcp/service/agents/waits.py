"""What can be waited for of an agent."""

import time
from collections.abc import Callable
from typing import assert_never

from csb_mcp.errors import Conflict
from csb_mcp.lib.text import one_line
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    AgentView,
    CostOver,
    Question,
    QuestionAsked,
    TokensOver,
    TurnFinished,
)
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.registry import Live

_DETAIL, _LINE = 100, 400  # characters
_DRAWN = 1.0  # seconds in which a question that a hook told of is drawn
AgentCondition = AgentStateIs | QuestionAsked | TurnFinished | TokensOver | CostOver


def watch_of(live: Live) -> AgentWatch:
    """Raises Conflict if no agent that is understood lives in it."""
    if live.agent is None:
        raise Conflict(
            "it has no agent that is understood, but a shell or a command",
            sandbox=live.id,
            hint="use send_keys, read_terminal, and conditions of the terminal",
        )
    return live.agent


async def of_agent(
    live: Live, condition: AgentCondition, turns: int | None, held: Callable[[], str]
) -> str:
    """Wait until it is true; gives the evidence. ``turns``: that had ended at the cursor.

    ``held`` tells of the budget for which it is paused, if it is: then nothing can come true, and
    this raises Conflict.
    """
    watch = watch_of(live)
    # A daemon that was killed may have known of one that was not kept.
    base = watch.view.finished if turns is None else min(turns, watch.view.finished)
    while True:
        seen = watch.news.count  # before the look
        if (found := _holds(watch, condition, base)) is not None:
            return found
        if budget := held():
            raise Conflict(
                f"it is paused, for its budget is used up: {budget}",
                sandbox=live.id,
                hint="resume it with a higher one, or stop it",
            )
        await watch.news.beyond(seen)


def _holds(watch: AgentWatch, condition: AgentCondition, base: int) -> str | None:
    view, usage = watch.view, watch.usage
    match condition:
        case AgentStateIs(state):
            return told(view) if view.state is state else None
        case QuestionAsked():
            return _asked(view)
        case TurnFinished():
            ended = view.finished > base
            return f"{view.finished - base} ended; now {view.state.value}" if ended else None
        case TokensOver(tokens):
            return f"{usage.tokens} tokens" if usage.tokens > tokens else None
        case CostOver(cost):
            return f"{usage.spent:.4f} US dollars" if usage.spent > cost else None
    assert_never(condition)


def _asked(view: AgentView) -> str | None:
    if view.question is not None:
        return described(view.question)
    if view.state is AgentState.QUESTION and time.time() - view.since > _DRAWN:
        return f"not understood on its screen; {told(view)}"
    return None


def told(view: AgentView) -> str:
    """The state, and the first source that says so."""
    by = next((one for one in view.evidence if one.says is view.state), None)
    return view.state.value if by is None else f"{view.state.value} by {by.source}: {by.detail}"


def described(question: Question) -> str:
    """A question on one line."""
    options = ", ".join(f"{option.key}={option.label}" for option in question.options)
    what = f"{question.kind} {question.tool}".strip()
    detail = one_line(question.detail, _DETAIL)
    return one_line(f"{question.id}: {what}: {detail} [{options}]", _LINE)
