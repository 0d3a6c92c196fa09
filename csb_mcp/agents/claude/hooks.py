"""Claude Code's hooks: what makes them write into the spool, and how one of their files is read.

Each writes its input into one small file: beside the spool first, then renamed into it, under a
name that sorts by time. It never blocks or fails the agent, whatever has become of the spool, and
says nothing that the agent could take for an answer.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from csb_mcp.lib.text import one_line, plain_text
from csb_mcp.model import HookFact

SPOOL = ".csb/spool"
"""Folder below the home."""

MAX_BYTES = 64 * 1024
_MAX_TEXT = 32 * 1024
_MAX_FIELD = 200
_SECONDS = 5
# Nanoseconds first, all of one length until the year 2286. `head` ends when its input does, and
# what is longer is cut: such a file is no JSON, and still says by its name that something happened.
COMMAND = (
    f"cd /home/agent/{SPOOL} 2>/dev/null || exit 0; n=$(date +%s%N)-$$; "
    f"head -c {MAX_BYTES} >../.$n 2>/dev/null && mv ../.$n $n 2>/dev/null || rm -f ../.$n; exit 0"
)

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
        return None
    if not isinstance(value, dict):
        return None
    fields = cast("Mapping[str, object]", value)
    read = _READERS.get(_text(fields, "hook_event_name"))
    return read(fields) if read else None


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


def _tool(kind: str) -> Callable[[Mapping[str, object]], HookFact]:
    plain = _fact(kind, "")

    def read(fields: Mapping[str, object]) -> HookFact:
        fact = plain(fields)
        said = json.dumps(fields.get("tool_input"), ensure_ascii=False)
        return HookFact(
            kind=kind,
            text=plain_text(said[:_MAX_TEXT]),
            tool=fact.tool,
            transcript=fact.transcript,
        )

    return read


_READERS = {
    "SessionStart": _fact("started", "source"),
    "UserPromptSubmit": _fact("prompt", "prompt"),
    "PreToolUse": _tool("tool"),
    "PostToolUse": _tool("tool_done"),
    "PostToolUseFailure": _tool("tool_done"),
    "PermissionRequest": _tool("permission"),
    "Notification": _fact("notified", "message"),
    "Stop": _fact("finished", "last_assistant_message"),
    "StopFailure": _fact("failed", "last_assistant_message"),
    "SessionEnd": _fact("ended", "reason"),
}
