"""From what an agent's sources told to its state, turns, usage, and events. It reads no source."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from csb_mcp.config import Price
from csb_mcp.model import (
    AgentFault,
    AgentState,
    AgentView,
    Counted,
    Evidence,
    HookFact,
    Rows,
    ScreenFact,
    Source,
    Transcript,
)
from csb_mcp.service.agents.careful import NOT_UNDERSTOOD
from csb_mcp.service.agents.changes import Change, agent_error, changes, turn_finished
from csb_mcp.service.agents.fusion import GRACE, OLD, by_hook, by_screen, by_transcript, fused, kept
from csb_mcp.service.agents.ledger import Ledger
from csb_mcp.service.agents.memory import Memory
from csb_mcp.service.agents.stuck import Circles, Stuck
from csb_mcp.service.agents.turns import LATE, Turns

_ABOUT = 100  # characters that tell one call of a tool from another
_CHANGES = 64  # kept for whoever publishes them
_BUSY = (AgentState.WORKING, AgentState.QUESTION)
_OVER = (AgentState.READY, AgentState.ERROR)


class Judge:
    """Whoever gave it something has it :meth:`settle` then.

    ``screen``: what the last reading of the terminal gave. ``changes``: events to publish, oldest
    first. Until :meth:`caught_up`, transcripts tell what was before: it is counted, no more.
    """

    def __init__(self, prices: Mapping[str, Price], memory: Memory) -> None:
        self._before = memory
        self._ledger = Ledger(prices, memory.books)
        self._past: Ledger | None = Ledger(prices)
        self._circles = Circles(memory.stuck, memory.shown)
        self._hook = memory.hook
        self._hook_at, self._looked, self._drawn = memory.hook_at, 0.0, 0.0
        self._generation = -1
        self._asks = ("", "")  # the tool that a hook asked about, and what it shall do
        self._answered_at = 0.0
        self._transcript = memory.transcript
        self._last: Evidence | None = None  # of what was before
        self._on_screen: Evidence | None = None
        self._fault: AgentFault | None = None
        self._failed: Evidence | None = None  # by which it stopped at an error, not told of yet
        self._asked = memory.asked
        self.turns = Turns(on=memory.in_turn, finished=memory.finished)
        self.screen = NOT_UNDERSTOOD
        self.view = AgentView(state=memory.state, since=memory.since, finished=memory.finished)
        self.usage = self._ledger.usage
        self.changes: deque[Change] = deque(maxlen=_CHANGES)

    @property
    def memory(self) -> Memory:
        """For the next daemon, but for what others know."""
        circles, still = self._circles, "still" in self._circles.told
        past = self._past is not None
        return Memory(
            state=self.view.state,
            since=self.view.since,
            finished=self.turns.finished,
            in_turn=self.turns.on,
            asked=self._asked,
            hook=self._hook,
            hook_at=self._hook_at,
            transcript=self._transcript,
            books=self._ledger.books,
            call=self._before.call if past else circles.call,
            repeats=self._before.repeats if past else circles.repeats,
            stuck=frozenset(circles.told),
            shown=circles.shown if still else "",
        )

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
        about = fact.tool, fact.text[:_ABOUT]
        if fact.kind == "permission":
            self._asks = about
        elif fact.kind in ("finished", "failed") or about == self._asks:
            self._answered_at = now

    def transcript(self, found: Transcript) -> None:
        """Take in what is new in the transcripts."""
        now, ledger = time.time(), self._past or self._ledger
        ledger.by_transcript += len(found.prompts)
        ledger.add(found.messages)
        stuck, evidence = self._circles.calls(found.messages, now), by_transcript(found, now)
        if found.faults:
            self._fault = found.faults[-1]
        if self._past is not None:
            self._last = evidence or self._last
            return
        self._tell_stuck(stuck)
        if any(message.turn_over for message in found.messages):
            self.turns.written()
        if evidence is not None:
            self._transcript = kept(self._transcript, evidence)

    def count(self, counted: Counted) -> None:
        """Take in what the proxy counted, of all so far."""
        self._ledger.counted = counted
        self.usage = self._ledger.usage

    def caught_up(self) -> None:
        """All that was written before this daemon's time was given."""
        if self._past is None:
            return
        self._ledger.raise_to(self._past.books)
        self._past = None
        if self._last is not None:
            self._transcript = kept(self._transcript, self._last)
            if self._last.says is AgentState.READY:
                self.turns.written()
        if self._before.state is not AgentState.ERROR:
            self._fault = None
        self._tell_stuck(self._circles.known(self._before.call, self._before.repeats))

    def look(self, rows: Rows, fact: ScreenFact) -> None:
        """Take in a screen, and what is understood of it."""
        self.screen, now = fact, time.time()
        self._circles.screen([text for _, text in rows.rows], now)
        if rows.generation != self._generation:
            self._generation, self._drawn = rows.generation, now
        self._on_screen, self._looked = kept(self._on_screen, by_screen(fact, now)), now

    def settle(self) -> None:
        """Judge anew."""
        now, before = time.time(), self.view
        by = self._fused(now)
        # A screen that is understood, and held back for a moment, does not make it unknown.
        seen = self._on_screen is not None and self._on_screen.says is not AgentState.UNKNOWN
        waits = before.state is AgentState.STARTING or not self._looked or seen
        if by.says is AgentState.UNKNOWN and waits:
            by = replace(by, says=before.state)
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
        self.changes.extend(changes(before, self.view, by, self._asked))
        self._tell_error(before, by, now)
        self._asked = "" if self.view.question is None else self.view.question.id
        banner, tokens = self.screen.fault, self.usage.total.total
        self._tell_stuck(self._circles.look(self.view, banner, tokens, now))

    def _tell_error(self, before: AgentView, by: Evidence, now: float) -> None:
        """Once it is known which, which may be after the hook; or never."""
        entered = self.view.state is AgentState.ERROR
        if entered and before.state is not AgentState.ERROR:
            self._failed = by
        if self._failed is None:
            return
        if not entered or self.view.fault is not None or now - self.view.since > LATE:
            self.changes.append(agent_error(self.view.fault, self._failed))
            self._failed = None

    def tell_ends(self) -> bool:
        """Note what there is to tell of turns that ended; whether there was any."""
        return self._tell(self.turns.due(time.time()))

    def _tell(self, ends: Sequence[str]) -> bool:
        usage = self._ledger.usage if ends else self.usage
        self.changes.extend(turn_finished(said, usage) for said in ends)
        return bool(ends)

    def suspicion(self) -> float | None:
        """Since when it moves nothing, unless it be files; None if it is above suspicion."""
        return self._circles.suspicion(self.view, time.time())

    def files(self, *, changed: bool) -> None:
        """Take in whether files changed since then."""
        self._tell_stuck(self._circles.files(time.time(), changed=changed))

    def _begin_turn(self) -> None:
        self._fault = None
        self._tell(self.turns.ends())  # of the one before: what it used is told with it
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
        # One that was answered stands there until it is drawn over.
        asks = screen is not None and screen.says is AgentState.QUESTION
        if asks and self._drawn <= self._answered_at and now - self._answered_at < OLD:
            screen = None
        return fused(
            self._hook,
            self._transcript,
            screen,
            hook_at=self._hook_at,
            looked=self._looked,
            drawn=self._drawn,
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
