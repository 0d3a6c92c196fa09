"""Which hosts may be reached. Nothing, until somebody says so."""

from _collections_abc import Iterable

from csb_mcp.lib.hosts import matches, normal_host, normal_pattern

ONCE_SECONDS = 600.0
_MOST_ONCE = 256
ALLOWED, ASKED, DENIED = "allowed", "asked", "denied"
FORBIDDEN, FAILED = "forbidden", "failed"
"""Verdicts, as they stand in the log."""


class Rules:
    """Patterns; a denial wins. ``fixed``: nobody is there to be asked for more.

    ``awaited``: somebody will say what is allowed, and has not yet.
    """

    def __init__(self, allow: Iterable[object] = (), *, fixed: bool = False) -> None:
        self.fixed = fixed
        self.awaited = not fixed
        self._allow = [normal_pattern(pattern) for pattern in allow]
        self._deny: list[str] = []
        self._once: list[tuple[str, int, float]] = []

    def replace(self, allow: Iterable[object], deny: Iterable[object]) -> None:
        """All of them; none of them if one is wrong. Raises ValueError."""
        allowed = [normal_pattern(pattern) for pattern in allow]
        self._deny = [normal_pattern(pattern) for pattern in deny]
        self._allow = allowed
        self.awaited = False

    def verdict(self, host: str, port: int) -> str:
        """For a host in its one spelling: allowed, denied, or to be asked for."""
        if any(matches(pattern, host, port) for pattern in self._deny):
            return DENIED
        if any(matches(pattern, host, port) for pattern in self._allow):
            return ALLOWED
        return DENIED if self.fixed else ASKED

    def add_once(self, host: object, port: object, now: float) -> tuple[str, int]:
        """One connection to it may pass, for ten minutes; gives its name. Raises ValueError."""
        if not isinstance(port, int) or not 0 < port < 65536:
            raise ValueError("a port is a number from 1 to 65535")
        name = normal_host(host)
        self.give_back((name, port, now + ONCE_SECONDS))
        return name, port

    def take_once(self, host: str, port: int, now: float) -> tuple[str, int, float] | None:
        """Use up such a permission, if there is one."""
        self._once = [one for one in self._once if one[2] > now]
        found = next((one for one in self._once if one[:2] == (host, port)), None)
        if found:
            self._once.remove(found)
        return found

    def give_back(self, permission: tuple[str, int, float]) -> None:
        """It was not used after all: the host could not be reached."""
        self._once = [*self._once[1 - _MOST_ONCE :], permission]
