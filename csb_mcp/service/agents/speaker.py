"""Submits what is queued for one agent, each prompt when the agent is ready for it."""

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from csb_mcp.errors import Conflict, CsbError, PromptNotSubmitted
from csb_mcp.model import AgentState, QueuedPrompt, Source
from csb_mcp.service.agents.prompts import (
    RETRY_SECONDS,
    is_ready,
    last_rows,
    proved,
    strike,
    submit,
    until_ready,
)
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.registry import Live

_log = logging.getLogger(__name__)
_PATIENCE = 24 * 3600.0  # for a turn, until what is queued behind it is given up

Runs = Callable[[], bool]
"""Whether it is not paused."""


async def speak(live: Live, watch: AgentWatch, runs: Runs) -> None:
    """One after another, until cancelled. What came of each is told by an event."""
    if (typed := watch.queue.typed) is not None:
        async with watch.speaking:
            await _tell(watch, typed, _found(live, watch, typed, runs))
    while True:
        prompt = await watch.queue.first()
        await _patiently(live, watch, prompt, runs)
        async with watch.speaking:
            if (is_ready(watch) and runs()) or time.time() > prompt.created + _PATIENCE:
                await _tell(watch, prompt, _typed(live, watch, prompt, runs))


async def _tell(watch: AgentWatch, prompt: QueuedPrompt, work: Coroutine[Any, Any, Source]) -> None:
    try:
        source = await work
    except CsbError as error:
        _log.warning("sandbox %s: a queued prompt was not submitted: %s", prompt.sandbox, error)
        await watch.queue.done(prompt, "prompt_failed", reason=error.message)
    else:
        await watch.queue.done(prompt, "prompt_submitted", proof=source.value)


async def _typed(live: Live, watch: AgentWatch, prompt: QueuedPrompt, runs: Runs) -> Source:
    if not runs():
        raise Conflict("it is paused, and was not resumed for a day", sandbox=live.id)
    await until_ready(live, watch, 0)  # or it says why not
    written = watch.proof.written
    await watch.queue.mark(prompt, written)
    try:
        source, _ = await submit(live, watch, prompt.text)
    except PromptNotSubmitted:
        if runs():
            raise
        # It was paused while that was typed, and reads it when it is resumed.
        watch.proof.expect(prompt.text, written)
        return await _found(live, watch, prompt, runs)
    return source


async def _found(live: Live, watch: AgentWatch, prompt: QueuedPrompt, runs: Runs) -> Source:
    """One that was typed, by an earlier daemon or before a pause.

    If it stands in the input line still, Enter submits it.
    """
    await watch.caught_up.wait()
    while not runs():
        await watch.news.beyond(watch.news.count)
    try:
        if (source := await proved(watch, RETRY_SECONDS)) is not None:
            return source
        await watch.look()
        ready = watch.screen.state is AgentState.READY
        if ready and watch.proof.same(prompt.text, watch.screen.draft):
            await strike(live, watch.agent.retry())
            if (source := await proved(watch, RETRY_SECONDS)) is not None:
                return source
    finally:
        watch.proof.forget()
    raise PromptNotSubmitted(
        "the daemon ended, or it was paused, while it was typed; nothing shows it submitted",
        sandbox=live.id,
        hint=await last_rows(live),
    )


async def _patiently(live: Live, watch: AgentWatch, prompt: QueuedPrompt, runs: Runs) -> None:
    """Until it may be typed, whatever is asked or fails meanwhile: somebody sees to that."""
    while (left := prompt.created + _PATIENCE - time.time()) > 0:
        seen = watch.news.count
        try:
            if runs():
                return await until_ready(live, watch, left)
        except CsbError as error:
            _log.debug("sandbox %s: %s", live.id, error)
        await watch.news.beyond(seen)
    return None
