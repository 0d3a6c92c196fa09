"""What backends need that are not built yet: told, and nothing more."""

import os
from collections.abc import Iterator
from pathlib import Path

from csb_mcp.host.checks.outcome import Check, Outcome
from csb_mcp.host.distribution import here
from csb_mcp.host.launchers import find_tool

_KVM = Path("/dev/kvm")
_TOOLS = (
    ("systemd-nspawn", "container backend"),
    ("qemu-system-x86_64", "vm backend"),
)


def checks() -> Iterator[Check]:
    """One for each of them."""
    for name, whose in _TOOLS:
        path = find_tool(name)
        repair = "" if path else here().install(name)
        yield Check(name, Outcome.LATER, f"{path or 'not here'} ({whose})", repair)
    yield _kvm()


def _kvm() -> Check:
    if not _KVM.exists():
        detail, repair = "not here: guests would be emulated, which is slow", ""
    elif not os.access(_KVM, os.R_OK | os.W_OK):
        detail, repair = "not open to this user", "usermod -aG kvm USER, then log in anew"
    else:
        # A nested one may open, answer and run a guest's first instructions, and yet hang later.
        detail, repair = "opens; whether a guest comes up is seen when one does", ""
    return Check("kvm", Outcome.LATER, f"{detail} (vm backend)", repair)
