"""The watch over one agent: takes in hooks, transcripts and the screen, and says what it does.

Whoever waits for something of the agent waits for ``news`` and looks at ``view`` and ``usage``.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace

from csb_mcp.config import Price
from csb_mcp.errors import CsbError
from csb_mcp.lib.pulse import Pulse, beat_within
from csb_mcp.lib.text import one_line
from csb_mcp.lib.threads import to_its_end
from csb_mcp.model import (
    AgentFault,
    AgentState,
    AgentUsage,
    AgentView,
    Counted,
    Evidence,
    HookFact,
    Question,
    Rows,
    ScreenFact,
    Source,
    Transcript,
)
from csb_mcp.ports import Agent, Spool, Terminal, Transcripts
from csb_mcp.service.agents.fusion import GRACE, by_hook, by_screen, by_transcript, fused, kept
from csb_mcp.service.agents.ledger import Ledger
from csb_mcp.service.agents.proof import Proof
from csb_mcp.service.agents.stuck import Circles, Stuck

_log = logging.getLogger(__name__)
_TICK = 0.5  # a look at the transcripts, and a new judgement, without a beat
_SLOW_TICK = 2.0  # a look at screen and spool, of which there is word if they change
_SCREEN_PAUSE = 0.05  # between two readings of a screen that changes all the time
_TRANSCRIPT_PAUSE = 0.25
_FLOOD_PAUSE = 0.5
_LATE = 1.0  # a transcript may lag behind the hook that tells of a turn's end
_READS = 256  # of 1 MiB, one after another
_CHANGES = 64  # kept for whoever publishes them
_TEXT = 500
_QUIET = "nothing that is understood"
_BUSY = (AgentState.WORKING, AgentState.QUESTION)
_OVER = (AgentState.READY, AgentState.ERROR)
_UNKNOWN = ScreenFact(state=AgentState.UNKNOWN)

Change = tuple[str, Mapping[str, str]]
"""Kind and data of an event."""


class AgentWatch:
    """See the module. ``changes``: events to publish, oldest first. :meth:`close` ends nothing.

    ``screen``: what the last reading of the terminal gave. ``speaking``: held by whoever
    types a prompt, ``answering`` by whoever answers. ``queued``: prompts that wait for their turn.
    ``under_way``: requests to the model that the proxy has seen, and not yet the whole answer.
    """

    def __init__(
        self,
        agent: Agent,
        terminal: Terminal,
        spool: Spool,
        transcripts: Transcripts,
        prices: Mapping[str, Price],
    ) -> None:
        self.agent = agent
        self._terminal = terminal
        self._spool = spool
        self._transcripts = transcripts
        self._ledger = Ledger(prices)
        self._circles = Circles()
        self._hook: Evidence | None = None
        self._hook_at = self._looked = 0.0
        self._transcript: Evidence | None = None
        self._on_screen: Evidence | None = None
        self._fault: AgentFault | None = None
        self._reading = asyncio.Lock()
        self._turn = False
        self._ended: list[str] = []  # what was said at the end of turns not yet told of
        self._ended_at = 0.0
        self._whole = False  # the transcript has the end of the turn
        self.screen = _UNKNOWN
        self.view = AgentView(state=AgentState.STARTING, since=time.time())
        self.usage = AgentUsage()
        self.under_way = 0
        self.news = Pulse()
        self.changes: deque[Change] = deque(maxlen=_CHANGES)
        self.proof = Proof(agent.is_prompt)
        self.speaking = asyncio.Lock()
        self.answering = asyncio.Lock()
        self.queued = 0

    @property
    def in_turn(self) -> bool:
        """A turn has begun and not ended."""
        return self._turn

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_hooks())
                group.create_task(self._follow_screen())
                group.create_task(self._follow_transcripts())
        finally:
            self.close()

    def count(self, counted: Counted, under_way: int) -> None:
        """Take in what the proxy counted, of all so far."""
        self._ledger.counted, self.under_way = counted, under_way
        self.usage = self._ledger.usage
        self.news.beat()

    def close(self) -> None:
        """Let go of what it reads. Idempotent."""
        self._spool.close()
        self._transcripts.close()

    async def _follow_hooks(self) -> None:
        while True:
            seen = self._spool.news.count
            contents, flood = await self._spool.take()
            if contents:
                await self._take_hooks(contents)
                await self.read_transcripts()
            if flood:
                _log.warning("an agent's spool is flooded; the oldest files are passed over")
                await asyncio.sleep(_FLOOD_PAUSE)
            await beat_within(self._spool.news, seen, _SLOW_TICK)

    async def _take_hooks(self, contents: Iterable[bytes]) -> None:
        for content in contents:
            if (fact := self._heard(content)) is not None:
                self._take_hook(fact)
            await asyncio.sleep(0)  # whoever fills the spool does not fill our time
        self._refresh()

    def _take_hook(self, fact: HookFact) -> None:
        now = time.time()
        if fact.kind == "prompt":
            self._ledger.by_hook += 1
            self._begin_turn()
            self.proof.saw(Source.HOOK, fact.text)
        if (evidence := by_hook(fact, now)) is not None:
            self._hook, self._hook_at = kept(self._hook, evidence), now
        if fact.kind in ("finished", "failed"):
            self._end_turn(fact.text)

    async def _follow_screen(self) -> None:
        while True:
            seen = self._terminal.output.count
            try:
                await self.look()
            except CsbError as error:  # it ends, or it is so busy that it does not answer
                _log.debug("a terminal was not read: %s", error)
                await asyncio.sleep(_TICK)
            await asyncio.sleep(_SCREEN_PAUSE)
            await beat_within(self._terminal.output, seen, _SLOW_TICK)

    async def look(self) -> Rows:
        """Read the screen as it is now, and take it in. Raises TerminalFailed."""
        rows = await self._terminal.rows(None)
        self.screen = self._understood(rows)
        now = time.time()
        self._circles.screen([text for _, text in rows.rows], self.usage.total.total, now)
        self._on_screen, self._looked = kept(self._on_screen, by_screen(self.screen, now)), now
        self._refresh()
        return rows

    async def _follow_transcripts(self) -> None:
        while True:
            await self.read_transcripts()
            await asyncio.sleep(_TRANSCRIPT_PAUSE)
            await beat_within(self._terminal.output, self._terminal.output.count, _TICK)

    async def read_transcripts(self) -> None:
        """Take in all that is new in them."""
        async with self._reading:
            for _ in range(_READS):
                found = await to_its_end(self._read)
                if not (found.messages or found.prompts or found.faults):
                    break
                self._take_transcript(found)
        self._refresh()
        self._tell_ends()

    # An adapter never raises, it is said. But what it reads is made by somebody hostile, and a
    # watch that ended by it would see nothing any more.

    def _heard(self, content: bytes) -> HookFact | None:
        try:
            return self.agent.hook(content)
        except Exception:  # noqa: BLE001 - logged
            _log.exception("a hook was not understood")
            return None

    def _read(self) -> Transcript:
        try:
            return self._transcripts.read()
        except Exception:  # noqa: BLE001 - logged
            _log.exception("a transcript was not understood")
            return Transcript()

    def _understood(self, rows: Rows) -> ScreenFact:
        try:
            return self.agent.screen([text for _, text in rows.rows])
        except Exception:  # noqa: BLE001 - logged
            _log.exception("a screen was not understood")
            return _UNKNOWN

    def _take_transcript(self, found: Transcript) -> None:
        now = time.time()
        self._ledger.by_transcript += len(found.prompts)
        self._ledger.add(found.messages)
        self._tell_stuck(self._circles.calls(found.messages))
        self._whole = self._whole or any(message.turn_over for message in found.messages)
        for prompt in found.prompts:
            self.proof.saw(Source.TRANSCRIPT, prompt)
        if (evidence := by_transcript(found, now)) is not None:
            self._transcript = kept(self._transcript, evidence)
        if found.faults:
            self._fault = found.faults[-1]

    def _begin_turn(self) -> None:
        self._turn, self._fault, self._whole = True, None, False
        self._ledger.begin()

    def _end_turn(self, said: str) -> None:
        if self._turn:
            self._turn, self._ended_at = False, time.time()
            self._ended.append(one_line(said, _TEXT))
            self.view = replace(self.view, finished=self.view.finished + 1)

    def _refresh(self) -> None:
        now, before = time.time(), self.view
        found = self._fused(now)
        if found.says is AgentState.UNKNOWN and before.state is AgentState.STARTING:
            found = replace(found, says=AgentState.STARTING)
        self._turns_by_state(found, now)
        state, same = found.says, found.says is before.state
        question = self.screen.question if state is AgentState.QUESTION else None
        fault = (self.screen.fault or self._fault) if state is AgentState.ERROR else None
        self.view = replace(
            self.view,
            state=state,
            since=before.since if same else now,
            evidence=self._evidence(),
            question=question,
            fault=fault,
        )
        self.usage = self._ledger.usage
        self._note_changes(before, found)
        self._tell_stuck(self._circles.look(self.view, self.usage.total.total, now))
        self.news.beat()

    def _evidence(self) -> tuple[Evidence, ...]:
        all_of_it = (self._hook, self._transcript, self._on_screen)
        return tuple(one for one in all_of_it if one is not None)

    def _fused(self, now: float) -> Evidence:
        screen = self._on_screen
        # Between two tools an input line may stand alone for a moment.
        idle = screen is not None and screen.says is AgentState.READY
        if self._turn and idle and screen is not None and now - screen.since < GRACE:
            screen = None
        return fused(
            self._hook,
            self._transcript,
            screen,
            hook_at=self._hook_at,
            looked=self._looked,
            now=now,
        )

    def _turns_by_state(self, found: Evidence, now: float) -> None:
        """Where hooks are silent: turns that were interrupted, or an agent without any."""
        if found.source is Source.HOOK:
            return
        if found.says in _BUSY and not self._turn:
            self._begin_turn()
        elif found.says in _OVER and self._turn and now - self._hook_at > GRACE:
            self._end_turn("")

    def _note_changes(self, before: AgentView, found: Evidence) -> None:
        now = self.view
        if now.state is not before.state:
            data = {"state": now.state.value, "before": before.state.value}
            data |= {"source": found.source.value, "detail": found.detail or _QUIET}
            self.changes.append(("agent_state", data))
            if now.state is AgentState.ERROR:
                self.changes.append(("agent_error", _fault_data(now.fault, found)))
        if now.question is not None and now.question.id != _id(before.question):
            self.changes.append(("question", _question_data(now.question)))

    def _tell_stuck(self, stuck: Stuck | None) -> None:
        if stuck is not None:
            self.changes.append(("stuck", stuck))

    def _tell_ends(self) -> None:
        """Once the transcript has all of it, which may come after the hook, or never."""
        if self._ended and not self._whole and time.time() - self._ended_at < _LATE:
            return
        ended, self._ended = self._ended, []
        for said in ended:
            used, spent = self.usage.turn.total, f"{self.usage.turn_cost:.4f}"
            self.changes.append(
                ("turn_finished", {"said": said, "tokens": str(used), "cost": spent})
            )
        if ended:
            self.news.beat()


def _id(question: Question | None) -> str:
    return "" if question is None else question.id


def _question_data(question: Question) -> Mapping[str, str]:
    options = "; ".join(f"{option.key}: {option.label}" for option in question.options)
    words = {"tool": question.tool, "detail": question.detail, "options": options}
    words = {key: one_line(text, _TEXT) for key, text in words.items() if text}
    return {"id": question.id, "kind": question.kind, **words}


def _fault_data(fault: AgentFault | None, found: Evidence) -> Mapping[str, str]:
    if fault is None:
        return {"kind": "other", "words": found.detail, "hint": "look at its screen"}
    return {"kind": fault.kind, "words": one_line(fault.words, _TEXT), "hint": fault.hint}
