"""Whether an agent goes in circles: evidence, and what could be done. Plain computation.

An agent that thinks, waits for an answer or runs a long command is not stuck: none of these asks
its model again and again. One that does so moves if its screen shows something new, if it calls a
tool as it did not lately, or if a file of the project changes; files are looked at only once
nothing else moved for long, so that nobody has to watch them.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentFault, AgentState, AgentView, Message

REPEATS = 5  # of one call with the same arguments, one after another
STILL_SECONDS = 300.0
STILL_TOKENS = 20_000
STILL_MESSAGES = 5  # of its model: one thought, however long, is one
ERROR_SECONDS = 120.0
_DRAWN_SECONDS = 2.0  # in which its screen shows what a transcript told of
_BETWEEN_SECONDS = 10.0  # without an error, for a moment, when it tries again
_CALL = 200
_RECENT = 64  # calls that are known
# What a screen that stands still changes all the same: times, counters, spinners.
_MOVING = re.compile(r"[\d.,]+|[·✢✳✶✻✽\u2217*⠀-⣿|/\\-]")

Stuck = Mapping[str, str]
"""Data of an event: ``why``, ``evidence`` and ``suggestion``."""


class Circles:
    """Each way of being stuck is told once, until there is something else.

    ``told``: those that were; ``call`` and ``repeats``: its last call, and how often that came;
    ``shown``: what its screen showed when it was told that it stands still. A new daemon gives what
    the one before it knew.
    """

    def __init__(self, told: Iterable[str] = (), shown: str = "") -> None:
        self.call = ""
        self.repeats = 0
        self.told = set(told)
        self.shown = shown
        self._recent = OrderedDict[str, None]()
        self._tokens = self._still_tokens = 0
        self._still_since = self._enough_at = 0.0
        self._messages = 0
        self._bad_since = self._bad_at = 0.0

    def calls(self, messages: Iterable[Message], now: float) -> Stuck | None:
        """Take in what it says and calls."""
        found: Stuck | None = None
        for message in messages:
            self._messages += 1
            if self._messages == STILL_MESSAGES:
                self._enough_at = now
            for name, arguments in message.tools:
                found = self._called(f"{name} {arguments}", now) or found
        return found

    def _called(self, call: str, now: float) -> Stuck | None:
        name = _digest(call)
        if name not in self._recent:
            self._move(now)
            self._recent[name] = None
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        self.repeats = self.repeats + 1 if name == self.call else 1
        self.call = name
        return _repeats(self.repeats, call) if self.repeats == REPEATS else None

    def known(self, call: str, repeats: int) -> Stuck | None:
        """What was called so far is known now, and what another daemon knew of it."""
        if self.repeats >= REPEATS and not (call == self.call and repeats >= REPEATS):
            return _repeats(self.repeats, "the same call")
        return None

    def screen(self, rows: Sequence[str], now: float) -> None:
        """Take in what it shows."""
        shown = _digest("\n".join(text for row in rows if (text := _MOVING.sub("", row).strip())))
        if shown != self.shown:
            self.shown = shown
            self._move(now)

    def _move(self, now: float) -> None:
        self._still_since, self._still_tokens, self._messages = now, self._tokens, 0
        self.told.discard("still")

    def look(
        self, view: AgentView, banner: AgentFault | None, tokens: int, now: float
    ) -> Stuck | None:
        """Whether an error stays. ``banner``: the one on its screen, also while it tries again."""
        self._tokens = tokens
        if view.state is not AgentState.WORKING:
            self._move(now)
        elif not self._still_since:  # a new daemon's first look, and nothing new
            self._still_since, self._still_tokens = now, tokens
        fault = view.fault or banner
        if view.state is AgentState.ERROR or banner is not None:
            self._bad_since = self._bad_since or now
            self._bad_at = now
        elif view.state is AgentState.READY or now - self._bad_at > _BETWEEN_SECONDS:
            self._bad_since = 0.0
            self.told.discard("error")
        since = view.since if view.state is AgentState.ERROR else self._bad_since
        if not since or not self._bad_since or now - since <= ERROR_SECONDS:
            return None
        words = fault.words if fault is not None else "see its screen"
        hint = fault.hint if fault is not None else "observe it"
        return self._once("error", words, hint)

    def suspicion(self, view: AgentView, now: float) -> float | None:
        """Since when nothing but files may have moved, if that is suspicious."""
        still = (
            view.state is AgentState.WORKING
            and now - self._still_since > STILL_SECONDS
            and self._tokens - self._still_tokens > STILL_TOKENS
            and self._messages >= STILL_MESSAGES
            and now - self._enough_at > _DRAWN_SECONDS
            and "still" not in self.told
        )
        return self._still_since if still else None

    def files(self, now: float, *, changed: bool) -> Stuck | None:
        """Take in what became of the suspicion."""
        if changed:
            self._move(now)
            return None
        burnt, still = self._tokens - self._still_tokens, now - self._still_since
        words = (
            f"{self._messages} answers of its model and {burnt} tokens in {still:.0f} s: no file of"
            " the project changed, no call was new, its screen stood still"
        )
        return self._once("still", words, "look at its screen; interrupt it, or stop it")

    def _once(self, why: str, evidence: str, suggestion: str) -> Stuck | None:
        if why in self.told:
            return None
        self.told.add(why)
        return {"why": why, "evidence": one_line(evidence, _CALL), "suggestion": suggestion}


def _repeats(count: int, call: str) -> Stuck:
    return {
        "why": "repeats",
        "evidence": one_line(f"{count} times {call}", _CALL),
        "suggestion": "interrupt it (send_keys Escape) and tell it what to do instead",
    }


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=12).hexdigest()
