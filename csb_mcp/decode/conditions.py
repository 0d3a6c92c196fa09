"""What ``wait`` can wait for: objects with one key."""

from collections.abc import Callable, Mapping
from typing import cast

from csb_mcp.decode.values import (
    between,
    dollars,
    inner_path,
    list_items,
    named,
    one_of,
    short_text,
    shown,
    token,
    wait_timeout,
)
from csb_mcp.errors import InvalidInput
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    CostOver,
    EgressAsked,
    Exited,
    FileExists,
    PortOpen,
    QuestionAsked,
    ScreenChanged,
    ScreenStable,
    TerminalIdle,
    TerminalRegex,
    TerminalText,
    TokensOver,
    TurnFinished,
)

MAX_TOKENS = 10**12


AGENT_STATES = tuple(state.value for state in AgentState)


def conditions(value: object) -> tuple[Condition, ...]:
    """A list of 1 to 16 objects with one key each, the condition's kind."""
    items = list_items(value)
    if not 1 <= len(items) <= 16:
        raise InvalidInput(
            "give a list of 1 to 16 conditions", hint='For example [{"terminal_idle": 2}]'
        )
    return tuple(named(f"[{index}]", condition, item) for index, item in enumerate(items))


def condition(value: object) -> Condition:
    """One condition."""
    if not isinstance(value, Mapping) or len(cast("Mapping[str, object]", value)) != 1:
        raise InvalidInput("a condition is an object with one key", choices=tuple(_CONVERTERS))
    ((kind, argument),) = cast("Mapping[str, object]", value).items()
    if kind not in _CONVERTERS:
        raise InvalidInput(f"{shown(kind)} is not a condition", choices=tuple(_CONVERTERS))
    return named(f".{kind}", _CONVERTERS[kind], argument)


def condition_kind(value: Condition) -> str:
    """The key under which a condition is written."""
    return _KINDS[type(value)]


def _exited(value: object) -> Exited:
    _only_true(value)
    return Exited()


def _asked(value: object) -> EgressAsked:
    _only_true(value)
    return EgressAsked()


def _question(value: object) -> QuestionAsked:
    _only_true(value)
    return QuestionAsked()


def _turn(value: object) -> TurnFinished:
    _only_true(value)
    return TurnFinished()


def _only_true(value: object) -> None:
    if value is not True:
        raise InvalidInput("takes nothing but true")


_CONVERTERS: dict[str, Callable[[object], Condition]] = {
    "terminal_text": lambda value: TerminalText(short_text(value)),
    "terminal_regex": lambda value: TerminalRegex(short_text(value)),
    "terminal_idle": lambda value: TerminalIdle(wait_timeout(value)),
    "screen_changed": lambda value: ScreenChanged(token(value)),
    "screen_stable": lambda value: ScreenStable(wait_timeout(value)),
    "exited": _exited,
    "file": lambda value: FileExists(inner_path(value)),
    "port": lambda value: PortOpen(between(1, 65535)(value)),
    "egress_request": _asked,
    "agent_state": lambda value: AgentStateIs(AgentState(one_of(AGENT_STATES)(value))),
    "question": _question,
    "turn_finished": _turn,
    "tokens_over": lambda value: TokensOver(between(0, MAX_TOKENS)(value)),
    "cost_over": lambda value: CostOver(dollars(value)),
}
_KINDS: dict[type[Condition], str] = {
    TerminalText: "terminal_text",
    TerminalRegex: "terminal_regex",
    TerminalIdle: "terminal_idle",
    ScreenChanged: "screen_changed",
    ScreenStable: "screen_stable",
    Exited: "exited",
    FileExists: "file",
    PortOpen: "port",
    EgressAsked: "egress_request",
    AgentStateIs: "agent_state",
    QuestionAsked: "question",
    TurnFinished: "turn_finished",
    TokensOver: "tokens_over",
    CostOver: "cost_over",
}
CONDITIONS = tuple(_CONVERTERS)
"""All kinds of conditions."""
