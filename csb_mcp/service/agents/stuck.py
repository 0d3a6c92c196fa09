"""Whether an agent goes in circles: evidence, and what could be done. Plain computation."""

import re
from collections.abc import Iterable, Mapping, Sequence

from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentState, AgentView, Message

REPEATS = 5  # of one call with the same arguments, one after another
STILL_SECONDS = 300.0
STILL_TOKENS = 20_000
ERROR_SECONDS = 120.0
_CALL = 200
# What a screen that stands still changes all the same: times, counters, spinners.
_MOVING = re.compile(r"[\d.,]+|[·✢✳✶✻✽\u2217*⠀-⣿|/\\-]")

Stuck = Mapping[str, str]
"""Data of an event: ``why``, ``evidence`` and ``suggestion``."""


class Circles:
    """Each way of being stuck is told once, until there is something else."""

    def __init__(self) -> None:
        self._call: tuple[str, str] | None = None
        self._repeats = 0
        self._shown: tuple[str, ...] = ()
        self._still_since = self._still_tokens = 0.0
        self._told: set[str] = set()

    def calls(self, messages: Iterable[Message]) -> Stuck | None:
        """Take in what it calls."""
        found: Stuck | None = None
        for message in messages:
            for call in message.tools:
                found = self._called(call) or found
        return found

    def _called(self, call: tuple[str, str]) -> Stuck | None:
        if call != self._call:
            self._call, self._repeats = call, 0
        self._repeats += 1
        if self._repeats != REPEATS:
            return None
        return {
            "why": "repeats",
            "evidence": one_line(f"{REPEATS} times {call[0]} {call[1]}", _CALL),
            "suggestion": "interrupt it (send_keys Escape) and tell it what to do instead",
        }

    def screen(self, rows: Sequence[str], tokens: int, now: float) -> None:
        """Take in what it shows."""
        shown = tuple(text for row in rows if (text := _MOVING.sub("", row).strip()))
        if shown != self._shown or not self._still_since:
            self._shown, self._still_since, self._still_tokens = shown, now, tokens
            self._told.discard("still")

    def look(self, view: AgentView, tokens: int, now: float) -> Stuck | None:
        """Whether it is stuck by time alone."""
        burnt = tokens - self._still_tokens
        still = now - self._still_since
        if view.state is not AgentState.ERROR:
            self._told.discard("error")
        elif now - view.since > ERROR_SECONDS:
            words = view.fault.words if view.fault is not None else "see its screen"
            hint = view.fault.hint if view.fault is not None else "observe it"
            return self._once("error", words, hint)
        if view.state is AgentState.WORKING and still > STILL_SECONDS and burnt > STILL_TOKENS:
            words = f"{burnt:.0f} tokens in {still:.0f} s, and its screen shows nothing new"
            return self._once("still", words, "look at its screen; interrupt it, or stop it")
        return None

    def _once(self, why: str, evidence: str, suggestion: str) -> Stuck | None:
        if why in self._told:
            return None
        self._told.add(why)
        return {"why": why, "evidence": one_line(evidence, _CALL), "suggestion": suggestion}
