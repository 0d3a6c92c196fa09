"""Switches by which a host keeps ordinary users from making user namespaces."""

from collections.abc import Iterator
from pathlib import Path

from csb_mcp.host.distribution import here
from csb_mcp.model import Problem

_APPARMOR = "kernel.apparmor_restrict_unprivileged_userns"
_GATES = (
    (_APPARMOR, 1, 0, "AppArmor lets only listed programs make user namespaces"),
    ("user.max_user_namespaces", 0, 10000, "user namespaces are switched off"),
    ("kernel.unprivileged_userns_clone", 0, 1, "only root may make user namespaces"),
)
NAMESPACES = "user namespaces"
"""What problems of this kind are called."""


def closed_gates(root: Path = Path("/proc/sys")) -> Iterator[Problem]:
    """What is closed here, with its repair; whether bwrap passes all the same is seen by trying."""
    for key, bad, good, why in _GATES:
        try:
            text = (root / key.replace(".", "/")).read_text()
        except OSError:
            continue  # this kernel has no such switch
        if text.strip() == str(bad):
            host = here()
            repair = host.allow_bwrap() if key == _APPARMOR else host.sysctl(key, good)
            yield Problem(NAMESPACES, f"{why} ({key} = {bad})", repair)
