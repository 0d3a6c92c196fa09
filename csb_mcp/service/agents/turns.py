"""The turns of an agent: whether one goes on, and the ends that nobody was told of yet."""

from csb_mcp.lib.text import one_line

TEXT = 500  # characters of what was said
LATE = 1.0  # a transcript may lag behind the hook that tells of a turn's end


class Turns:
    """``on``: one has begun and not ended. ``finished``: how many ended.

    ``whole``: the transcript has the end of the last.
    """

    def __init__(self, *, on: bool = False, finished: int = 0) -> None:
        self.on = on
        self.finished = finished
        self._ends: list[str] = []  # what was said at them
        self._ended_at = 0.0
        self.whole = not on

    def begin(self) -> None:
        """One begins."""
        self.on, self.whole = True, False

    def written(self) -> None:
        """The transcript has its end."""
        self.whole = True

    def end(self, said: str, now: float) -> None:
        """It ends, if one goes on."""
        if self.on:
            self.on, self._ended_at = False, now
            self._ends.append(one_line(said, TEXT))
            self.finished += 1

    def due(self, now: float) -> list[str]:
        """Ends to tell of, each once the transcript has all of it, which may be after the hook.

        Or never: then after a while.
        """
        if not self.whole and now - self._ended_at < LATE:
            return []
        return self.ends()

    def ends(self) -> list[str]:
        """All of them."""
        ends, self._ends = self._ends, []
        return ends
