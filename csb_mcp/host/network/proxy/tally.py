"""What agents' APIs said was used, added up since this proxy started, and told to the daemon.

Answers are read in threads, each connection's in its own; told is it by the loop, at once and then
a few times a second.
"""

import _thread
import os
from _collections_abc import Callable, Sequence

from csb_mcp.host.network.proxy.loop import Loop

EVERY = 0.25  # seconds between two words to the daemon
KINDS = ("input", "output", "cache_creation", "cache_read")
_NUMBERS = ("answers", "uncounted", "estimated", "cut", "open")
_MOST_MODELS, _MOST_NAME = 16, 80
_MOST_IDS = 4096
Send = Callable[[dict[str, object]], None]


class Tally:
    """``send`` is whom to tell, while there is one; ``run`` tells this proxy from another."""

    def __init__(self, loop: Loop) -> None:
        self.send: Send | None = None
        self.run = os.urandom(8).hex()
        self._loop = loop
        self._lock = _thread.allocate_lock()
        self._models: dict[str, list[int]] = {}
        self._numbers: dict[str, int] = dict.fromkeys(_NUMBERS, 0)
        self._ids: dict[str, None] = {}  # of answers that were counted, the last ones
        self._planned, self._last = False, float("-inf")

    def message(self) -> dict[str, object]:
        """All of it, for the daemon."""
        with self._lock:
            models: dict[str, object] = {
                name: dict(zip(KINDS, used, strict=True)) for name, used in self._models.items()
            }
            return {"used": {"run": self.run, "models": models, **self._numbers}}

    def knows(self, name: str) -> bool:
        """Whether the answer with that id was counted; now it is."""
        with self._lock:
            if name in self._ids:
                return True
            if len(self._ids) >= _MOST_IDS:
                del self._ids[next(iter(self._ids))]
            self._ids[name] = None
            return False

    def add(self, model: str, used: Sequence[int]) -> None:
        """So many tokens more, by kind. From any thread, as what follows."""
        name = model[:_MOST_NAME] or "unknown"
        with self._lock:
            if name not in self._models and len(self._models) >= _MOST_MODELS:
                name = "other"
            known = self._models.setdefault(name, [0] * len(KINDS))
            for at, number in enumerate(used):
                known[at] += number
        self._changed()

    def count(self, **more: int) -> None:
        """So many answers more, of those that were counted, or not, or are under way."""
        with self._lock:
            for name, number in more.items():
                self._numbers[name] += number
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            planned, self._planned = self._planned, True
        if not planned:
            self._loop.tell(self._plan)

    def _plan(self) -> None:
        self._loop.later(max(0.0, self._last + EVERY - self._loop.now), self._tell)

    def _tell(self) -> None:
        with self._lock:
            self._planned = False
        self._last = self._loop.now
        if self.send:
            self.send(self.message())
