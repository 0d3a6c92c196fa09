"""Calls to the agent inside: their arguments, and their answers as plain JSON values."""

from dataclasses import asdict, dataclass
from typing import Any

from csb_mcp.decode.answers import terminal_view
from csb_mcp.decode.fields import Fields
from csb_mcp.decode.records import record, timestamp
from csb_mcp.decode.values import non_empty, reference, short_text, text, token, truth
from csb_mcp.lib.text import one_line
from csb_mcp.model import (
    AgentFault,
    AgentUsage,
    AgentView,
    Answered,
    Counted,
    Evidence,
    Observation,
    PromptSent,
    Question,
)

_DETAIL = 500
_LABEL = 200
_OPTIONS = 20
_DECIMALS = 6

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observe:
    """Arguments of observe."""

    sandbox: str
    cursor: str | None


@dataclass(frozen=True, slots=True)
class SendPrompt:
    """Arguments of send_prompt."""

    sandbox: str
    text: str
    queue: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Arguments of answer."""

    sandbox: str
    question: str
    option: str
    text: str | None


def observe(values: object) -> Observe:
    """Arguments of observe."""
    fields = Fields(values, ("sandbox", "cursor"))
    return Observe(fields.need("sandbox", reference), fields.get("cursor", token, None))


def send_prompt(values: object) -> SendPrompt:
    """Arguments of send_prompt."""
    fields = Fields(values, ("sandbox", "text", "queue"))
    return SendPrompt(
        fields.need("sandbox", reference),
        fields.need("text", non_empty),
        fields.get("queue", truth, False),
    )


def answer(values: object) -> Answer:
    """Arguments of answer."""
    fields = Fields(values, ("sandbox", "question", "option", "text"))
    return Answer(
        fields.need("sandbox", reference),
        fields.need("question", short_text),
        fields.need("option", short_text),
        fields.get("text", text, None),
    )


def observation(found: Observation) -> Json:
    """What observe gives."""
    return {
        "sandbox": record(found.record),
        "agent": agent(found.agent),
        "usage": usage(found.usage),
        "queued": found.queued,
        "terminal": terminal_view(found.terminal),
    }


def agent(view: AgentView) -> Json:
    """State and evidence."""
    return {
        "state": view.state.value,
        "since": timestamp(view.since),
        "evidence": [_evidence(one) for one in view.evidence],
        "disputed": [one.source.value for one in view.disputed],
        "question": None if view.question is None else question(view.question),
        "error": None if view.fault is None else fault(view.fault),
        "finished": view.finished,
    }


def _evidence(one: Evidence) -> Json:
    return {
        "source": one.source.value,
        "says": one.says.value,
        "since": timestamp(one.since),
        "detail": one_line(one.detail, _DETAIL),
    }


def question(asked: Question) -> Json:
    """A question, in the sandbox's words."""
    return {
        "id": one_line(asked.id, _LABEL),
        "kind": one_line(asked.kind, _LABEL),
        "tool": one_line(asked.tool, _LABEL),
        "detail": one_line(asked.detail, _DETAIL),
        "options": [
            {"key": one_line(option.key, _LABEL), "label": one_line(option.label, _LABEL)}
            for option in asked.options[:_OPTIONS]
        ],
        "free": asked.free,
    }


def fault(found: AgentFault) -> Json:
    """What it stopped at."""
    return {key: one_line(str(text), _DETAIL) for key, text in asdict(found).items()}


def usage(used: AgentUsage) -> Json:
    """Tokens by model and in total, and what they cost."""
    return {
        "models": {name: asdict(tokens) for name, tokens in used.models.items()},
        "total": asdict(used.total),
        "cost": round(used.cost, _DECIMALS),
        "unpriced": list(used.unpriced),
        "unpriced_cost": round(used.unpriced_cost, _DECIMALS),
        "turns": used.turns,
        "tool_calls": used.tool_calls,
        "turn": asdict(used.turn),
        "turn_cost": round(used.turn_cost, _DECIMALS),
        "counted": None if used.counted is None else _counted(used.counted, used.counted_cost),
    }


def _counted(found: Counted, cost: float) -> Json:
    return {
        "models": {one_line(name, _LABEL): asdict(used) for name, used in found.models.items()},
        "total": asdict(found.total),
        "tokens": found.tokens,
        "cost": round(cost, _DECIMALS),
        "answers": found.answers,
        "cut": found.cut,
        "uncounted": found.uncounted,
        "estimated": found.estimated,
    }


def prompt_sent(sent: PromptSent) -> Json:
    """What send_prompt gives."""
    return {
        "proof": sent.proof,
        "retried": sent.retried,
        "queued": sent.queued,
        "cursor": sent.cursor,
        "waited": round(sent.waited, 3),
    }


def answered(done: Answered) -> Json:
    """What answer gives."""
    return {
        "question": done.question,
        "option": done.option,
        "state": done.state.value,
        "next": None if done.next is None else question(done.next),
        "cursor": done.cursor,
    }
