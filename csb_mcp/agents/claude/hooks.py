"""Claude Code's hooks: what makes them write into the spool, and how one of their files is read.

Each writes its input into one small file: beside the spool first, then renamed into it, under a
name that sorts by time. It never blocks or fails the agent, whatever has become of the spool, and
says nothing that the agent could take for an answer.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from csb_mcp.agents.claude.words import as_line, as_typed
from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import HookFact

SPOOL = ".csb/spool"
"""Folder below the home."""

MAX_BYTES = 64 * 1024
_MAX_TEXT = 64 * 1024
_MAX_FIELD = 200
_SECONDS = 5
# Nanoseconds first, all of one length until the year 2286. `head` ends when its input does, and
# what is longer is cut.
COMMAND = (
    f"exec 2>/dev/null; cd /home/agent/{SPOOL} || {{ cat >/dev/null; exit 0; }}; "
    f"n=$(date +%s%N)-$$; head -c {MAX_BYTES} >../.$n && mv ../.$n $n || rm -f ../.$n; "
    "cat >/dev/null; exit 0"
)

_HEAD = 8192
_FRONT = {
    name: re.compile(rf'"{name}":"([^"\\]{{1,4096}})"')
    for name in ("hook_event_name", "tool_name", "transcript_path")
}

EVENTS = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "Notification",
    "Stop",
    "StopFailure",
    "SessionEnd",
)


def settings() -> dict[str, Any]:
    """The part of ``settings.json`` that has them called."""
    hook = {"type": "command", "command": COMMAND, "timeout": _SECONDS}
    return {event: [{"hooks": [hook]}] for event in EVENTS}


def read_hook(content: bytes) -> HookFact | None:
    """See ``ports.Agent.hook``."""
    if len(content) > MAX_BYTES:
        return None
    try:
        value: object = json.loads(content)
    except (ValueError, RecursionError):
        value = _cut(content) if len(content) == MAX_BYTES else None
    if not isinstance(value, dict):
        return None
    fields = cast("Mapping[str, object]", value)
    read = _READERS.get(_text(fields, "hook_event_name"))
    return read(fields) if read else None


def _cut(content: bytes) -> Mapping[str, str]:
    """What stands in front, and as much of a prompt as is there."""
    head = content[:_HEAD].decode(errors="replace")
    found = {key: match[1] for key, form in _FRONT.items() if (match := form.search(head))}
    _, _, prompt = content.partition(b'"prompt":"')
    text = prompt.decode(errors="ignore")
    for end in range(len(text), max(0, len(text) - 12), -1):  # an escape may be cut in two
        try:
            said = str(json.loads(f'"{text[:end]}"'))
            return found | {"prompt": said.encode(errors="ignore").decode()}
        except ValueError:
            continue
    return found


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return plain_text(value[:_MAX_TEXT]) if isinstance(value, str) else ""


def _fact(kind: str, text: str) -> Callable[[Mapping[str, object]], HookFact]:
    def read(fields: Mapping[str, object]) -> HookFact:
        return HookFact(
            kind=kind,
            text=_text(fields, text),
            tool=one_line(_text(fields, "tool_name"), _MAX_FIELD),
            transcript=one_line(_text(fields, "transcript_path"), 4096),
        )

    return read


def _prompt(fields: Mapping[str, object]) -> HookFact:
    text = as_typed(_text(fields, "prompt"))
    # A task in the background ended: Claude Code goes on by itself, and calls that a prompt.
    kind = "notified" if text.startswith("<task-notification>") else "prompt"
    return replace(_fact(kind, "prompt")(fields), text=text)


def _tool(kind: str) -> Callable[[Mapping[str, object]], HookFact]:
    plain = _fact(kind, "")

    def read(fields: Mapping[str, object]) -> HookFact:
        said = as_line(fields.get("tool_input"))
        return replace(plain(fields), text=plain_text(said[:_MAX_TEXT]))

    return read


_READERS = {
    "SessionStart": _fact("started", "source"),
    "UserPromptSubmit": _prompt,
    "PreToolUse": _tool("tool"),
    "PostToolUse": _tool("tool_done"),
    "PostToolUseFailure": _tool("tool_done"),
    "PermissionRequest": _tool("permission"),
    "Notification": _fact("notified", "message"),
    "Stop": _fact("finished", "last_assistant_message"),
    "StopFailure": _fact("failed", "last_assistant_message"),
    "SessionEnd": _fact("ended", "reason"),
}
