"""Hosts that belong together, by a name that can stand where a host may.

A preset has no dot, so it is never taken for a host. They are what each service documents or what
its client was seen to ask for; nothing here is a promise that a service stays where it is.
"""

from collections.abc import Mapping
from types import MappingProxyType

PRESETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "anthropic": ("api.anthropic.com", "statsig.anthropic.com"),
        "openai": ("api.openai.com",),
        "gemini": ("generativelanguage.googleapis.com",),
        "pypi": ("index.example", "files.index.example"),
        "npm": ("npm.index.example",),
        "crates": ("index.index.example", "static.index.example", "crates.example"),
        "go": ("proxy.index.example", "sum.index.example", "storage.index.example"),
        "debian": ("deb.index.example", "security.index.example"),
        "ubuntu": ("archive.index.example", "security.index.example", "ports.index.example"),
        "nixos": ("cache.index.example", "channels.index.example"),
        "github": (
            "github.com",
            "api.github.com",
            "codeload.github.com",
            "raw.githubusercontent.com",
            "objects.githubusercontent.com",
        ),
        "gitlab": ("gitlab.com",),
    }
)


def resolved(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """With the hosts of presets in their place, each once, in order."""
    found = [name for host in hosts for name in PRESETS.get(host, (host,))]
    return tuple(dict.fromkeys(found))
