"""What can be waited for, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from csb_mcp.model.agent import AgentState


@dataclass(frozen=True, slots=True)
class TerminalText:
    """The text stands on the terminal, or passed through it since the cursor."""

    text: str


@dataclass(frozen=True, slots=True)
class TerminalRegex:
    """A Python regular expression finds a match on one row."""

    pattern: str


@dataclass(frozen=True, slots=True)
class TerminalIdle:
    """Nothing was printed for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ScreenChanged:
    """The display differs from the named frame."""

    frame: str


@dataclass(frozen=True, slots=True)
class ScreenStable:
    """The display has not changed for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Exited:
    """The sandbox has ended."""


@dataclass(frozen=True, slots=True)
class FileExists:
    """A path exists inside (relative to the project)."""

    path: str


@dataclass(frozen=True, slots=True)
class PortOpen:
    """Something inside listens on this TCP port."""

    port: int


@dataclass(frozen=True, slots=True)
class EgressAsked:
    """A host was asked for that no rule names, and nobody has answered yet."""


@dataclass(frozen=True, slots=True)
class AgentStateIs:
    """The agent inside is in this state."""

    state: AgentState


@dataclass(frozen=True, slots=True)
class QuestionAsked:
    """The agent inside waits for an answer."""


@dataclass(frozen=True, slots=True)
class TurnFinished:
    """The agent inside has ended a turn, after this wait began or after the cursor."""


@dataclass(frozen=True, slots=True)
class TokensOver:
    """The agent inside has used more tokens than this, of all kinds together."""

    tokens: int


@dataclass(frozen=True, slots=True)
class CostOver:
    """What the agent inside has used costs more than this, in US dollars."""

    cost: float


Condition = (
    TerminalText
    | TerminalRegex
    | TerminalIdle
    | ScreenChanged
    | ScreenStable
    | Exited
    | FileExists
    | PortOpen
    | EgressAsked
    | AgentStateIs
    | QuestionAsked
    | TurnFinished
    | TokensOver
    | CostOver
)


@dataclass(frozen=True, slots=True)
class Match:
    """One condition that came true. ``index`` counts from 0 in the list that was given."""

    sandbox: str
    index: int
    evidence: str


@dataclass(frozen=True, slots=True)
class WaitResult:
    """``satisfied`` is False if the timeout passed first. ``cursors``: the next, by sandbox id."""

    satisfied: bool
    matches: tuple[Match, ...]
    cursors: Mapping[str, str]
    waited: float
