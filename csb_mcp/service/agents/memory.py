"""What a daemon knows of an agent that the next one could not find out, as text for the store.

Transcripts are read anew by each daemon, for the sandbox may have changed them; but nothing that
was used, ended or told of once is forgotten with them.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from csb_mcp.model import AgentState, Evidence, ModelUsage, Source
from csb_mcp.service.agents.ledger import Books

_log = logging.getLogger(__name__)

Told = frozenset[tuple[str, float, bool]]
"""Budgets of which it was told that they are nearly, or quite, used up: name, bound, quite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """See the module.

    ``asked``: id of the question that was told of last; ``call`` with ``repeats``: its last call of
    a tool, and how often that came one after another; ``stuck``: ways of being stuck that were
    told; ``shown``: the screen that stood still then.
    """

    state: AgentState
    since: float = field(default_factory=time.time)
    finished: int = 0
    in_turn: bool = False
    asked: str = ""
    hook: Evidence | None = None
    hook_at: float = 0.0
    transcript: Evidence | None = None
    books: Books = field(default_factory=Books)
    call: str = ""
    repeats: int = 0
    stuck: frozenset[str] = frozenset()
    shown: str = ""
    budgets: Told = frozenset()


def as_text(memory: Memory) -> str:
    """For the store."""
    return json.dumps(asdict(memory), default=sorted)


def from_text(text: str) -> Memory | None:
    """Back from text; None if another version wrote something else."""
    try:
        return _memory(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("what was kept of an agent cannot be read: %s", error)
        return None


def _memory(data: dict[str, Any]) -> Memory:
    books = data.pop("books")
    return Memory(
        state=AgentState(data.pop("state")),
        hook=_evidence(data.pop("hook")),
        transcript=_evidence(data.pop("transcript")),
        books=Books(**books | {name: _book(books[name]) for name in ("models", "turn")}),
        stuck=frozenset(data.pop("stuck")),
        budgets=frozenset((name, bound, full) for name, bound, full in data.pop("budgets")),
        **data,
    )


def _evidence(data: Mapping[str, Any] | None) -> Evidence | None:
    if data is None:
        return None
    source, says = Source(data["source"]), AgentState(data["says"])
    return Evidence(source=source, says=says, detail=data["detail"], since=data["since"])


def _book(data: Mapping[str, Mapping[str, int]]) -> dict[str, ModelUsage]:
    return {name: ModelUsage(**used) for name, used in data.items()}
