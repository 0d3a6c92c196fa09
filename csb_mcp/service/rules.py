"""Which hosts a sandbox may reach: rules as callers write them, and the settings' bound on them."""

from collections.abc import Iterable

from csb_mcp.errors import Conflict, Forbidden, InvalidInput
from csb_mcp.lib.hosts import matches, normal_pattern
from csb_mcp.model import PRESETS, EgressRequest, resolved

MAX_RULES = 256  # of each kind, in one sandbox
_WEB = ("80", "443")


def normal_rule(text: str, field: str) -> str:
    """The name of a preset, or a pattern in its one spelling. Raises InvalidInput."""
    if text in PRESETS:
        if PRESETS[text]:
            return text
        raise InvalidInput(
            f"the preset {text!r} is empty here: this host's {text} names no index",
            field=field,
            hint="Name the index's hosts",
        )
    try:
        return normal_pattern(text)
    except ValueError as error:
        raise InvalidInput(
            str(error),
            field=field,
            hint='Give "example.org", "*.example.org", either with ":PORT", or a preset: '
            + ", ".join(PRESETS),
        ) from error


def normal_rules(texts: Iterable[str], field: str) -> tuple[str, ...]:
    """Each of them once, in order. Raises InvalidInput."""
    rules = tuple(dict.fromkeys(normal_rule(text, field) for text in texts))
    if len(rules) > MAX_RULES:
        raise InvalidInput(f"{len(rules)} hosts are too many, {MAX_RULES} the most", field=field)
    return rules


def check_bound(rules: Iterable[str], bound: tuple[str, ...], field: str) -> None:
    """Refuse what the settings' ``egress_hosts`` do not cover, hosts of presets too.

    Raises Forbidden.
    """
    for pattern in resolved(tuple(rules)):
        if not any(within(pattern, wide) for wide in bound):
            raise Forbidden(
                f"the settings do not let {pattern} be allowed",
                field=field,
                choices=bound,
                hint="egress_hosts in the settings bounds it",
            )


def within(pattern: str, wide: str) -> bool:
    """Whether ``wide`` (``*``: any) names all that ``pattern`` names."""
    if wide in ("*", pattern):
        return True
    name, _, port = pattern.partition(":")
    wide_name, _, wide_port = wide.partition(":")
    if port != wide_port and not (port in _WEB and not wide_port):
        return False
    return name == wide_name or (wide_name.startswith("*.") and name.endswith(wide_name[1:]))


def named(host: str, port: int, rules: tuple[str, ...]) -> bool:
    """Whether one of these rules is about this host and port."""
    return any(matches(pattern, host, port) for pattern in resolved(rules))


def answered(
    pending: tuple[EgressRequest, ...], rules: tuple[str, ...]
) -> tuple[EgressRequest, ...]:
    """Those of ``pending`` that none of the rules answers."""
    return tuple(asked for asked in pending if not named(asked.host, asked.port, rules))


def with_allowed(
    rule: str, allowed: tuple[str, ...], denied: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both lists with ``rule`` allowed; the same denial is lifted.

    Raises Conflict if a wider denial would win, InvalidInput (too many).
    """
    denied = tuple(other for other in denied if other != rule)
    for other in denied:
        if rule not in PRESETS and any(within(rule, wide) for wide in resolved((other,))):
            raise Conflict(
                f"{other} was denied, and a denial wins",
                field="host",
                hint=f"to allow {other} lifts that denial",
            )
    return _added(rule, allowed), denied


def with_denied(
    rule: str, allowed: tuple[str, ...], denied: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both lists with ``rule`` denied; the same permission is taken back. Raises InvalidInput."""
    return tuple(other for other in allowed if other != rule), _added(rule, denied)


def _added(rule: str, rules: tuple[str, ...]) -> tuple[str, ...]:
    return normal_rules((*rules, rule), "host")
