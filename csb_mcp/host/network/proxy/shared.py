"""What all connections of one proxy share."""

from _collections_abc import Callable

from csb_mcp.host.network.proxy.asks import Asks
from csb_mcp.host.network.proxy.journal import Journal
from csb_mcp.host.network.proxy.loop import Loop
from csb_mcp.host.network.proxy.resolver import Resolver
from csb_mcp.host.network.proxy.rules import ALLOWED, DENIED, Rules
from csb_mcp.host.network.proxy.tally import Tally

Serve = Callable[[int, int], tuple[int, int, str]]
"""Serves the client's and the server's descriptor to their end; gives sent, received, why."""


class Shared:
    """``secrets``: how to serve TLS for a host whose secret is put in here.

    ``tally``: what was used of agents' APIs, once one of those hosts is an API.
    """

    def __init__(self, loop: Loop, rules: Rules, journal: Journal) -> None:
        self.loop, self.rules, self.journal = loop, rules, journal
        self.asks = Asks(loop.later)
        self.resolver = Resolver(loop.tell)
        self.secrets: dict[str, Serve] = {}
        self.tally: Tally | None = None
        self.threads = 0  # that serve TLS

    def verdict(self, host: str, port: int) -> str:
        """As the rules say; and the host of a secret is allowed by itself."""
        found = self.rules.verdict(host, port)
        own = port == 443 and host in self.secrets
        return ALLOWED if own and (found != DENIED or self.rules.fixed) else found
