"""Questions that Codex puts on the screen in place of its input line.

A dialog is the last thing on the screen, and a line about its keys is the last of it. What the
model wrote stands above an input line, so it is never taken for one. Where the line about keys and
all between it and the dialog's title do not fit together, nothing is understood.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from csb_mcp.agents.questions import Choice, asked
from csb_mcp.model import Question

CANCEL = "esc"
"""Key of an option that is not in the list, but in the line about keys."""
NOTES = "None of the above"
"""How the label of an option begins that takes text."""

_CHOICE = re.compile(r"(?P<mark> {0,2}› | {2,4})(?P<key>\d{1,2})\. (?P<label>\S.*)$")
_WRAPPED = re.compile(r" {5,}\S")
_APPROVES = re.compile(r"  (?:Would you like to .+|Do you want to .+)\?$")
_TOOLS = (
    ("Would you like to run the following command?", "Bash"),
    ("Would you like to make the following edits?", "apply_patch"),
    ("Would you like to grant these permissions?", "request_permissions"),
    ("Would you like to send input to ", "write_stdin"),
    ("Do you want to approve network access to ", "network"),
)
_NUMBER = re.compile(r"  Question \d+/\d+(?: \(\d+ unanswered\))?$")
_PLAN = "  Implement this plan?"
_TRUSTS = ("  Hooks need review", "  Folder access")


@dataclass(frozen=True, slots=True)
class _Dialog:
    """Rows above the options, and the options."""

    above: Sequence[str]
    choices: Sequence[Choice]


def dialog(rows: Sequence[str]) -> Question | None:
    """The question that ends ``rows`` (no blank ones after it); None if it is not understood."""
    for keys, read in _READERS:
        if keys.fullmatch(rows[-1]) and (found := _dialog(rows[:-1])):
            return read(found)
    return None


def _dialog(rows: Sequence[str]) -> _Dialog | None:
    """Options 1, 2, ..., one marked, each on a row (and what is wrapped of it)."""
    starts = [at for at, row in enumerate(rows) if (m := _CHOICE.match(row)) and m["key"] == "1"]
    if not starts:
        return None
    choices: list[Choice] = []
    for row in rows[starts[-1] :]:
        match = _CHOICE.fullmatch(row)
        if match and int(match["key"]) == len(choices) + 1:
            label = re.sub(r" {2,}", " -- ", match["label"])
            choices.append(Choice(match["key"], label, "›" in match["mark"]))
        elif _WRAPPED.match(row) and "›" not in row:
            last = choices[-1]
            choices[-1] = Choice(last.key, f"{last.label} {row.strip()}", last.marked)
        elif row:
            return None
    if sum(choice.marked for choice in choices) != 1:
        return None
    return _Dialog(rows[: starts[-1]], choices)


def _from(rows: Sequence[str], is_title: Callable[[str], object]) -> list[str] | None:
    """The title above the options, and what stands below it.

    All of a dialog is indented; what it is about may have words like a title's, but further down.
    """
    edge = max((n for n, row in enumerate(rows) if row and row[0] != " "), default=-1)
    at = next((n for n in range(edge + 1, len(rows)) if is_title(rows[n])), None)
    return None if at is None else [row.strip() for row in rows[at:] if row.strip()]


def _permission(found: _Dialog) -> Question | None:
    body = _from(found.above, _APPROVES.fullmatch)
    tool = next((tool for title, tool in _TOOLS if body and body[0].startswith(title)), None)
    if body is None or tool is None or not found.choices[0].label.startswith("Yes"):
        return None
    choices = [Choice(c.key, _without_key(c.label), c.marked) for c in found.choices]
    if not any(choice.label.startswith("No") for choice in choices):  # it did not fit
        choices.append(Choice(CANCEL, "No, and tell Codex what to do differently", marked=False))
    return asked("permission", "\n".join([*body[1:], body[0]]), choices, tool=tool)


def _without_key(label: str) -> str:
    return re.sub(r" \((?:esc|[a-z])\)$", "", label)


def _choice(found: _Dialog) -> Question | None:
    body = _from(found.above, _NUMBER.fullmatch)
    if body is None or len(body) < 2:
        return None
    free = any(choice.label.startswith(NOTES) for choice in found.choices)
    number = body[0].partition(" (")[0]
    return asked("choice", "\n".join(body[1:]), found.choices, free=free, beside=number)


def _plan(found: _Dialog) -> Question | None:
    body = _from(found.above, _PLAN.__eq__)
    return None if body is None else asked("plan", "\n".join(body), found.choices)


def _trust(found: _Dialog) -> Question | None:
    body = _from(found.above, _TRUSTS.__contains__)
    return None if body is None else asked("trust", "\n".join(body), found.choices)


_READERS: tuple[tuple[re.Pattern[str], Callable[[_Dialog], Question | None]], ...] = (
    (re.compile(r"  Press enter to confirm or esc to cancel"), _permission),
    (re.compile(r"  tab to add notes \| enter to submit .*\besc to interrupt"), _choice),
    (re.compile(r"  enter select · esc back"), _plan),
    (re.compile(r"  enter (?:confirm · esc skip|continue · esc back)"), _trust),
)
