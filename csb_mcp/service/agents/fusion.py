"""From the words of several sources to one state. Plain computation.

Hooks and transcripts tell what happened, once; the screen shows what is. A hook is the fastest and
says the most, so for a moment its word is the last; after that a screen that is understood is
believed, for hooks may be lost (an interrupt calls none), late, or forged. Who says something else
stays among the evidence.
"""

from dataclasses import replace

from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentState, Evidence, HookFact, ScreenFact, Source, Transcript

GRACE = 1.0  # seconds in which a hook's word goes before what the screen shows
OLD = 5.0  # likewise, if the screen was not drawn anew since the hook: a busy host's is late
_DETAIL = 160
_BY_HOOK = {
    "started": AgentState.STARTING,
    "prompt": AgentState.WORKING,
    "tool": AgentState.WORKING,
    "tool_done": AgentState.WORKING,
    "permission": AgentState.QUESTION,
    "finished": AgentState.READY,
    "failed": AgentState.ERROR,
    "ended": AgentState.UNKNOWN,  # a session's end; whether it runs, the process tells
}
_SURE = (AgentState.QUESTION,)  # nobody draws it by being late; an error stays for a while


def by_hook(fact: HookFact, now: float) -> Evidence | None:
    """What a hook says; None if it says nothing of a state."""
    if (state := _BY_HOOK.get(fact.kind)) is None:
        return None
    detail = one_line(f"{fact.kind} {fact.tool} {fact.text}", _DETAIL)
    return Evidence(source=Source.HOOK, says=state, detail=detail, since=now)


def by_transcript(found: Transcript, now: float) -> Evidence | None:
    """What the end of what is new in the transcripts says."""
    if found.faults:
        return _told(AgentState.ERROR, found.faults[-1].words, now)
    if found.messages:
        last = found.messages[-1]
        tool = f"calls {last.tools[-1][0]}" if last.tools else "speaks"
        if last.turn_over:
            return _told(AgentState.READY, f"the turn is over: {last.text}", now)
        return _told(AgentState.WORKING, tool, now)
    if found.prompts:
        return _told(AgentState.WORKING, f"prompt {found.prompts[-1]}", now)
    return None


def _told(state: AgentState, detail: str, now: float) -> Evidence:
    detail = one_line(detail, _DETAIL)
    return Evidence(source=Source.TRANSCRIPT, says=state, detail=detail, since=now)


def by_screen(fact: ScreenFact, now: float) -> Evidence:
    """What the screen shows."""
    detail = fact.detail
    if fact.question is not None:
        detail = f"{fact.question.kind}: {fact.question.tool} {fact.question.detail}"
    elif fact.fault is not None:
        detail = fact.fault.words
    says = AgentState.UNKNOWN if fact.state is AgentState.EXITED else fact.state
    return Evidence(source=Source.SCREEN, says=says, detail=one_line(detail, _DETAIL), since=now)


def kept(before: Evidence | None, now: Evidence) -> Evidence:
    """``now``, since when it has said so."""
    if before is not None and before.says is now.says:
        return replace(now, since=before.since)
    return now


def fused(
    hook: Evidence | None,
    transcript: Evidence | None,
    screen: Evidence | None,
    *,
    hook_at: float,
    looked: float,
    drawn: float,
    now: float,
) -> Evidence:
    """The evidence to go by.

    ``hook_at``: when the last hook came; ``looked``: when the screen was last read, ``drawn``: when
    it was last seen to have changed.
    """
    hook, transcript, screen = map(_sound, (hook, transcript, screen))
    if screen is not None:
        fresh = hook is not None and now - hook_at < (GRACE if drawn > hook_at else OLD)
        late = hook is not None and looked <= hook_at
        if not fresh or hook is None or (screen.says in _SURE and not late):
            return screen
    found = hook or screen or transcript
    if hook is not None and transcript is not None and transcript.since > hook_at + GRACE:
        found = transcript
    return found or Evidence(
        source=Source.PROCESS, says=AgentState.UNKNOWN, detail="it runs", since=now
    )


def _sound(evidence: Evidence | None) -> Evidence | None:
    return evidence if evidence is not None and evidence.says is not AgentState.UNKNOWN else None
