"""Calls to the agent inside a sandbox: what it does, what it is told, what it is answered."""

import asyncio
import logging
import time

from csb_mcp.errors import Conflict, CsbError, InvalidInput
from csb_mcp.model import (
    MAX_TEXT,
    AgentState,
    AgentUsage,
    AgentView,
    Answered,
    Observation,
    PromptSent,
    Sandbox,
)
from csb_mcp.service.agents.ledger import Ledger
from csb_mcp.service.agents.prompts import (
    PROVED_SECONDS,
    check_ready,
    choose,
    settled,
    submit,
    until_ready,
)
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.calls import answering
from csb_mcp.service.console import Console
from csb_mcp.service.registry import Live

_log = logging.getLogger(__name__)
_SECONDS = 45.0  # beyond which nobody waits for an answer: clients cut calls
_MAX_QUEUED = 16
_PATIENCE = 24 * 3600.0  # for a turn, until what is queued behind it is given up


class Supervision(Console):
    """The agent; see :class:`~csb_mcp.ports.SandboxService`."""

    async def observe(self, sandbox: str, *, cursor: str | None) -> Observation:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        terminal = await self.read_terminal(sandbox, cursor=cursor, lines=None)
        record = self._registry.find(sandbox)
        live = self._registry.live.get(record.id)
        watch = None if live is None else live.agent
        return Observation(
            record=record,
            agent=_without(record) if watch is None else watch.view,
            usage=self._counted(record) if watch is None else watch.usage,
            terminal=terminal,
            queued=0 if watch is None else watch.queued,
        )

    def _counted(self, record: Sandbox) -> AgentUsage:
        """What its proxy counted is known of one that has ended, and of a shell."""
        kept = record.counted
        return Ledger(self._settings.prices, None if kept is None else kept.whole).usage

    async def send_prompt(self, sandbox: str, text: str, *, queue: bool) -> PromptSent:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if not text.strip() or len(text) > MAX_TEXT:
            raise InvalidInput(f"give 1 to {MAX_TEXT} characters", field="text")
        live = self._registry.active(sandbox)
        watch, began = watch_of(live), time.monotonic()
        if queue and (watch.queued or watch.speaking.locked() or not _ready(live, watch)):
            return await self._queue(live, watch, text)
        async with answering(live, _SECONDS + PROVED_SECONDS), watch.speaking:
            before = await watch.look()
            await settled(watch)
            check_ready(live, watch)
            cursor = self._cursor(live, before)
            source, retried = await submit(live, watch, text)
        waited = time.monotonic() - began
        return PromptSent(proof=source.value, retried=retried, cursor=cursor, waited=waited)

    async def _queue(self, live: Live, watch: AgentWatch, text: str) -> PromptSent:
        if watch.queued >= _MAX_QUEUED:
            raise Conflict(
                f"{_MAX_QUEUED} prompts are queued already",
                sandbox=live.id,
                hint="wait until some were submitted",
            )
        async with answering(live):
            cursor = self._cursor(live, await live.terminal.rows(None))
        watch.queued += 1
        task = asyncio.create_task(self._when_ready(live, watch, text))
        live.tasks.add(task)
        task.add_done_callback(live.tasks.discard)
        return PromptSent(proof="", retried=False, cursor=cursor, waited=0.0, queued=True)

    async def _when_ready(self, live: Live, watch: AgentWatch, text: str) -> None:
        """One after another, for the lock is fair. What came of it is told by an event."""
        try:
            async with watch.speaking:
                await _patiently(live, watch)
                source, _ = await submit(live, watch, text)
            await self._events.publish(live.id, "prompt_submitted", proof=source.value)
        except CsbError as error:
            _log.warning("sandbox %s: a queued prompt was not submitted: %s", live.id, error)
            await self._events.publish(live.id, "prompt_failed", reason=error.message)
        finally:
            watch.queued -= 1

    async def answer(
        self, sandbox: str, question: str, option: str, *, text: str | None
    ) -> Answered:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        live = self._registry.active(sandbox)
        watch = watch_of(live)
        async with answering(live, _SECONDS), watch.answering:
            cursor = self._cursor(live, await live.terminal.rows(None))
            await choose(live, watch, question, option, text)
        view = watch.view
        return Answered(
            question=question,
            option=option,
            state=view.state,
            next=watch.screen.question,
            cursor=cursor,
        )


async def _patiently(live: Live, watch: AgentWatch) -> None:
    """Until it is ready, whatever it asks or stops at meanwhile: somebody answers that."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return await until_ready(live, watch, deadline - time.monotonic())
        except Conflict:
            seen = watch.news.count
            if time.monotonic() > deadline:
                raise
            await watch.news.beyond(seen)


def _ready(live: Live, watch: AgentWatch) -> bool:
    try:
        check_ready(live, watch)
    except Conflict:
        return False
    return True


def _without(record: Sandbox) -> AgentView:
    """Of a sandbox that nobody watches: a shell, or one that has ended."""
    state, since = record.agent_state, record.ended_at or record.created_at
    known = state if record.state.ended or state is AgentState.NONE else AgentState.UNKNOWN
    return AgentView(state=known, since=since)
