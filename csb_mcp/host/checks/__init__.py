"""Looks at a host before anybody needs it: what is there, what is tight, what later parts want.

The pieces themselves tell what they cannot do without (their ``problems``); here is what lies
around them. Nothing is changed, and no check takes longer than a moment.
"""

from csb_mcp.config import Settings
from csb_mcp.host.checks import forward, kernel, later, limits, places, tools
from csb_mcp.host.checks.outcome import Check, Outcome

__all__ = ["Check", "Outcome", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Look at everything. The folders of ``settings`` need not exist."""
    return [
        *tools.checks(settings),
        *kernel.checks(settings),
        *limits.checks(),
        *places.checks(settings),
        *forward.checks(settings),
        *later.checks(),
    ]
