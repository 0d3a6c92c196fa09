"""What ways out are made by: the host's addresses, its routes and its resolver.

Those of a spare were made a while ago; a laptop may have changed networks since.
"""

from pathlib import Path

_WHOLE = ("/proc/net/fib_trie", "/proc/net/if_inet6", "/etc/resolv.conf")
# Without the columns that count: device, destination, gateway, flags, mask; destination, its
# length, gateway, device.
_COLUMNS = {"/proc/net/route": (0, 1, 2, 3, 7), "/proc/net/ipv6_route": (0, 1, 4, 9)}


def outlook(network: str, root: Path = Path("/")) -> tuple[str, ...]:
    """All that a way out in this mode was made by, to be compared with another time's."""
    if network not in ("allowlist", "full"):
        return ()
    found = [_text(root, path) for path in _WHOLE]
    for path, columns in _COLUMNS.items():
        for line in _text(root, path).splitlines():
            fields = line.split()
            found.append(" ".join(fields[at] for at in columns if at < len(fields)))
    return tuple(found)


def _text(root: Path, path: str) -> str:
    try:
        return (root / path.lstrip("/")).read_text(errors="replace")
    except OSError:
        return ""  # there is no IPv6, say
