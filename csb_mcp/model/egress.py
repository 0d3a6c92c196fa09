"""What a sandbox may reach through its egress proxy, what it tried to, and what came of it.

A host is written as ``example.org`` (that name alone), ``*.example.org`` (every name below it, not
itself) or either with ``:PORT``; without one, ports 80 and 443. Names are lower case, in ASCII.
"""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What the proxy did with one connection."""

    ALLOWED = "allowed"
    ASKED = "asked"  # no rule names that host: refused, and an egress request for the supervisor
    DENIED = "denied"  # a supervisor denied that host
    FORBIDDEN = "forbidden"  # no rule can allow it: an address, a port or a form that is refused
    FAILED = "failed"  # allowed, but it could not be reached, or broke off while being set up


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRequest:
    """A host that a sandbox tried to reach and that no rule names; it waits for an answer.

    ``program`` is the one inside that asked last, if it could be seen: its own word.
    """

    host: str
    port: int
    count: int
    first: float
    last: float
    program: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One line of a sandbox's connection log.

    ``why`` tells what the verdict does not; ``address`` is the one that was connected to.
    ``sent`` and ``received`` are bytes as seen from inside.
    """

    time: float
    host: str
    port: int
    verdict: Verdict
    why: str = ""
    address: str = ""
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedHost:
    """All connections that there ever were to one host and port, added up.

    Without a name: of hosts beyond as many as are kept apart.
    """

    host: str
    port: int
    allowed: int
    refused: int
    sent: int
    received: int
    last: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """The way out of one sandbox. ``open``: its proxy answers (never without ``allowlist``).

    ``allowed`` and ``denied`` are the rules in force, presets by their names; a denial wins.
    ``connections`` are the last ones, oldest first.
    """

    network: str
    open: bool
    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    pending: tuple[EgressRequest, ...] = ()
    hosts: tuple[TriedHost, ...] = ()
    connections: tuple[Connection, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A proxy tells that a host was asked for which no rule names."""

    host: str
    port: int
    count: int
    time: float
    program: str | None = None
