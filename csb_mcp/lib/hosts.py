"""Names of hosts, and patterns of them: read strictly, for a filter depends on it.

Standard library only, and little of it: the egress proxy starts with this.
"""

_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_WEB = (80, 443)


def normal_host(text: object) -> str:
    """The name in its one spelling: lower case, no final dot.

    Raises ValueError for what is no name of a host in ASCII (RFC 1123, and underscores, which are
    in use): an address in any spelling that a resolver takes for one, an empty or overlong label, a
    control character.
    """
    name = text.lower().removesuffix(".") if isinstance(text, str) and text.isascii() else ""
    labels = name.split(".")
    if not name or len(name) > 253 or not all(map(_is_label, labels)):
        raise ValueError(f"{_shown(text)} is not the name of a host in ASCII")
    # As the URL standard ends a domain: what has a number there is an IPv4 address, or nothing.
    last = labels[-1]
    if last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:])):
        raise ValueError(f"{_shown(text)} is an address; name the host")
    return name


def normal_pattern(text: object) -> str:
    """``host``, ``*.host``, each with or without ``:port``, in its one spelling. Raises ValueError.

    ``*`` stands for one or more whole labels, at the beginning only, and below two others at least:
    ``*.org`` would be half the internet.
    """
    pattern, colon, port = text.partition(":") if isinstance(text, str) else ("", "", "")
    name = normal_host(pattern.removeprefix("*."))
    if pattern.startswith("*.") and "." not in name:
        raise ValueError(f"{_shown(text)} is too wide; name two labels at least")
    star = "*." if pattern.startswith("*.") else ""
    return star + name + (f":{normal_port(port)}" if colon else "")


def normal_port(text: str) -> int:
    """From 1 to 65535, in decimal digits alone. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65536):
        raise ValueError(f"{_shown(text)} is not a port")
    return int(text)


def matches(pattern: str, host: str, port: int) -> bool:
    """Whether a pattern names this host and port, all in their one spelling."""
    name, _, wanted = pattern.partition(":")
    if port != int(wanted) if wanted else port not in _WEB:
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _is_label(label: str) -> bool:
    sound = 0 < len(label) < 64 and _LABEL.issuperset(label)
    return sound and label[0] != "-" and label[-1] != "-"


def _shown(text: object) -> str:
    return ascii(text)[:80]
