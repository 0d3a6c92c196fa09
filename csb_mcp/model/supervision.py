"""What a supervisor is told of the agent inside: its state, what it used, and proofs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from csb_mcp.model.agent import AgentFault, AgentState, Evidence, ModelUsage, Question
from csb_mcp.model.counted import Counted
from csb_mcp.model.sandbox import Sandbox
from csb_mcp.model.terminal import TerminalView

_NOTHING = ModelUsage()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentUsage:
    """What the agent used, by its transcripts: the sandbox's word; and what its proxy counted.

    ``cost`` is in US dollars by the price table; models in ``unpriced`` are not in it, so that it
    is then the least that it can be; ``unpriced_cost`` is theirs, by the dearest price known.
    ``turns`` counts prompts that were submitted. ``turn`` is what the last of them used so far,
    ``turn_cost`` its cost. ``counted``: what the egress proxy saw, with requests that no transcript
    has; None if it counts nothing here. ``counted_cost`` is its cost. What is bounded, or waited
    for, is the larger of the two.
    """

    models: Mapping[str, ModelUsage] = field(default_factory=dict[str, ModelUsage])
    cost: float = 0.0
    unpriced: tuple[str, ...] = ()
    unpriced_cost: float = 0.0
    turns: int = 0
    tool_calls: int = 0
    turn: ModelUsage = _NOTHING
    turn_cost: float = 0.0
    counted: Counted | None = None
    counted_cost: float = 0.0

    @property
    def total(self) -> ModelUsage:
        """Of all models, by the transcripts."""
        return sum(self.models.values(), _NOTHING)

    @property
    def tokens(self) -> int:
        """Of all kinds, by who says more."""
        return max(self.total.total, self.counted.tokens if self.counted else 0)

    @property
    def spent(self) -> float:
        """US dollars, by who says more: what budgets go by, so not too little."""
        return max(self.cost + self.unpriced_cost, self.counted_cost)

    @property
    def differs(self) -> bool:
        """Whether the two say something else."""
        return self.counted is not None and self.counted.tokens != self.total.total


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """What the agent does, since when, and each source's word for it, the best source first.

    ``state`` is what the sources together say; ``disputed`` names those that say something else.
    ``finished`` counts turns that ended.
    """

    state: AgentState
    since: float
    evidence: tuple[Evidence, ...] = ()
    question: Question | None = None
    fault: AgentFault | None = None
    finished: int = 0

    @property
    def disputed(self) -> tuple[Evidence, ...]:
        """Sources that understood something, and something else than ``state``."""
        return tuple(e for e in self.evidence if e.says not in (self.state, AgentState.UNKNOWN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Answer of observe. ``queued``: prompts that wait until it is ready."""

    record: Sandbox
    agent: AgentView
    usage: AgentUsage
    terminal: TerminalView
    queued: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedPrompt:
    """A prompt that waits for its turn.

    ``typed`` is None until its first key is about to be typed; then it tells how many prompts the
    transcripts had at that time.
    """

    id: int
    sandbox: str
    text: str
    created: float
    typed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSent:
    """Answer of send_prompt.

    ``proof`` is the source that showed the prompt submitted, ``hook`` or ``transcript``; empty if
    it was queued. ``retried``: Enter was pressed once more. ``cursor``: from before it.
    """

    proof: str
    retried: bool
    cursor: str
    waited: float
    queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Answer of answer: the question is gone from the screen; what the agent does then."""

    question: str
    option: str
    state: AgentState
    next: Question | None
    cursor: str
