"""What an agent stopped at, sorted by its words, with what to do next."""

import re
from collections.abc import Iterable

from csb_mcp.lib.text import one_line
from csb_mcp.model import AgentFault

_MAX_WORDS = 500
MAX_READ = 2000
_HINTS = {
    "billing": "its account has no credit left: add some, or give it another key",
    "login": "its key or token was refused: give a valid one, then create the sandbox again",
    "rate_limit": "wait until the limit is over, then send the prompt again",
    "overloaded": "wait a minute, then send the prompt again",
    "disk_full": "free space in the project or the home, then send the prompt again",
    "network": "see which hosts it tried, and allow its API's host",
    "api": "read its words; sending the prompt again may help",
}


def sorted_fault(words: str, kinds: Iterable[tuple[str, str]]) -> AgentFault:
    """Of the first kind whose pattern is found in ``words``, upper and lower case alike."""
    words = words[:MAX_READ]
    kind = next((k for k, pattern in kinds if re.search(pattern, words, re.IGNORECASE)), "other")
    return AgentFault(
        kind=kind,
        words=one_line(words, _MAX_WORDS),
        hint=_HINTS.get(kind, "look at the screen"),
    )
