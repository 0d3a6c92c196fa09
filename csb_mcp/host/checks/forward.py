"""What the settings allow to be let into sandboxes: whether it is here to be let in."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from csb_mcp.config import Settings
from csb_mcp.errors import CsbError
from csb_mcp.host.checks.outcome import Check, enough
from csb_mcp.host.distribution import here
from csb_mcp.host.forwarding import Forwarder, Payload
from csb_mcp.host.launchers import find_tool

_PROGRAMS = {"git": "git", "gh": "gh", "dbus": "xdg-dbus-proxy"}


def checks(settings: Settings) -> Iterator[Check]:
    """One for each name in ``forward``; none, if nothing is allowed."""
    for name in settings.forward:
        yield _found(settings, name) if os.geteuid() else _program(name)


def _found(settings: Settings, name: str) -> Check:
    """As a create would look for it, with the environment that we have here."""
    with TemporaryDirectory() as folder:
        payload = Payload(os.getuid(), os.getgid(), Path(folder), Path(folder))
        try:
            Forwarder(settings).find((name,), payload)
        except CsbError as error:
            why = error.message.removeprefix(f"{name}: ")
            return enough(f"forward {name}", why, error.hint or "see forwarding.md", well=False)
    return enough(f"forward {name}", "found", "", well=True)


def _program(name: str) -> Check:
    """Which uid a payload of root's will have is not known yet, so only what is needed for all."""
    program = _PROGRAMS.get(name)
    well = program is None or find_tool(program) is not None
    detail = "allowed; whether a payload's uid may use it is seen when one asks for it"
    repair = here().install(program) if program else ""
    return enough(f"forward {name}", detail if well else f"no {program}", repair, well=well)
