"""TLS that is ended here, for hosts whose secrets are put in. Imported only if there are any."""

import socket
from functools import partial

from csb_mcp.host.network.proxy import tls
from csb_mcp.host.network.proxy.shared import Serve


def serving(message: dict[str, object]) -> dict[str, Serve]:
    """By host, from the daemon's message. Raises ValueError, which has no secret in it."""
    return {host: partial(_serve, entry) for host, entry in tls.entries(message).items()}


def _serve(entry: tls.Entry, client: int, upstream: int) -> tuple[int, int, str]:
    """Blocks. Both descriptors stay the caller's."""
    inner, outer = socket.socket(fileno=client), socket.socket(fileno=upstream)
    try:
        return tls.serve(inner, outer, entry)
    finally:
        inner.detach()
        outer.detach()
