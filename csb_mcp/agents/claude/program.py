"""Where Claude Code is on this host."""

from collections.abc import Sequence
from pathlib import Path

from csb_mcp.agents.search import Wanted, located, managed, started
from csb_mcp.ports.agent import Program

_INSTALL = "install Claude Code (npm install -g @anthropic-ai/claude-code), or set `claude`"
# Below a home: its own installer's, and what npm and version managers have.
_HOME = (
    ".local/bin/claude",
    ".local/share/claude/versions/*",
    ".claude/local/claude",
    *managed("claude"),
)
_SYSTEM = ("/usr/local/bin/claude", "/usr/bin/claude", "/opt/claude/bin/claude")


def find(chosen: Path | None, home: Path, path: Sequence[str] = ()) -> Program:
    """The program to start and what to show of the host. ``path``: folders to look in first.

    Raises HostUnable.
    """
    wanted = Wanted("claude", _HOME, _SYSTEM, _INSTALL)
    return started(located(wanted, chosen, home, path), path)
