"""Claude Code's hooks: which there are, and what each says."""

from dataclasses import replace
from typing import Any

from csb_mcp.agents import spool
from csb_mcp.agents.claude.words import as_typed
from csb_mcp.agents.spool import Fields, plain, read_with, text_of, tool
from csb_mcp.model import HookFact

_SECONDS = 5
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
    return spool.settings(EVENTS, _SECONDS)


def read_hook(content: bytes) -> HookFact | None:
    """See ``ports.Agent.hook``."""
    return read_with(_READERS, content)


def _prompt(fields: Fields) -> HookFact:
    text = as_typed(text_of(fields, "prompt"))
    # A task in the background ended: Claude Code goes on by itself, and calls that a prompt.
    kind = "notified" if text.startswith("<task-notification>") else "prompt"
    return replace(plain(kind, "prompt")(fields), text=text)


_READERS = {
    "SessionStart": plain("started", "source"),
    "UserPromptSubmit": _prompt,
    "PreToolUse": tool("tool"),
    "PostToolUse": tool("tool_done"),
    "PostToolUseFailure": tool("tool_done"),
    "PermissionRequest": tool("permission"),
    "Notification": plain("notified", "message"),
    "Stop": plain("finished", "last_assistant_message"),
    "StopFailure": plain("failed", "last_assistant_message"),
    "SessionEnd": plain("ended", "reason"),
}
