"""Limits by a systemd scope, where systemd is what manages cgroup v2.

A scope of ours is delegated, so it may have a folder ``payload`` for pause, and a process killed
for its memory does not end the rest (systemd.scope(5), OOMPolicy). Where it lies is known
beforehand: ``csb_mcp.slice/csb-mcp-ID.scope`` below the manager's own cgroup.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from csb_mcp.host.launchers import find_tool
from csb_mcp.host.limits.cgroup_v2 import V2Enclosure, enforced_by
from csb_mcp.host.limits.files import NAME
from csb_mcp.model import Sandbox, SandboxSpec

SOURCE = "systemd scope"
_SLICE = "csb_mcp.slice"  # a dash would stand for a slice in a slice
_PROBE_SECONDS = 5.0
_PROBED = {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"}
_PROBE_SPEC = SandboxSpec(project_dir=Path("/"), memory=64 * 1024**2, cpus=0.5, pids=16)
# Says where it is, then what is in force there.
_PROBE = (
    'cat /proc/self/cgroup; cd "$1" && for name in memory.max pids.max cpu.max; do '
    'printf "%s " "$name"; cat "$name" || echo; done'
)
# What systemd-run needed or set is not for the tree. The folder is made before anything else runs.
_ENTER = (
    "unset XDG_RUNTIME_DIR INVOCATION_ID; "
    '(umask 022; mkdir "$1/payload") || exit 125; '
    '[ "$2" = - ] || chown "$2" "$1/cgroup.procs" "$1/payload/cgroup.procs" || exit 125; '
    'shift 2; exec "$@"'
)


class ScopeRung:
    """Makes scopes by ``systemd-run``; ``root`` is where the one v2 hierarchy is mounted."""

    def __init__(
        self,
        root: Path,
        run: Path | None = None,
        runtime: str = "/run/user",
        uid: int | None = None,
    ) -> None:
        self._root = root
        self._run = run or find_tool("systemd-run")
        self._uid = os.geteuid() if uid is None else uid
        self._runtime = f"{runtime}/{self._uid}"
        self.enforced_by: Mapping[str, str] = enforced_by((), SOURCE)
        self.said = ""

    @property
    def manager(self) -> Path:
        """The manager's own cgroup."""
        user = self._uid
        below = f"user.slice/user-{user}.slice/user@{user}.service" if user else ""
        return self._root / below

    def prepare(self) -> bool:
        """Whether it really works, by one run; ``said`` is why not."""
        if self._run is None:
            self.said = "systemd-run is not installed"
            return False
        unit = f"{NAME}-probe-{os.getpid()}.scope"
        folder = self.manager / _SLICE / unit
        command = [*self._words(unit, _PROBE_SPEC), "/bin/sh", "-c", _PROBE, "sh", str(folder)]
        try:
            done = subprocess.run(
                command,
                env={"PATH": "/usr/bin:/bin"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            self.said = str(error)
            return False
        self.said = done.stderr.strip()[:400]
        there = in_force(done.stdout, unit)
        self.enforced_by = enforced_by(there, SOURCE)
        return done.returncode == 0 and {"memory", "pids"} <= there

    def make(self, sandbox: Sandbox) -> "ScopeEnclosure":
        """See :class:`~csb_mcp.ports.Limiter`. The scope comes to be when its prefix runs."""
        return self._enclosure(sandbox)

    def find(self, sandbox: Sandbox) -> "ScopeEnclosure | None":
        """That of a sandbox which was made earlier; None if there is nothing of it."""
        enclosure = self._enclosure(sandbox)
        if not enclosure.folder.is_dir():
            return None
        names = [name for name, file in _PROBED.items() if (enclosure.folder / file).exists()]
        enclosure.enforced_by = enforced_by(names, SOURCE)
        return enclosure

    def _enclosure(self, sandbox: Sandbox) -> "ScopeEnclosure":
        unit = f"{NAME}-{sandbox.id}.scope"
        folder = self.manager / _SLICE / unit
        owner = "-" if sandbox.uid == self._uid else str(sandbox.uid)
        prefix = self._words(unit, sandbox.spec)
        prefix += ["/bin/sh", "-c", _ENTER, f"{NAME}-enter", str(folder), owner]
        return ScopeEnclosure(folder, sandbox, self.enforced_by, tuple(prefix))

    def _words(self, unit: str, spec: SandboxSpec) -> list[str]:
        properties = {
            "MemoryMax": str(spec.memory),
            "MemorySwapMax": "0",
            "TasksMax": str(spec.pids),
            "Delegate": "yes",
        }
        if spec.cpus is not None:
            properties["CPUQuota"] = f"{max(1, round(spec.cpus * 100))}%"
        words = ["/usr/bin/env", f"XDG_RUNTIME_DIR={self._runtime}", str(self._run)]
        words += ["--user"] if self._uid else ["--system"]
        words += ["--scope", "--quiet", "--collect", f"--unit={unit}", f"--slice={_SLICE}"]
        return [*words, *(f"--property={key}={value}" for key, value in properties.items()), "--"]


def in_force(said: str, unit: str) -> set[str]:
    """The controllers whose limits the probe found set, if it ran in its own scope."""
    lines = said.splitlines()
    if not any(line.startswith("0::") and line.endswith(f"/{_SLICE}/{unit}") for line in lines):
        return set()
    values = dict(line.split(" ", 1) for line in lines if line.split(" ")[0] in _PROBED.values())
    return {
        name
        for name, file in _PROBED.items()
        if values.get(file, "").strip() and not values[file].startswith("max")
    }


class ScopeEnclosure(V2Enclosure):
    """See :class:`~csb_mcp.ports.Enclosure`. systemd takes the scope away when it is empty."""

    def __init__(
        self, folder: Path, sandbox: Sandbox, enforced: Mapping[str, str], prefix: tuple[str, ...]
    ) -> None:
        super().__init__(folder, sandbox, enforced)
        self._prefix = prefix

    @property
    def prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        return self._prefix
