"""The arguments of calls about the way out: hosts, and what goes with them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from csb_mcp.config import FORWARDS
from csb_mcp.decode.fields import Fields
from csb_mcp.decode.values import list_items, named, one_of, reference, shown, truth
from csb_mcp.errors import InvalidInput
from csb_mcp.lib.hosts import normal_pattern
from csb_mcp.model import PRESETS

MAX_HOSTS = 256
MAX_SECRETS = 32
MAX_HOST = 262  # characters: a name, a star before it and a port after it
_SECRET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AllowHost:
    """Arguments of allow_host. ``host`` is in its one spelling, or names a preset."""

    sandbox: str
    host: str
    once: bool


@dataclass(frozen=True, slots=True)
class DenyHost:
    """Arguments of deny_host."""

    sandbox: str
    host: str


def allow_host(values: object) -> AllowHost:
    """Arguments of allow_host."""
    fields = Fields(values, ("sandbox", "host", "once"))
    return AllowHost(
        fields.need("sandbox", reference),
        fields.need("host", host),
        fields.get("once", truth, False),
    )


def deny_host(values: object) -> DenyHost:
    """Arguments of deny_host."""
    fields = Fields(values, ("sandbox", "host"))
    return DenyHost(fields.need("sandbox", reference), fields.need("host", host))


def host(value: object) -> str:
    """``example.org``, ``*.example.org``, either with ``:PORT``; or the name of a preset."""
    if isinstance(value, str) and value in PRESETS:
        return value
    try:
        return normal_pattern(value)
    except ValueError as error:
        raise InvalidInput(
            str(error),
            hint='Give "example.org", "*.example.org", either with ":PORT", or a preset: '
            + ", ".join(PRESETS),
        ) from error


def hosts(value: object) -> tuple[str, ...]:
    """Hosts and presets, from a list, or from one string in which commas or blanks divide them."""
    return _several(value, host, MAX_HOSTS)


def secret_names(value: object) -> tuple[str, ...]:
    """Names of the settings' secrets, as :func:`hosts`."""
    return _several(value, _secret_name, MAX_SECRETS)


def forwards(value: object) -> tuple[str, ...]:
    """What is let in from the host, as :func:`hosts`."""
    return _several(value, one_of(FORWARDS), len(FORWARDS))


def _several(value: object, convert: Callable[[object], T], most: int) -> tuple[T, ...]:
    items = value.replace(",", " ").split() if isinstance(value, str) else list_items(value)
    if len(items) > most:
        raise InvalidInput(f"{len(items)} are too many, {most} the most")
    found = [named(f"[{index}]", convert, item) for index, item in enumerate(items)]
    return tuple(dict.fromkeys(found))


def _secret_name(value: object) -> str:
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        raise InvalidInput(
            f"{shown(value)} is not the name of a secret",
            hint="The settings name secrets; a value is never given here",
        )
    return value
