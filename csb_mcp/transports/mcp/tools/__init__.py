"""The tools, by subject."""

from csb_mcp.transports.mcp.tool import Definition
from csb_mcp.transports.mcp.tools import commands, display, lifecycle, terminal, usage

TOOLSETS: dict[str, tuple[Definition, ...]] = {
    "core": (
        lifecycle.CREATE,
        lifecycle.LIST,
        terminal.READ,
        terminal.SEND_KEYS,
        terminal.WAIT,
        commands.RUN,
        display.SCREENSHOT,
        usage.METRICS,
        lifecycle.STOP,
        lifecycle.DELETE,
    ),
}
"""Tools by set, in the order in which they are listed."""

DEFAULT_TOOLSETS = ("core",)
