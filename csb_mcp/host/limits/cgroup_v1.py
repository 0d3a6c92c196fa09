"""Limits by the hierarchies of cgroup v1, as root, or below folders that root gave us.

A sandbox has a folder ``csb-mcp/ID`` in each; in the freezer's one more, ``payload``, whose
``tasks`` belongs to the sandbox's uid: its pane enters by itself. All else stays root's, so
a payload that took over its tmux can put processes of its own in or out of what pause freezes,
and neither change a limit nor leave it.

Of io v1 sees, if it counts at all, reads and the writes that a process waits for (direct, or by
fsync); what the kernel writes back later is charged to nobody.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded, HostUnable
from csb_mcp.host.limits.files import (
    NAME,
    PAYLOAD,
    Gauges,
    Mount,
    entering,
    kill_members,
    make_below,
    make_folder,
    poll,
    remove_folder,
    unable,
    write,
)
from csb_mcp.host.metrics import tree_usage
from csb_mcp.model import Sandbox, SandboxUsage

REQUIRED = ("memory", "pids", "cpuacct", "freezer")
OPTIONAL = ("cpu", "blkio")
SOURCE = "cgroup v1"
ENTRANCE = "tasks"  # a thread that moves itself waits for no lock, as cgroup.procs makes it do
FREEZE_SECONDS = 5.0
REMOVE_SECONDS = 10.0
_ROUND_SECONDS = 0.5
CPU_PERIOD = 100_000  # microseconds
# All sandboxes together are to the rest of the host what one busy process for each processor is:
# however many processes they have, others go on; and under load they are not starved either.
SHARES = 1024
CPUS = os.cpu_count() or 1
_DIRECTIONS = re.compile(r"^\d+:\d+ (Read|Write) (\d+)$", re.MULTILINE)


class V1Rung:
    """Makes enclosures below ``points``: controller name to the mount point of its hierarchy."""

    def __init__(self, points: Mapping[str, Path]) -> None:
        self._points = dict(points)
        self.enforced_by = {
            "memory": SOURCE,
            "cpus": SOURCE if "cpu" in points else "nothing",
            "pids": SOURCE,
        }

    @classmethod
    def on(cls, found: Iterable[Mount]) -> "V1Rung | None":
        """With those of the mounted hierarchies that we may use; None if a required one lacks."""
        points: dict[str, Path] = {}
        for mount in found:
            for name in mount.controllers & {*REQUIRED, *OPTIONAL}:
                if name not in points and _usable(mount.point):
                    points[name] = mount.point
        return cls(points) if all(name in points for name in REQUIRED) else None

    def make(self, sandbox: Sandbox) -> "V1Enclosure":
        """See :class:`~csb_mcp.ports.Limiter`."""
        enclosure = self._enclosure(sandbox)
        try:
            with unable("no limits can be set"):
                for point in dict.fromkeys(self._points.values()):  # cpu,cpuacct may be one
                    make_below(point / NAME, sandbox.id)
                enclosure.set_limits(sandbox)
        except BaseException:
            enclosure.remove_now()
            raise
        return enclosure

    def find(self, sandbox: Sandbox) -> "V1Enclosure | None":
        """That of a sandbox which was made earlier; None if there is nothing of it."""
        enclosure = self._enclosure(sandbox)
        return enclosure if any(folder.is_dir() for folder in enclosure.folders) else None

    def _enclosure(self, sandbox: Sandbox) -> "V1Enclosure":
        below = {name: point / NAME / sandbox.id for name, point in self._points.items()}
        return V1Enclosure(below, self.enforced_by, counts_cpus=sandbox.spec.cpus is not None)


def _usable(point: Path) -> bool:
    """Whether we may make cgroups there. Leaves nothing."""
    parent = point / NAME
    try:
        parent.mkdir()
    except FileExistsError:
        return os.access(parent, os.W_OK | os.X_OK)
    except OSError:
        return False
    remove_folder(parent)
    return True


class V1Enclosure:
    """See :class:`~csb_mcp.ports.Enclosure`."""

    walks = False

    def __init__(
        self, below: Mapping[str, Path], enforced_by: Mapping[str, str], *, counts_cpus: bool
    ) -> None:
        self._below = dict(below)
        self.folders = tuple(dict.fromkeys(below.values()))
        self.enforced_by = enforced_by
        self._counts_cpus = counts_cpus
        self._payload = below["freezer"] / PAYLOAD
        self._gauges = Gauges()

    @property
    def prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        return entering(*(folder / ENTRANCE for folder in self.folders))

    @property
    def payload_prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        return entering(self._payload / ENTRANCE, payload=True)

    def set_limits(self, sandbox: Sandbox) -> None:
        """Write them, once the folders are made. Raises OSError."""
        spec, below = sandbox.spec, self._below
        write(below["memory"] / "memory.limit_in_bytes", str(spec.memory))
        with contextlib.suppress(FileNotFoundError):  # a kernel may not account for swap
            write(below["memory"] / "memory.memsw.limit_in_bytes", str(spec.memory))
        write(below["pids"] / "pids.max", str(spec.pids))
        if "cpu" in below:
            with contextlib.suppress(PermissionError):  # root gave the folder and weighs it
                write(below["cpu"].parent / "cpu.shares", str(SHARES * CPUS))
        if spec.cpus is not None and "cpu" in below:
            write(below["cpu"] / "cpu.cfs_period_us", str(CPU_PERIOD))
            quota = max(1000, int(spec.cpus * CPU_PERIOD))  # the kernel's least is 1 ms
            write(below["cpu"] / "cpu.cfs_quota_us", str(quota))
        make_folder(self._payload)
        if sandbox.uid != os.geteuid():
            os.chown(self._payload / ENTRANCE, sandbox.uid, -1)

    def usage(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        below, gauges = self._below, self._gauges
        charged = gauges.number(below["memory"] / "memory.usage_in_bytes")
        count = gauges.number(below["pids"] / "pids.current")
        cpu = gauges.number(below["cpuacct"] / "cpuacct.usage")
        if charged is None or count is None or cpu is None:
            return tree_usage(root_pid)
        droppable = gauges.field(below["memory"] / "memory.stat", "total_inactive_file")
        read = written = None
        if "blkio" in below:
            read, written = self._io(below["blkio"] / "blkio.throttle.io_service_bytes")
        return SandboxUsage(
            count, max(0, charged - droppable), cpu / 1e9, read, written, source=SOURCE
        )

    def _io(self, path: Path) -> tuple[int, int] | tuple[None, None]:
        text = self._gauges.read(path)
        if ":" not in text:  # recent kernels count only where a rate is limited
            return None, None
        sums = {"Read": 0, "Write": 0}
        for direction, count in _DIRECTIONS.findall(text):
            sums[direction] += int(count)
        return sums["Read"], sums["Write"]

    async def uphold(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`. The kernel does."""
        return self.usage(root_pid)

    def hits(self) -> Mapping[str, int]:
        """See :class:`~csb_mcp.ports.Enclosure`.

        Of memory the processes that were killed for it: failcnt also grows while files fill the
        page cache, which harms nobody.
        """
        below, field = self._below, self._gauges.field
        found = {
            "memory": field(below["memory"] / "memory.oom_control", "oom_kill"),
            "pids": field(below["pids"] / "pids.events", "max"),
        }
        if self._counts_cpus and "cpu" in below:
            found["cpus"] = field(below["cpu"] / "cpu.stat", "nr_throttled")
        return found

    async def freeze(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        del pane_pid
        if not self._payload.is_dir():
            raise HostUnable(f"{self._payload} is gone: nothing can be frozen")
        try:
            await poll(
                lambda: self._is_frozen(self._payload), FREEZE_SECONDS, "the payload was not frozen"
            )
        except DeadlineExceeded:
            await self.thaw(0)
            raise

    def _is_frozen(self, folder: Path) -> bool:
        # FREEZING as long as one of them is in the middle of something; reading looks anew.
        self._set_frozen(folder, "FROZEN")
        try:  # not by the gauges, which may be closed by now
            return (folder / "freezer.state").read_text().strip() == "FROZEN"
        except OSError:
            return False

    async def thaw(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        del pane_pid
        self._set_frozen(self._payload, "THAWED")

    async def remove(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`.

        While it kills, everything is frozen: nothing forks, however fast it was at that. A frozen
        process dies only when it is thawed, and needs a moment for it: hence rounds.
        """
        give_up = time.monotonic() + REMOVE_SECONDS
        while not self.remove_now():
            if time.monotonic() > give_up:
                raise DeadlineExceeded(f"its processes did not end within {REMOVE_SECONDS:g} s")
            await self._kill()
            with contextlib.suppress(DeadlineExceeded):
                await poll(self.remove_now, _ROUND_SECONDS, "they did not end")
        self.close()

    async def _kill(self) -> None:
        freezer = self._below["freezer"]
        with contextlib.suppress(DeadlineExceeded):
            await poll(lambda: self._is_frozen(freezer), _ROUND_SECONDS, "not all were frozen")
        kill_members((*self.folders, self._payload))
        self._set_frozen(self._payload, "THAWED")
        self._set_frozen(freezer, "THAWED")

    def remove_now(self) -> bool:
        """Remove what can be; whether nothing is left."""
        gone = remove_folder(self._payload)
        for folder in self.folders:
            gone = remove_folder(folder) and gone
        for folder in self.folders if gone else ():
            remove_folder(folder.parent)  # if it was the last
        return gone

    @staticmethod
    def _set_frozen(folder: Path, state: str) -> None:
        with contextlib.suppress(OSError):  # gone, or it never came to be
            write(folder / "freezer.state", state)

    def close(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        self._gauges.close()
