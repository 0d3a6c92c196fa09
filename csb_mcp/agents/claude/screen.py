"""Claude Code's screen, read from the bottom up. What is not surely understood is UNKNOWN.

At the bottom stands either an input line between two rules, with a line about keys below it, or a
dialog (``dialogs.py``). What it is doing stands right above the input line, at the left edge; what
the model or a tool printed is indented there, or begins with a bullet.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from csb_mcp.agents.claude.dialogs import RULE, dialog
from csb_mcp.agents.claude.faults import fault_of
from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentFault, AgentState, ScreenFact

_MAX_DETAIL = 300
_REACH = 30  # rows above the input line in which its spinner is looked for: a list may lie between
_MODE = re.compile(
    r"  (?:(?:⏸|⏵⏵) [a-z ]{1,30} (?:mode )?on\b.*|\? for shortcuts.*|! for (?:bash|shell) mode|"
    r"paste again to expand|Press \S+ again to exit|Esc again to clear.*|esc to interrupt.*|"
    r"hold Space to speak)$"
)
_AGENTS = re.compile(r"  [●◯○◉⏺] \S.*")  # a list of subagents, below the line about keys
_INTERRUPTS = re.compile(r"  .*\besc to interrupt\b")
_SPINNER = re.compile(
    r"[·✢✳✶✻✽∗*] (?P<said>[^…]{1,200}(?:…(?: \(.*\))?|· retrying in \d+ ?s\b.*)|"
    r"Waiting for \d+ background .{1,200})$"
)
_RETRY = re.compile(r"(?P<words>.+?) · retrying in \d+ ?s\b.*")
_DONE = re.compile(r"[·✢✳✶✻✽∗*] \S+ for \d")
_RESEND = re.compile(r"Resend your message to try again|Once fixed, resend your message")
_PLACEHOLDER = re.compile(r'Try ".*"|Press up to edit queued messages')
_ONBOARDING = (
    ("Choose the text style that looks best with your terminal", "choosing a theme"),
    ("Press Enter to continue", "security notes"),
    ("Select login method:", "choosing how to log in"),
)
_BEGIN = re.compile(r"Welcome to Claude Code\b|Let's get started\.$")
_OFFLINE = "Unable to connect to Anthropic services"


@dataclass(frozen=True, slots=True)
class _Input:
    """The input line: rows above it, and what stands in it and below it."""

    above: Sequence[str]
    draft: str
    footer: Sequence[str]


def read_screen(rows: Sequence[str]) -> ScreenFact:
    """See ``ports.Agent.screen``."""
    shown = [row.replace("\xa0", " ").rstrip() for row in rows]
    while shown and not shown[-1]:
        shown.pop()
    if not shown:
        return ScreenFact(state=AgentState.STARTING, detail="the screen is empty")
    if found := _input(shown):
        return _at_input(found)
    if question := dialog(shown):
        return ScreenFact(
            state=AgentState.QUESTION,
            detail=one_line(question.detail, _MAX_DETAIL),
            question=question,
        )
    return _onboarding(shown) or ScreenFact(state=AgentState.UNKNOWN)


def _input(rows: Sequence[str]) -> _Input | None:
    """The input line, if it is the last thing on the screen."""
    rules = [at for at, row in enumerate(rows) if RULE.fullmatch(row)]
    if len(rules) < 2 or rules[-1] == len(rows) - 1:
        return None
    top, bottom = rules[-2:]
    inside = rows[top + 1 : bottom]
    if not inside or not re.match(r"[❯!](?: |$)", inside[0]):
        return None
    if any(row and not row.startswith("  ") for row in inside[1:]):
        return None
    draft = "\n".join(row[2:] for row in inside).strip()
    if inside[0].startswith("!"):  # it would go to a shell
        draft = "!" + draft
    return _Input(rows[:top], draft, rows[bottom + 1 :])


def _at_input(found: _Input) -> ScreenFact:
    if not _MODE.fullmatch(found.footer[0]) or not all(
        not row or _AGENTS.fullmatch(row) for row in found.footer[1:]
    ):
        return ScreenFact(state=AgentState.UNKNOWN)
    resend = bool(_RESEND.fullmatch(found.draft))
    draft = "" if resend or _PLACEHOLDER.fullmatch(found.draft) else found.draft
    doing = _doing(found.above)
    if doing and (spinner := _SPINNER.fullmatch(doing)):
        said = one_line(spinner["said"], _MAX_DETAIL)
        return ScreenFact(
            state=AgentState.WORKING, detail=said, draft=draft, fault=_retrying(spinner["said"])
        )
    if any(_INTERRUPTS.match(row) for row in found.footer):
        return ScreenFact(state=AgentState.WORKING, detail="esc to interrupt", draft=draft)
    if fault := _stopped(found.above, sure=not resend):
        return ScreenFact(state=AgentState.ERROR, detail=fault.words, fault=fault, draft=draft)
    return ScreenFact(state=AgentState.READY, detail="input line", draft=draft)


def _doing(above: Sequence[str]) -> str | None:
    """The lowest row that begins at the left edge; lists and hints below it are indented."""
    return next((row for row in reversed(above[-_REACH:]) if row and row[0] != " "), None)


def _retrying(said: str) -> AgentFault | None:
    match = _RETRY.fullmatch(said)
    return fault_of(match["words"]) if match else None


def _stopped(above: Sequence[str], *, sure: bool) -> AgentFault | None:
    """The error that was the last thing to happen: no line about a finished turn follows it.

    A model may write such words; then that line does follow. ``sure``: the words alone must tell,
    for the input line does not speak of sending it again.
    """
    at = next((n for n in range(len(above) - 1, -1, -1) if above[n] and above[n][0] != " "), None)
    if at is None or _DONE.match(above[at]):
        return None
    block = [row for row in above[at:] if row.strip() and not row.startswith(" " * 40)]
    if above[at].startswith("● "):
        words = " ".join(row.strip() for row in block).removeprefix("● ")
        return fault_of(words, sure=sure)
    below = next((row for row in block[1:] if row.startswith("  ⎿ ")), None)
    if above[at].startswith("❯ ") and below:  # an error that is the whole answer to a prompt
        return fault_of(below.strip().removeprefix("⎿").strip(), sure=sure)
    return None


def _onboarding(rows: Sequence[str]) -> ScreenFact | None:
    """What it asks on its very first start: there is nobody to answer, the seed was not taken."""
    text = [row.strip() for row in rows if row.strip()]
    if not any(_BEGIN.match(row) for row in text):
        return None
    if offline := next((row for row in text if row.startswith(_OFFLINE)), None):
        return ScreenFact(state=AgentState.ERROR, detail=offline, fault=fault_of(offline))
    for words, detail in _ONBOARDING:
        if words in text:
            return ScreenFact(state=AgentState.STARTING, detail=f"first start: {detail}")
    return None
