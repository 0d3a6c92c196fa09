"""Calls to the agent inside a sandbox: what it does, what it is told, what it is answered."""

import time

from csb_mcp.errors import Conflict, InvalidInput
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
from csb_mcp.service.agents.memory import from_text
from csb_mcp.service.agents.prompts import (
    PROVED_SECONDS,
    check_ready,
    choose,
    settled,
    submit,
)
from csb_mcp.service.agents.queue import GONE, give_up
from csb_mcp.service.agents.waits import watch_of
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.calls import answering, finish
from csb_mcp.service.console import Console
from csb_mcp.service.registry import Live

_SECONDS = 45.0  # beyond which nobody waits for an answer: clients cut calls


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
            usage=await self._usage_of(record) if watch is None else watch.usage,
            terminal=terminal,
            queued=0 if watch is None else len(watch.queue),
        )

    async def send_prompt(self, sandbox: str, text: str, *, queue: bool) -> PromptSent:
        """See :class:`~csb_mcp.ports.SandboxService`."""
        if not text.strip() or len(text) > MAX_TEXT:
            raise InvalidInput(f"give 1 to {MAX_TEXT} characters", field="text")
        live = self._registry.active(sandbox)
        watch, began = watch_of(live), time.monotonic()
        if queue and (len(watch.queue) or watch.speaking.locked() or not _ready(live, watch)):
            return await self._queue(live, watch, text)
        async with answering(live, _SECONDS + PROVED_SECONDS), watch.speaking:
            before = await watch.look()
            await settled(watch)
            if not queue:
                check_ready(live, watch)
            if _ready(live, watch):
                cursor = self._cursor(live, before)
                source, retried = await submit(live, watch, text)
                waited = time.monotonic() - began
                return PromptSent(proof=source.value, retried=retried, cursor=cursor, waited=waited)
        return await self._queue(live, watch, text)  # it was ready a moment ago

    async def _queue(self, live: Live, watch: AgentWatch, text: str) -> PromptSent:
        async with answering(live):
            cursor = self._cursor(live, await live.terminal.rows(None))
        await finish(watch.queue.put(text))
        if live.ended.is_set():  # meanwhile: who gave up the others did not see it
            await give_up(self._events, self._registry.store, live.id, GONE)
        return PromptSent(proof="", retried=False, cursor=cursor, waited=0.0, queued=True)

    async def _usage_of(self, record: Sandbox) -> AgentUsage:
        """That of an agent which is watched no more; of a shell, what its proxy counted."""
        text = await self._registry.store.memory(record.id)
        memory = None if text is None else from_text(text)
        books, kept = None if memory is None else memory.books, record.counted
        whole = None if kept is None else kept.whole
        return Ledger(self._settings.prices, books, whole).usage

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
