"""Whether the proxy's count and the transcripts agree. Plain computation.

One of them is ahead for a moment all the time: a proxy counts as an answer passes, a transcript has
it when it is whole. Some requests stand in no transcript (for a title, say), and those are small.
So it takes a large difference that stays while nothing moves, or for long, to be told.
"""

from collections.abc import Mapping

from csb_mcp.model import AgentUsage

SETTLED_SECONDS = 5.0  # without a word from either, and without an answer under way
LONGEST_SECONDS = 120.0  # that one may be behind the other
LEAST_TOKENS, LEAST_SHARE = 1000, 0.1  # what is less is nobody's concern


class Comparison:
    """Of one sandbox."""

    def __init__(self) -> None:
        self._said: tuple[int, int] | None = None
        self._moved = self._began = 0.0

    def look(self, usage: AgentUsage, under_way: int, now: float) -> Mapping[str, str] | None:
        """What there is to tell, in numbers; None as long as there is nothing."""
        if usage.counted is None:
            return None
        said = usage.counted.tokens, usage.total.total
        if said != self._said:
            self._said, self._moved = said, now
        gap, larger = abs(said[0] - said[1]), max(said)
        if gap < LEAST_TOKENS or gap < LEAST_SHARE * larger:
            self._began = 0.0
            return None
        self._began = self._began or now
        settled = not under_way and now - self._moved >= SETTLED_SECONDS
        if not settled and now - self._began < LONGEST_SECONDS:
            return None
        return {
            "counted": str(said[0]),
            "transcript": str(said[1]),
            "uncounted": str(usage.counted.uncounted),
        }
