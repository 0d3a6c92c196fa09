"""Hosts that were asked for and that no rule names: remembered, and told, but never too often."""

import time
from _collections_abc import Callable

MOST_NAMES = 256
HOLD_SECONDS = 0.15  # how long a refusal waits for somebody to look at who asked
_EVERY = 1.0  # seconds between two words about one name
_MOST_AT_ONCE = 50  # names told a second
Send = Callable[[dict[str, object]], None]


class _Asked:
    __slots__ = ("count", "last", "owed", "peer", "told")

    def __init__(self) -> None:
        self.count, self.last, self.told, self.peer = 0, 0.0, float("-inf"), 0
        self.owed = False  # somebody asked since it was told


class Asks:
    """``send`` is whom to tell, while there is one. ``later`` calls after so many seconds."""

    def __init__(self, later: Callable[[float, Callable[[], None]], None]) -> None:
        self.send: Send | None = None
        self._later = later
        self._names: dict[tuple[str, int], _Asked] = {}  # who asked last stands last
        self._held: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._left, self._planned = _MOST_AT_ONCE, False

    def known(self) -> list[dict[str, object]]:
        """What a new listener should hear first; so it is told."""
        for one in self._names.values():
            one.owed = False
        return [
            {"host": host, "port": port, "count": one.count, "time": one.last}
            for (host, port), one in self._names.items()
        ]

    def keep(self, still: Callable[[str, int], bool]) -> None:
        """Forget the others: they are decided now."""
        self._names = {name: one for name, one in self._names.items() if still(*name)}

    def ask(self, host: str, port: int, peer: int, now: float, then: Callable[[], None]) -> None:
        """Somebody asked. ``then`` is called once it was looked at, at once if nobody looks."""
        one = self._names.pop((host, port), None) or _Asked()
        self._names[host, port] = one
        if len(self._names) > MOST_NAMES:
            del self._names[next(iter(self._names))]
        one.count, one.last, one.peer, one.owed = one.count + 1, time.time(), peer, True
        if self.send is None:
            then()
        elif now - one.told < _EVERY or not self._left:
            then()
            self._plan()
        else:
            self._hold(self._tell(host, port, one, now), then)

    def seen(self, number: object) -> None:
        """The listener has looked at who asked."""
        held = self._held.pop(number, None) if isinstance(number, int) else None
        if held:
            held()

    def deaf(self) -> None:
        """Nobody listens any more."""
        self.send = None
        for number in list(self._held):
            self.seen(number)

    def _hold(self, number: int, then: Callable[[], None]) -> None:
        self._held[number] = then
        self._later(HOLD_SECONDS, lambda: self.seen(number))

    def _tell(self, host: str, port: int, one: _Asked, now: float) -> int:
        self._number += 1
        one.told, one.owed = now, False
        self._left -= 1
        self._plan()
        told = {"id": self._number, "host": host, "port": port, "count": one.count}
        if self.send:
            self.send({"asked": {**told, "time": one.last, "peer": one.peer}})
        return self._number

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._later(_EVERY, self._catch_up)

    def _catch_up(self) -> None:
        """Once a second while there is something to say: what was owed."""
        self._planned, self._left = False, _MOST_AT_ONCE
        now = time.monotonic()
        for (host, port), one in list(self._names.items()):
            if one.owed and self._left and self.send:
                self._tell(host, port, one, now)
