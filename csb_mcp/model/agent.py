"""What an agent inside a sandbox is doing, by which evidence, and what it has used.

All of it comes from inside, so it is the sandbox's word: it steers attention, never permission.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class AgentState(StrEnum):
    """What the agent inside is doing."""

    NONE = "none"  # no adapter tells: a shell, or a command
    STARTING = "starting"
    READY = "ready"  # it waits for a prompt
    WORKING = "working"  # it thinks, or runs a tool
    QUESTION = "question"  # it waits for an answer
    ERROR = "error"  # it stopped at something that it cannot get over by itself
    EXITED = "exited"
    UNKNOWN = "unknown"  # nothing tells that an adapter understands: look at the screen


class Source(StrEnum):
    """Where evidence comes from, from the best to the weakest."""

    PROCESS = "process"  # whether it runs at all: the one thing that the sandbox cannot forge
    HOOK = "hook"
    TRANSCRIPT = "transcript"
    SCREEN = "screen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One source's word. ``says`` UNKNOWN: it was looked at, and not understood."""

    source: Source
    says: AgentState
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Option:
    """One answer that a question offers. ``key`` is how it is named in a call of ``answer``."""

    key: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the agent waits for. ``id`` changes when another question takes its place.

    ``kind`` is ``permission``, ``trust``, ``plan``, ``choice`` or ``text``. ``tool`` is the tool
    that wants to run, ``detail`` what it wants to do. ``free``: text may be given too. ``marked``:
    key of the option that Enter would take, if any.
    """

    id: str
    kind: str
    detail: str
    options: tuple[Option, ...]
    tool: str = ""
    free: bool = False
    marked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFault:
    """What it stopped at, in its words, and what to do next.

    ``kind``: ``rate_limit``, ``overloaded``, ``login``, ``billing``, ``network``, ``crashed``,
    ``disk_full``, ``api`` or ``other``.
    """

    kind: str
    words: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFact:
    """One hook of an agent, read.

    ``kind``: ``started``, ``prompt`` (one was submitted), ``tool``, ``tool_done``, ``permission``
    (it asks for one), ``notified``, ``finished`` (the turn is over), ``failed`` (so is it, by an
    error) or ``ended``. ``text``: the prompt, the message, or what the tool shall do;
    the beginning of it where it is long.
    """

    kind: str
    text: str = ""
    tool: str = ""
    transcript: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenFact:
    """A terminal's screen, read. ``state`` UNKNOWN: not understood, so no state is guessed.

    ``draft`` is what stands in the input line and was not submitted.
    """

    state: AgentState
    detail: str = ""
    question: Question | None = None
    fault: AgentFault | None = None
    draft: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """Tokens of one model, by kind."""

    input: int = 0
    output: int = 0
    cache_creation: int = 0
    cache_read: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.input + self.output + self.cache_creation + self.cache_read

    def __add__(self, other: "ModelUsage") -> "ModelUsage":
        return ModelUsage(
            input=self.input + other.input,
            output=self.output + other.output,
            cache_creation=self.cache_creation + other.cache_creation,
            cache_read=self.cache_read + other.cache_read,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of the model in a transcript, or what is new of it: its parts bear one ``id``.

    They add up: no tokens, tool or text come twice. ``tools`` are the tools that it calls, each
    with its arguments as one line. ``text`` is what it says. ``turn_over``: with it the turn ends.
    """

    id: str
    time: float
    model: str
    usage: ModelUsage
    tools: tuple[tuple[str, str], ...] = ()
    text: str = ""
    turn_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What a look at the transcripts found that is new. ``prompts``: submitted since.

    ``more``: something was read, whether it meant anything or not, so the next look may find more.
    """

    messages: tuple[Message, ...] = ()
    prompts: tuple[str, ...] = ()
    faults: tuple[AgentFault, ...] = field(default_factory=tuple[AgentFault, ...])
    more: bool = False
