"""Questions that Claude Code puts on the screen, read from the rows below the last rule.

A dialog is the last thing on the screen: its options, and then at most its line of keys, end it.
What the model wrote stands above an input line, indented, so it is never taken for one. Every row
from the first option on must fit, or nothing is understood.
"""

import re
from collections.abc import Sequence

from csb_mcp.agents.questions import Choice, asked
from csb_mcp.lib.text import one_line
from csb_mcp.model import Question

SUBMIT = "submit"
"""Key of what ends a question with several answers."""
TICKED = "[✔] "
"""How the label of a chosen one of several begins."""

RULE = re.compile(r"─{40,}$")
_BORDER = re.compile(r"\s*[╌─╭╮╰╯]{20,}$")
_NUMBERED = re.compile(r"(?P<mark>\s*❯ |\s+)(?P<key>\d{1,2})\. (?P<label>\S.*)$")
_PLAIN = re.compile(r"(?P<mark>\s*❯ |\s+)(?P<label>\S.*)$")
_KEYS = re.compile(
    r"\s*(?:Enter to (?:select|confirm)\b|Not answered yet\b|ctrl\+g to edit\b|"
    r"(?:.* · )?Esc to cancel\b).*$"
)
_MORE = re.compile(r" ↑ \d+ more lines?$")  # the dialog is taller than the screen
_AMEND = "Tab to amend"
_PLAN_TOP = re.compile(r"▔{40,}$")
_PLAN_ASKS = re.compile(r"Exit plan mode\?|Would you like to proceed\?")
_TABS = re.compile(r"(?:← )? [☐☒✔] \S.*$")
_OWN_WORDS = re.compile(r"\] Type something\.?$")  # digits tick it, and do not let type
_BOX = re.compile(r"\[([ ✔])\] ")
_ASKS = re.compile(r"\s{0,4}(?:Do you want to .+|Would you like to .+)\?$")

_TOOLS = {
    "Bash command": "Bash",
    "Create file": "Write",
    "Overwrite file": "Write",
    "Edit file": "Edit",
    "Edit notebook": "NotebookEdit",
    "Read file": "Read",
    "Fetch": "WebFetch",
    "Web search": "WebSearch",
    "Tool use": "",  # which one is said in the next row
    "Use skill": "Skill",
}
# Dialogs without numbers: how each begins, and what its options must be.
_CONFIRM = (
    ("Accessing workspace:", "trust", ("No, exit", "Yes, I trust this folder")),
    ("Detected a custom API key in your environment", "trust", ("Yes", "No (recommended)")),
    (
        "WARNING: Claude Code running in Bypass Permissions mode",
        "trust",
        ("No, exit", "Yes, I acc"),
    ),
    ("Make auto mode your default permission mode?", "trust", ("Yes, set auto mode", "No, keep")),
    (
        "New MCP server found in this project: ",
        "trust",
        ("Use this MCP server", "Use this and all", "Continue without"),
    ),
    ("Allow external CLAUDE.md file imports?", "trust", ("No, disable", "Yes, allow")),
)


def dialog(rows: Sequence[str]) -> Question | None:
    """The question that ends ``rows`` (no blank ones after it); None if it is not understood."""
    for read in (_permission, _plan, _choice, _review, _confirmation):
        if found := read(rows):
            return found
    return None


def _below(rows: Sequence[str], top: re.Pattern[str]) -> Sequence[str] | None:
    """What stands below the last row that is a ``top``."""
    for at in range(len(rows) - 1, -1, -1):
        if top.fullmatch(rows[at]):
            return rows[at + 1 :]
    return None


def _numbered(rows: Sequence[str]) -> tuple[Choice, ...]:
    """Rows that are options 1, 2, ..., one marked, each on a row (and what is wrapped of it)."""
    found: list[Choice] = []
    for row in rows:
        match = _NUMBERED.fullmatch(row)
        if match and int(match["key"]) == len(found) + 1:
            found.append(Choice(match["key"], match["label"], "❯" in match["mark"]))
        elif found and re.match(r"\s{5,}\S", row) and "❯" not in row:
            label = f"{found[-1].label} {row.strip()}"
            found[-1] = Choice(found[-1].key, label, found[-1].marked)
        else:
            return ()
    if sum(choice.marked for choice in found) != 1 or len(found) < 2:
        return ()
    return tuple(found)


def _without_keys(rows: Sequence[str]) -> Sequence[str]:
    """``rows`` without the line that says which keys there are, and the blank one before it."""
    if not _KEYS.fullmatch(rows[-1]) or _NUMBERED.fullmatch(rows[-1]):
        return rows
    rows = rows[:-1]
    return rows[:-1] if rows and not rows[-1] else rows


def _permission(rows: Sequence[str]) -> Question | None:
    free = rows[-1].endswith(_AMEND)
    rows = _without_keys(rows)
    cut = bool(rows and _MORE.fullmatch(rows[-1]))
    rows = rows[:-1] if cut else rows
    asks = [at for at, row in enumerate(rows) if _ASKS.fullmatch(row)]
    if not asks or not (choices := _numbered(rows[asks[-1] + 1 :])):
        return None
    if not choices[0].label.startswith("Yes") or not any(
        choice.label.startswith("No") for choice in choices
    ):
        return None
    above = rows[: asks[-1]] if cut else _below(rows[: asks[-1]], RULE)
    if not above:
        return None
    title = "" if cut else above[0].strip()
    if not cut and title not in _TOOLS:
        return None
    body = _body(above if cut else above[1:])
    tool = "" if cut else _TOOLS[title] or _mcp_tool(body)
    detail = "\n".join([*body, rows[asks[-1]].strip()])
    return asked("permission", detail, choices, tool=tool, free=free)


