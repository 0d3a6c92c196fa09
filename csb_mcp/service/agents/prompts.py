"""How an agent is told something, so that it provably arrives; and how a question is answered."""

import asyncio
import time
from collections.abc import Callable, Sequence

from csb_mcp.errors import Conflict, DeadlineExceeded, PromptNotSubmitted
from csb_mcp.lib.pulse import beat_within
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import AgentState, Question, Source
from csb_mcp.ports import Stroke
from csb_mcp.service.agents.waits import described
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.registry import Live

PROVED_SECONDS = 15.0  # from the last key on; then it is said not to have been submitted
RETRY_SECONDS = 4.0
_GONE_SECONDS = 10.0
_SETTLE_SECONDS = 3.0
_ROWS = 12  # of the screen, in an error
_COLUMNS = 160
_SLICE = 0.25


async def until_ready(live: Live, watch: AgentWatch, seconds: float) -> None:
    """Wait for its input line. Raises Conflict (a question, an error), DeadlineExceeded."""
    deadline = time.monotonic() + seconds
    while not (is_ready(watch) and watch.caught_up.is_set()):
        if watch.view.state in (AgentState.QUESTION, AgentState.ERROR):
            raise _refused(live, watch)
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"its agent is {watch.view.state.value}, and not ready after {seconds:g} s",
                sandbox=live.id,
                hint=await last_rows(live),
            )
        await beat_within(watch.news, watch.news.count, _SLICE)


async def settled(watch: AgentWatch) -> None:
    """Wait a moment for the input line, if a hook has just told of the turn's end, or its failure.

    What was prompted before this daemon's time is read first, or it might pass for a proof.
    """
    await watch.caught_up.wait()
    over = (AgentState.READY, AgentState.ERROR)
    await _until(
        watch, lambda: watch.view.state not in over or _takes_prompts(watch), _SETTLE_SECONDS
    )


def is_ready(watch: AgentWatch) -> bool:
    """Whether it waits for a prompt."""
    # By the screen, too: what is typed before the input line is there is lost.
    return watch.view.state is AgentState.READY and watch.screen.state in (
        AgentState.READY,
        AgentState.UNKNOWN,
    )


def _takes_prompts(watch: AgentWatch) -> bool:
    """Also one that stopped at an error: another prompt is how it goes on."""
    failed = watch.view.state is AgentState.ERROR
    return is_ready(watch) or (
        failed and watch.screen.state in (AgentState.READY, AgentState.ERROR)
    )


def check_ready(live: Live, watch: AgentWatch) -> None:
    """Refuse a prompt that would not be taken for one. Raises Conflict."""
    if not _takes_prompts(watch):
        raise _refused(live, watch)


def _refused(live: Live, watch: AgentWatch) -> Conflict:
    view = watch.view
    if view.state is AgentState.QUESTION:
        asked = "a question" if view.question is None else described(view.question)
        return Conflict(
            f"its agent waits for an answer: {asked}",
            sandbox=live.id,
            hint="answer it first, or give queue=true",
        )
    if view.state is AgentState.ERROR:
        words = "" if view.fault is None else f"{view.fault.words}. {view.fault.hint}"
        return Conflict(
            f"its agent has stopped at an error: {one_line(words, 300)}",
            sandbox=live.id,
            hint="look at its screen; send_keys types whatever helps",
        )
    return Conflict(
        f"its agent is {view.state.value}, not ready",
        sandbox=live.id,
        hint='wait for {"agent_state": "ready"}, or give queue=true',
    )


async def submit(live: Live, watch: AgentWatch, text: str) -> tuple[Source, bool]:
    """Type it and submit it, until a hook or a transcript has it; and whether Enter was retried.

    ``watch.speaking`` is held. Raises PromptNotSubmitted.
    """
    watch.proof.expect(text)
    try:
        await strike(live, watch.agent.submit(text))
        if (source := await proved(watch, RETRY_SECONDS)) is not None:
            return source, False
        await strike(live, watch.agent.retry())
        if (source := await proved(watch, PROVED_SECONDS - RETRY_SECONDS)) is not None:
            return source, True
    finally:
        watch.proof.forget()
    raise PromptNotSubmitted(
        "it was typed, and neither a hook nor a transcript shows it submitted",
        sandbox=live.id,
        hint=await last_rows(live),
    )


async def proved(watch: AgentWatch, seconds: float) -> Source | None:
    """Who showed the prompt that is awaited submitted; None if nobody did in time."""
    await _until(watch, lambda: watch.proof.source is not None, seconds)
    return watch.proof.source


async def _until(watch: AgentWatch, holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if (left := deadline - time.monotonic()) <= 0:
            return False
        await beat_within(watch.news, watch.news.count, min(left, _SLICE))
    return True


async def strike(live: Live, strokes: Sequence[Stroke]) -> None:
    """Type them, with their pauses."""
    for stroke in strokes:
        if stroke.pause:
            await asyncio.sleep(stroke.pause)
        await live.terminal.send(stroke.text or None, stroke.keys, paste=stroke.paste)


async def choose(
    live: Live, watch: AgentWatch, question: str, option: str, text: str | None
) -> None:
    """Answer that very question, and see it gone. ``watch.speaking`` is held.

    Raises Conflict if it is not on the screen now, InvalidInput, DeadlineExceeded.
    """
    await watch.look()
    shown = watch.screen.question
    if shown is None or shown.id != question:
        raise Conflict(
            f"question {one_line(question, 80)!r} is not on its screen now",
            sandbox=live.id,
            hint=_instead(shown),
        )
    await strike(live, watch.agent.answer(shown, option, text))
    if not await _until(watch, lambda: not _asks(watch, question), _GONE_SECONDS):
        raise DeadlineExceeded(
            "the keys were sent, and the question is still there",
            sandbox=live.id,
            hint=await last_rows(live),
        )


def _asks(watch: AgentWatch, question: str) -> bool:
    return watch.screen.question is not None and watch.screen.question.id == question


def _instead(shown: Question | None) -> str:
    if shown is None:
        return "nothing is asked; observe tells what it does"
    return f"this is: {described(shown)}"


async def last_rows(live: Live) -> str:
    """What the screen shows at its end, for an error."""
    rows = await live.terminal.rows(None)
    texts = [plain_text(text).rstrip()[:_COLUMNS] for _, text in rows.rows]
    shown = [text for text in texts if text][-_ROWS:]
    # Marked row by row, so that none of it passes for words of ours.
    return "its screen (untrusted):\n" + "\n".join(f"| {text}" for text in shown)
