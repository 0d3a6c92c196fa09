"""The strongest way to bound a sandbox that this host has: tried from the top, chosen once.

1. a systemd scope, where systemd manages cgroup v2 and a first one really came up;
2. cgroup v2 below a folder that is ours: ``cgroup_parent``, root's own, or what we were delegated;
3. cgroup v1, as root or below folders that root gave us (a hybrid host's v2 has no controllers);
4. rlimits and signals.
"""

import asyncio
import contextlib
import os
import pwd
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from csb_mcp.config import Settings
from csb_mcp.host.limits.cgroup_v1 import OPTIONAL, REQUIRED, V1Rung
from csb_mcp.host.limits.cgroup_v2 import V2Rung
from csb_mcp.host.limits.files import NAME, Mount, mounts
from csb_mcp.host.limits.scope import ScopeRung
from csb_mcp.host.limits.unbounded import UnboundedRung
from csb_mcp.model import Problem, Sandbox
from csb_mcp.ports import Enclosure

_LINGER = Path("/var/lib/systemd/linger")
_DELEGATE = (
    "mkdir -p /etc/systemd/system/user@.service.d && printf "
    "'[Service]\\nDelegate=cpu cpuset io memory pids\\n' "
    "> /etc/systemd/system/user@.service.d/delegate.conf; systemctl daemon-reload; log in anew"
)


class Rung(Protocol):
    """One way to bound sandboxes."""

    @property
    def enforced_by(self) -> Mapping[str, str]:
        """As an enclosure's."""
        ...

    def make(self, sandbox: Sandbox) -> Enclosure:
        """A new one. Raises HostUnable; nothing is left then."""
        ...

    def find(self, sandbox: Sandbox) -> Enclosure | None:
        """One that was made earlier, if there is anything of it."""
        ...


class HostLimiter:
    """See :class:`~csb_mcp.ports.Limiter`. ``found``: hierarchies, if not those mounted here."""

    def __init__(self, settings: Settings, found: Sequence[Mount] | None = None) -> None:
        self._settings = settings
        self._found = found
        self._choosing = threading.Lock()
        self._chosen: Rung | None = None
        self._scope_said = ""

    def problems(self) -> Sequence[Problem]:
        """See :class:`~csb_mcp.ports.Limiter`."""
        rung = self._choose()
        if isinstance(rung, UnboundedRung):
            why = "memory is bounded for each process only, processor time not at all"
            said = f" (systemd-run: {self._scope_said})" if self._scope_said else ""
            return [Problem("limits", why + said, self._repair(), fatal=False)]
        problems: list[Problem] = []
        if rung.enforced_by["cpus"] == "nothing":
            repair = _DELEGATE if os.geteuid() else "enable the kernel's cpu controller"
            problems.append(Problem("limits", "processor time is not bounded", repair, fatal=False))
        if isinstance(rung, ScopeRung) and (name := _without_linger()):
            why = "sandboxes end when you log out"
            problems.append(Problem("linger", why, f"loginctl enable-linger {name}", fatal=False))
        return problems

    async def make(self, sandbox: Sandbox) -> Enclosure:
        """See :class:`~csb_mcp.ports.Limiter`."""
        rung = self._chosen or await asyncio.to_thread(self._choose)
        return rung.make(sandbox)

    def adopt(self, sandbox: Sandbox) -> Enclosure:
        """See :class:`~csb_mcp.ports.Limiter`. Whichever way an earlier daemon chose."""
        for rung in self._rungs():
            if enclosure := rung.find(sandbox):
                return enclosure
        return UnboundedRung().find(sandbox)

    def _choose(self) -> Rung:
        with self._choosing:
            if self._chosen is None:
                self._chosen = self._best()
            return self._chosen

    def _best(self) -> Rung:
        for rung in self._rungs():
            if isinstance(rung, V1Rung) or rung.prepare():
                return rung
            if isinstance(rung, ScopeRung):
                self._scope_said = rung.said
        return UnboundedRung()

    def _rungs(self) -> list[ScopeRung | V2Rung | V1Rung]:
        """Those that may be, from the top."""
        found = mounts() if self._found is None else self._found
        rungs: list[ScopeRung | V2Rung | V1Rung] = []
        root = _unified(found)
        if self._settings.cgroup_parent:  # somebody made it for this
            rungs.append(V2Rung(self._settings.cgroup_parent))
        if root is not None:
            rungs += [ScopeRung(root), V2Rung(_delegated(root))]
        if v1 := V1Rung.on(found):
            rungs.append(v1)
        return rungs

    def _repair(self) -> str:
        found = mounts() if self._found is None else self._found
        user = _user_name()
        if _unified(found) is not None:
            return f"loginctl enable-linger {user}, and log in anew; or set cgroup_parent"
        points = {mount.point for mount in found if mount.controllers & {*REQUIRED, *OPTIONAL}}
        if not points:
            return "mount the cgroup hierarchies"
        folders = " ".join(f"{point / NAME}" for point in sorted(points))
        return f"as root: mkdir -p {folders} && chown {user} {folders}"


def _unified(found: Sequence[Mount]) -> Path | None:
    """Mount point of the v2 hierarchy if it has our controllers: on a hybrid host v1 has them."""
    for mount in found:
        with contextlib.suppress(OSError):
            if mount.version == 2 and {"memory", "pids"} <= set(
                (mount.point / "cgroup.controllers").read_text().split()
            ):
                return mount.point
    return None


def _delegated(root: Path, own: Path = Path("/proc/self/cgroup")) -> Path:
    """Where we may make cgroups: root at the top, a user in its own, if that was delegated.

    A daemon that has stepped aside is one folder deeper than what it was given.
    """
    if os.geteuid() == 0:
        return root
    lines = [line for line in own.read_text().splitlines() if line.startswith("0::/")]
    mine = root / lines[0].removeprefix("0::/") if lines else root
    return mine.parent if mine.name == f"{NAME}-daemon" else mine


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _without_linger() -> str | None:
    """Our name, if the user's manager ends with the last login."""
    name = _user_name()
    return name if os.geteuid() and not (_LINGER / name).exists() else None
