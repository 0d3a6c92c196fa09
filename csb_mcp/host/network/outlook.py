"""What ways out are made by: the host's addresses, its routes, its resolver, its mounts.

Those of a spare were made a while ago; a laptop may have changed networks since.
"""

from pathlib import Path

_RESOLVER = ("/etc/resolv.conf",)
_NAMES = ("hosts", "host.conf", "gai.conf", "nsswitch.conf")
_WHOLE = {
    "allowlist": (*_RESOLVER, *(f"/etc/{name}" for name in _NAMES)),
    "full": (*_RESOLVER, "/proc/net/fib_trie", "/proc/net/if_inet6"),
}
_MOUNTS = "/proc/self/mountinfo"
# Without the columns that count: device, destination, gateway, flags, mask; destination, its
# length, gateway, device.
_COLUMNS = {"/proc/net/route": (0, 1, 2, 3, 7), "/proc/net/ipv6_route": (0, 1, 4, 9)}


def outlook(network: str, root: Path = Path("/")) -> tuple[str, ...]:
    """All that a way out in this mode was made by, to be compared with another time's."""
    found = [_text(root, path) for path in _WHOLE.get(network, ())]
    if network != "full":
        return tuple(found)
    mounts = _text(root, _MOUNTS)
    if not any(" / / " in line and " shared:" in line for line in mounts.splitlines()):
        found.append(mounts)  # those that come later are not seen by who waits behind pasta
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
