"""Codex's words about what went wrong, sorted."""

from csb_mcp.agents.faults import sorted_fault
from csb_mcp.model import AgentFault

_NETWORK = (
    r"error sending request|connection (?:failed|refused|reset|closed)|timed? ?out|"
    r"waiting for network|stream disconnected|dns|certificate"
)
_KINDS = (
    ("billing", r"quota exceeded|billing|out of credits|spend cap|insufficient.quota"),
    ("login", r"\b401\b|\b403\b|unauthorized|api key|missing environment variable|sign.in|log in"),
    ("rate_limit", r"\b429\b|too many requests|rate.?limit|usage limit"),
    ("overloaded", r"high demand|overloaded|at capacity|\b503\b"),
    ("disk_full", r"ENOSPC|no space left"),
    ("network", _NETWORK),
    ("api", r"\b[45]\d\d\b|unexpected status|stream"),
)


def fault_of(words: str) -> AgentFault:
    """What ``words`` of the program, known to be about an error, tell."""
    return sorted_fault(words, _KINDS)
