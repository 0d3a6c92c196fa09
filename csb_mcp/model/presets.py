"""Hosts that belong together, by a name that can stand where a host may.

A preset has no dot, so it is never taken for a host. Those of services are what each documents or
what its client was seen to ask for; nothing here is a promise that a service stays where it is.
Those of package indexes are named by the tool that uses them, and are what that tool is set up for
on this host, looked up when they are first needed.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache

from csb_mcp.lib.indexes import apt_hosts, npm_hosts, pip_hosts

_SERVICES = {
    "anthropic": ("api.anthropic.com", "statsig.anthropic.com"),
    "openai": ("api.openai.com",),
    "gemini": ("generativelanguage.googleapis.com",),
    "github": (
        "github.com",
        "api.github.com",
        "codeload.github.com",
        "raw.githubusercontent.com",
        "objects.githubusercontent.com",
    ),
    "gitlab": ("gitlab.com",),
}
_INDEXES: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "pip": cache(pip_hosts),
    "npm": cache(npm_hosts),
    "apt": cache(apt_hosts),
}


class _Presets(Mapping[str, tuple[str, ...]]):
    def __getitem__(self, name: str) -> tuple[str, ...]:
        return _SERVICES[name] if name in _SERVICES else _INDEXES[name]()

    def __contains__(self, name: object) -> bool:
        return name in _SERVICES or name in _INDEXES

    def __iter__(self) -> Iterator[str]:
        return iter((*_SERVICES, *_INDEXES))

    def __len__(self) -> int:
        return len(_SERVICES) + len(_INDEXES)


PRESETS: Mapping[str, tuple[str, ...]] = _Presets()
"""By name. That of an index is empty if this host has no such tool, or none that could be read."""


def resolved(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """With the hosts of presets in their place, each once, in order."""
    found = [name for host in hosts for name in PRESETS.get(host, (host,))]
    return tuple(dict.fromkeys(found))
