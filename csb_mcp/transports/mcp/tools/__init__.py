"""The tools, by subject."""

from csb_mcp.transports.mcp.tool import Definition
from csb_mcp.transports.mcp.tools import (
    commands,
    create,
    desktop,
    display,
    lifecycle,
    terminal,
    usage,
    waiting,
)

TOOLSETS: dict[str, tuple[Definition, ...]] = {
    "core": (
        create.CREATE,
        lifecycle.LIST,
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
}
"""Tools by set, in the order in which they are listed."""

DEFAULT_TOOLSETS = ("core", "desktop")
