"""TLS that is ended here, for hosts whose secrets are put in. Imported only if there are any."""

import socket
from functools import partial

from csb_mcp.host.network.proxy import tls
from csb_mcp.host.network.proxy.shared import Serve
from csb_mcp.host.network.proxy.tally import Tally


def serving(message: dict[str, object], tally: Tally) -> dict[str, Serve]:
    """By host, from the daemon's message. Raises ValueError, which has no secret in it."""
    made = tls.entries(message)
    return {host: partial(_serve, entry, tally) for host, entry in made.items()}


def _serve(entry: tls.Entry, tally: Tally, client: int, upstream: int) -> tuple[int, int, str]:
    """Blocks. Both descriptors stay the caller's."""
    inner, outer = socket.socket(fileno=client), socket.socket(fileno=upstream)
    try:
        return tls.serve(inner, outer, entry, tally)
    finally:
        inner.detach()
        outer.detach()
