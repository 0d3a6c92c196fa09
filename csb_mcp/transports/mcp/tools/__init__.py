"""The tools, by subject."""

from csb_mcp.transports.mcp.tool import Definition
from csb_mcp.transports.mcp.tools import (
    admin,
    commands,
    create,
    desktop,
    display,
    egress,
    lifecycle,
    supervision,
    terminal,
    usage,
    waiting,
)

TOOLSETS: dict[str, tuple[Definition, ...]] = {
    "core": (
        create.CREATE,
        lifecycle.LIST,
        supervision.OBSERVE,
        supervision.SEND_PROMPT,
        supervision.ANSWER,
        terminal.READ,
        terminal.SEND_KEYS,
        waiting.WAIT,
        commands.RUN,
        display.SCREENSHOT,
        usage.METRICS,
        lifecycle.PAUSE,
        lifecycle.RESUME,
        lifecycle.STOP,
        lifecycle.DELETE,
    ),
    "desktop": (desktop.CLICK, desktop.DRAG, desktop.SCROLL, desktop.TYPE_TEXT),
    "egress": (egress.EGRESS, egress.ALLOW_HOST, egress.DENY_HOST),
    "admin": (admin.VERIFY,),
}
"""Tools by set, in the order in which they are listed."""

DEFAULT_TOOLSETS = ("core", "desktop")
WHEN_ASKED = ("egress",)
"""With the default sets these are listed while a host waits for an answer; they work always."""
