"""Codex's hooks: which there are, and what each says. They are Claude Code's but for a few."""

from typing import Any

from csb_mcp.agents import spool
from csb_mcp.agents.spool import plain, read_with, tool
from csb_mcp.model import HookFact

_SECONDS = 3  # the most that it allows some of them
EVENTS = (
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PermissionRequest",
    "Stop",
    "Interrupt",
    "SessionEnd",
)


def settings() -> dict[str, Any]:
    """The part of ``hooks.json`` that has them called."""
    return spool.settings(EVENTS, _SECONDS)


def read_hook(content: bytes) -> HookFact | None:
    """See ``ports.Agent.hook``."""
    return read_with(_READERS, content)


_READERS = {
    "SessionStart": plain("started", "source"),
    "UserPromptSubmit": plain("prompt", "prompt"),
    "PreToolUse": tool("tool"),
    "PostToolUse": tool("tool_done"),
    "PermissionRequest": tool("permission"),
    "Stop": plain("finished", "last_assistant_message"),
    "Interrupt": plain("finished", "reason"),
    "SessionEnd": plain("ended", "reason"),
}
