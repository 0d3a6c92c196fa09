"""Claude Code's words about what went wrong, sorted."""

import re

from csb_mcp.agents.faults import MAX_READ, sorted_fault
from csb_mcp.model import AgentFault

_NETWORK = (
    r"connection (?:refused|error|reset|closed)|ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|timed out|"
    r"unable to connect|fetch failed|network|certificate"
)
# By what it says, the first that fits; what only a whole line says needs no more (``sure``).
_KINDS = (
    ("billing", r"credit balance|billing|spend(?:ing)? limit|out of (?:extra )?usage|payment"),
    ("login", r"/login\b|invalid api key|not logged in|authenticat|\b401\b|\b403\b|oauth|expired"),
    ("rate_limit", r"\b429\b|rate.?limit|(?:usage|session|weekly|hour) limit|limit reached"),
    ("overloaded", r"\b529\b|overloaded|at capacity"),
    ("disk_full", r"ENOSPC|no space left"),
    ("network", _NETWORK),
    ("api", r"api error|\b[45]\d\d\b"),
)
_SURE = re.compile(
    r"API Error\b|Please run /login\b|Not logged in\b|Invalid API key\b|"
    r"Credit balance (?:is )?too low|"
    r"Unable to connect\b|Connection (?:refused|error)\b|OAuth token\b|You've hit your\b|"
    r"Claude (?:AI )?usage limit reached|Your organization\b.*\bdisabled",
    re.IGNORECASE,
)


def fault_of(words: str, *, sure: bool = False) -> AgentFault | None:
    """What ``words`` of the program tell; None if ``sure`` is wanted and they may be any text."""
    words = words[:MAX_READ]
    if sure and not _SURE.match(words):
        return None
    return sorted_fault(words, _KINDS)