def _body(rows: Sequence[str]) -> list[str]:
    kept = (row.strip().strip("│").strip() for row in rows if not _BORDER.fullmatch(row))
    return [row for row in kept if row and not row.startswith("Tip: ")]


def _mcp_tool(body: Sequence[str]) -> str:
    """``demo — Greet Tool: (MCP)`` is how a tool of an MCP server is called here."""
    match = re.fullmatch(r"(.+?)(?: Tool:)? \(MCP\)", body[0]) if body else None
    return one_line(match[1], 100) if match else "mcp"


def _plan(rows: Sequence[str]) -> Question | None:
    rows = _without_keys(rows)
    below = _below(rows, _PLAN_TOP)
    if not below:
        return None
    ends = [at for at, row in enumerate(below) if _PLAN_ASKS.search(row)]
    body = [row for row in below if row]
    starts = [at for at, row in enumerate(body) if (m := _NUMBERED.fullmatch(row)) and m[2] == "1"]
    if not ends or not starts or not (choices := _numbered(body[starts[-1] :])):
        return None
    free = any(choice.label.startswith("Tell Claude") for choice in choices)
    return asked("plan", "\n".join(_body(body[: starts[-1]])), choices, free=free)


def _choice(rows: Sequence[str]) -> Question | None:
    """AskUserQuestion: a row of tabs, the question, options with descriptions below them."""
    rows = _without_keys(rows)
    tops = [
        at
        for at in range(len(rows) - 1)
        if RULE.fullmatch(rows[at]) and _TABS.fullmatch(rows[at + 1])
    ]
    if not tops:
        return None
    body = rows[tops[-1] + 2 :]
    first = next((at for at, row in enumerate(body) if _NUMBERED.fullmatch(row)), 0)
    wanted = " ".join(row.strip() for row in body[:first] if row.strip())
    choices = _described(body[first:])
    if not wanted or not choices:
        return None
    tabs = re.sub("[☐☒]", "", rows[tops[-1] + 1])
    if any(_BOX.match(choice.label) for choice in choices):
        choices = [_ticked(choice) for choice in choices if not _OWN_WORDS.search(choice.label)]
        choices.append(Choice(SUBMIT, "Submit", marked=False))
        return asked("choice", wanted, choices, beside=tabs, bare=_bare)
    # What was typed there stands in its place.
    choices[-2] = Choice(choices[-2].key, "Type something.", choices[-2].marked)
    return asked("choice", wanted, choices, free=True, beside=tabs)


def _bare(label: str) -> str:
    return label.removeprefix(TICKED)


def _ticked(choice: Choice) -> Choice:
    match = _BOX.match(choice.label)
    if match is None:
        return choice
    label = choice.label[match.end() :]
    return Choice(choice.key, (TICKED if match[1] == "✔" else "") + label, choice.marked)


def _described(rows: Sequence[str]) -> list[Choice]:
    found: list[Choice] = []
    fresh = False
    for row in rows:
        match = _NUMBERED.fullmatch(row)
        if match and int(match["key"]) == len(found) + 1:
            found.append(Choice(match["key"], match["label"], "❯" in match["mark"]))
            fresh = True
        elif not row or RULE.fullmatch(row) or re.fullmatch(r"(?:❯| )\s+Submit", row):
            continue
        elif found and re.match(r"\s{5,}\S", row):
            said = f"{found[-1].label}{' -- ' if fresh else ' '}{row.strip()}"
            found[-1] = Choice(found[-1].key, said, found[-1].marked)
            fresh = False
        else:
            return []
    if len(found) < 3 or not found[-1].label.startswith("Chat about this"):
        return []
    return found


def _review(rows: Sequence[str]) -> Question | None:
    above = _below(rows, RULE)
    if not above or not _TABS.fullmatch(above[0]):
        return None
    body = [row for row in above[1:] if row.strip()]
    if not body or body[0].strip() != "Review your answers":
        return None
    first = next((at for at, row in enumerate(body) if _NUMBERED.fullmatch(row)), len(body))
    choices = _numbered(body[first:])
    if not choices or choices[0].label != "Submit answers":
        return None
    return asked("choice", "\n".join(_body(body[:first])), choices)


def _confirmation(rows: Sequence[str]) -> Question | None:
    """Dialogs of the start: the marked option is taken by Enter, and there are no numbers."""
    rows = _without_keys(rows)
    above = _below(rows, RULE)
    if not above:
        return None
    text = [row for row in above if row.strip()]
    for title, kind, labels in _CONFIRM:
        if not text or not text[0].strip().startswith(title) or len(text) <= len(labels):
            continue
        found = [_PLAIN.fullmatch(row) for row in text[-len(labels) :]]
        choices = [
            Choice(str(number), match["label"], "❯" in match["mark"])
            for number, match in enumerate(found, 1)
            if match and match["label"].startswith(labels[number - 1])
        ]
        if len(choices) == len(labels) and sum(choice.marked for choice in choices) == 1:
            detail = "\n".join(_body(text[: -len(labels)]))
            return asked(kind, detail, choices)
    return None
