"""Codex's screen, read from the bottom up. What is not surely understood is UNKNOWN.

At the bottom stands either an input line, a blank row, a line about the model and one about keys,
or a dialog (``dialogs.py``). What it is doing stands right above the input line, at the left edge;
what the model said there begins with a bullet, and a line about the time that it took follows.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from csb_mcp.agents.codex.dialogs import dialog
from csb_mcp.agents.codex.faults import fault_of
from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentFault, AgentState, ScreenFact

_MAX_DETAIL = 300
_REACH = 30  # rows above the input line in which its state is looked for
_MODEL = re.compile(r"  \S.{0,100} · [~/].*")
_HINTS = re.compile(
    r" *(?:(?:← for agents|\? for shortcuts|\? / esc close|esc again to edit previous message|"
    r"(?:ctrl \+ c|\^c) again to quit|Plan mode(?: \(.+\))?|Shell mode|tab to queue message|"
    r"⚠ \d+ warnings?|f2 to view|\d+% context (?:left|used))(?: +| · |$))+"
)
_MODE = re.compile(r"Plan mode|Shell mode")
_DRAFT = re.compile(r"[›!](?: |$)")
_PLACEHOLDERS = (  # the first is today's, the others are those of about 0.118
    *("Ask Codex to do anything", "Explain this codebase", "Summarize recent commits"),
    *("Implement {feature}", "Find and fix a bug in @filename", "Write tests for @filename"),
    *("Improve documentation in @filename", "Run /review on my current changes"),
    "Use /skills to list available skills",
)
_BUSY = re.compile(r"(?:[•◦] )?(?P<said>[^\W\d_].{0,200} \([^()]{1,20} • esc to interrupt\).*)")
_DETAIL = re.compile(r"  └ (?P<words>\S.*)")
_QUEUE = re.compile(r"• (?:Queued|Messages to be|Pending) .*")
_OVER = re.compile(r"  Worked for .+ • \d\d:\d\d$")
_STOPPED = "■ "
_INTERRUPTED = "■ Conversation interrupted"
_HEADER = re.compile(r"  >_ OpenAI Codex \(v[\w.-]+\)")
_BARE_HINTS = "  ? for shortcuts"
_WELCOME = "  Welcome to Codex, OpenAI's command-line coding agent"
_LOGIN = "it asks how to log in"


@dataclass(frozen=True, slots=True)
class _Input:
    """The input line: rows above it, and what stands in it and below it."""

    above: Sequence[str]
    draft: str
    footer: Sequence[str]


def read_screen(rows: Sequence[str]) -> ScreenFact:
    """See ``ports.Agent.screen``."""
    shown = [row.rstrip() for row in rows]
    while shown and not shown[-1]:
        shown.pop()
    if not shown:
        return ScreenFact(state=AgentState.STARTING, detail="the screen is empty")
    if question := dialog(shown):
        return ScreenFact(
            state=AgentState.QUESTION,
            detail=one_line(question.detail, _MAX_DETAIL),
            question=question,
        )
    if found := _input(shown):
        return _at_input(found)
    if next((row for row in shown if row), "") == _WELCOME:
        return ScreenFact(state=AgentState.ERROR, detail=_LOGIN, fault=fault_of("Sign in: no key"))
    return ScreenFact(state=AgentState.UNKNOWN)


def _input(rows: Sequence[str]) -> _Input | None:
    """The input line, if it is the last thing on the screen but for the lines below it."""
    blank = next((at for at in range(len(rows) - 1, -1, -1) if not rows[at]), None)
    top = next((at for at in range(len(rows) - 1, -1, -1) if _DRAFT.match(rows[at])), None)
    if blank is None or top is None or top > blank:
        return None
    inside = rows[top:blank]
    if any(row and not row.startswith("  ") for row in inside[1:]):
        return None
    draft = "\n".join([inside[0][2:], *(row[2:] for row in inside[1:])]).strip()
    if inside[0].startswith("!"):  # it would go to a shell
        draft = "!" + draft
    return _Input(rows[:top], "" if draft in _PLACEHOLDERS else draft, rows[blank + 1 :])


def _at_input(found: _Input) -> ScreenFact:
    first, *more = found.footer
    if first == _BARE_HINTS and not more and any(map(_HEADER.fullmatch, found.above)):
        return ScreenFact(state=AgentState.STARTING, detail="its input line is not ready yet")
    if not _MODEL.fullmatch(first) or not all(map(_HINTS.fullmatch, more)):
        return ScreenFact(state=AgentState.UNKNOWN)
    below = _below(found.above[-_REACH:])
    doing = below[0] if below else ""
    if (busy := _BUSY.fullmatch(doing)) and not any(map(_OVER.fullmatch, below)):
        said = one_line(busy["said"], _MAX_DETAIL)
        fault = _retrying(said, below)
        return ScreenFact(state=AgentState.WORKING, detail=said, draft=found.draft, fault=fault)
    if doing.startswith(_STOPPED) and not doing.startswith(_INTERRUPTED):
        words = " ".join(row.strip() for row in below if row).removeprefix(_STOPPED)
        fault = fault_of(words)
        return ScreenFact(
            state=AgentState.ERROR, detail=fault.words, fault=fault, draft=found.draft
        )
    mode = next((match[0] for row in more if (match := _MODE.search(row))), "input line")
    return ScreenFact(state=AgentState.READY, detail=mode, draft=found.draft)


def _below(above: Sequence[str]) -> Sequence[str]:
    """The lowest row that begins at the left edge, and what is indented below it.

    Prompts that wait stand lower, under a heading of their own.
    """
    for at in range(len(above) - 1, -1, -1):
        if above[at] and above[at][0] != " " and not _QUEUE.fullmatch(above[at]):
            return above[at:]
    return ()


def _retrying(said: str, below: Sequence[str]) -> AgentFault | None:
    if not said.startswith("Reconnecting"):
        return None
    detail = next((match["words"] for row in below if (match := _DETAIL.fullmatch(row))), said)
    return fault_of(detail)
