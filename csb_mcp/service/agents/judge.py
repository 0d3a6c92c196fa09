"""From what an agent's sources told to its state, turns, usage, and events. It reads no source."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from csb_mcp.config import Price
from csb_mcp.model import (
    AgentFault,
    AgentState,
    AgentUsage,
    AgentView,
    Evidence,
    HookFact,
    Rows,
    ScreenFact,
    Source,
    Transcript,
)
from csb_mcp.service.agents.careful import NOT_UNDERSTOOD
from csb_mcp.service.agents.changes import Change, changes, turn_finished
from csb_mcp.service.agents.fusion import GRACE, by_hook, by_screen, by_transcript, fused, kept
from csb_mcp.service.agents.ledger import Ledger
from csb_mcp.service.agents.stuck import Circles, Stuck
from csb_mcp.service.agents.turns import Turns

_CHANGES = 64  # kept for whoever publishes them
_BUSY = (AgentState.WORKING, AgentState.QUESTION)
_OVER = (AgentState.READY, AgentState.ERROR)


class Judge:
    """Whoever gave it something has it :meth:`settle` then.

    ``screen``: what the last reading of the terminal gave. ``changes``: events to publish, oldest
    first.
    """

    def __init__(self, prices: Mapping[str, Price]) -> None:
        self._ledger = Ledger(prices)
        self._circles = Circles()
        self._hook: Evidence | None = None
        self._hook_at = self._looked = 0.0
        self._transcript: Evidence | None = None
        self._on_screen: Evidence | None = None
        self._fault: AgentFault | None = None
        self.turns = Turns()
        self.screen = NOT_UNDERSTOOD
        self.view = AgentView(state=AgentState.STARTING, since=time.time())
        self.usage = AgentUsage()
        self.changes: deque[Change] = deque(maxlen=_CHANGES)

    def hook(self, fact: HookFact) -> None:
        """Take in what a hook told."""
        now = time.time()
        if fact.kind == "prompt":
            self._ledger.by_hook += 1
            self._begin_turn()
        if (evidence := by_hook(fact, now)) is not None:
            self._hook, self._hook_at = kept(self._hook, evidence), now
        if fact.kind in ("finished", "failed"):
            self.turns.end(fact.text, now)

    def transcript(self, found: Transcript) -> None:
        """Take in what is new in the transcripts."""
        self._ledger.by_transcript += len(found.prompts)
        self._ledger.add(found.messages)
        self._tell_stuck(self._circles.calls(found.messages))
        if any(message.turn_over for message in found.messages):
            self.turns.written()
        if (evidence := by_transcript(found, time.time())) is not None:
            self._transcript = kept(self._transcript, evidence)
        if found.faults:
            self._fault = found.faults[-1]

    def look(self, rows: Rows, fact: ScreenFact) -> None:
        """Take in a screen, and what is understood of it."""
        self.screen, now = fact, time.time()
        self._circles.screen([text for _, text in rows.rows], self.usage.total.total, now)
        self._on_screen, self._looked = kept(self._on_screen, by_screen(fact, now)), now

    def settle(self) -> None:
        """Judge anew."""
        now, before = time.time(), self.view
        by = self._fused(now)
        if by.says is AgentState.UNKNOWN and before.state is AgentState.STARTING:
            by = replace(by, says=AgentState.STARTING)
        self._turns_by_state(by, now)
        state = by.says
        self.view = replace(
            before,
            state=state,
            since=before.since if state is before.state else now,
            evidence=self._evidence(),
            question=self.screen.question if state is AgentState.QUESTION else None,
            fault=(self.screen.fault or self._fault) if state is AgentState.ERROR else None,
            finished=self.turns.finished,
        )
        self.usage = self._ledger.usage
        self.changes.extend(changes(before, self.view, by))
        self._tell_stuck(self._circles.look(self.view, self.usage.total.total, now))

    def tell_ends(self) -> bool:
        """Note what there is to tell of turns that ended; whether there was any."""
        ends = self.turns.due(time.time())
        self.changes.extend(turn_finished(said, self.usage) for said in ends)
        return bool(ends)

    def _begin_turn(self) -> None:
        self._fault = None
        self.turns.begin()
        self._ledger.begin()

    def _evidence(self) -> tuple[Evidence, ...]:
        all_of_it = (self._hook, self._transcript, self._on_screen)
        return tuple(one for one in all_of_it if one is not None)

    def _fused(self, now: float) -> Evidence:
        screen = self._on_screen
        # Between two tools an input line may stand alone for a moment.
        idle = screen is not None and screen.says is AgentState.READY
        if self.turns.on and idle and screen is not None and now - screen.since < GRACE:
            screen = None
        return fused(
            self._hook,
            self._transcript,
            screen,
            hook_at=self._hook_at,
            looked=self._looked,
            now=now,
        )

    def _turns_by_state(self, by: Evidence, now: float) -> None:
        """Where hooks are silent: turns that were interrupted, or an agent without any."""
        if by.source is Source.HOOK:
            return
        if by.says in _BUSY and not self.turns.on:
            self._begin_turn()
        elif by.says in _OVER and self.turns.on and now - self._hook_at > GRACE:
            self.turns.end("", now)

    def _tell_stuck(self, stuck: Stuck | None) -> None:
        if stuck is not None:
            self.changes.append(("stuck", stuck))
