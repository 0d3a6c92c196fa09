"""Limits by cgroup v2, below a folder that is ours: the hierarchy's root, or one delegated to us.

``PARENT/csb-mcp/ID`` holds a sandbox's tree and its limits; ``…/ID/payload`` is what pause freezes.
No controller is switched on *in* ID, so it may hold processes beside that folder (cgroups(7), no
internal processes). The sandbox's uid gets both ``cgroup.procs``, nothing else: a move needs those
of where it comes from, of where it goes to, and of what holds both, so it stays within ID.
A user's daemon has no other uid to give; there a payload that took over its tmux is that user.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded
from csb_mcp.host.limits.files import (
    NAME,
    PAYLOAD,
    Gauges,
    entering,
    kill_members,
    make_below,
    make_folder,
    members,
    poll,
    remove_folder,
    unable,
    write,
)
from csb_mcp.host.metrics import tree_usage
from csb_mcp.model import Sandbox, SandboxUsage

REQUIRED = ("memory", "pids")
CONTROLLERS = (*REQUIRED, "cpu", "io")
SOURCE = "cgroup v2"
FREEZE_SECONDS = 5.0
REMOVE_SECONDS = 10.0
CPU_PERIOD = 100_000  # microseconds
WEIGHT = 100  # of one busy process; for all sandboxes together one for each processor, as in v1
CPUS = os.cpu_count() or 1
_DAEMON = f"{NAME}-daemon"
_IO = re.compile(r"\b([rw])bytes=(\d+)")


def enforced_by(controllers: Iterable[str], source: str) -> dict[str, str]:
    """What is enforced with these controllers."""
    names = {"memory": "memory", "cpus": "cpu", "pids": "pids"}
    there = set(controllers)
    return {limit: source if name in there else "nothing" for limit, name in names.items()}


class V2Rung:
    """Makes enclosures below ``parent``, a cgroup in which we may make others."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._ours = parent / NAME
        self.enforced_by: Mapping[str, str] = enforced_by((), SOURCE)

    def prepare(self) -> bool:
        """See to it that limits can be set below; whether they can."""
        with contextlib.suppress(OSError):
            try:
                make_below(self._ours, f"probe-{os.getpid()}", self._switch_on)
                there = self._switched_on()
                freezes = (self._ours / f"probe-{os.getpid()}" / "cgroup.freeze").exists()
            finally:
                remove_folder(self._ours / f"probe-{os.getpid()}")
                remove_folder(self._ours)
            self.enforced_by = enforced_by(there, SOURCE)
            return freezes and all(name in there for name in REQUIRED)
        return False

    def make(self, sandbox: Sandbox) -> "V2Enclosure":
        """See :class:`~csb_mcp.ports.Limiter`."""
        enclosure = self._enclosure(sandbox)
        try:
            with unable("no limits can be set"):
                make_below(self._ours, sandbox.id, self._switch_on)
                enclosure.enforced_by = enforced_by(self._switched_on(), SOURCE)
                enclosure.set_limits(sandbox)
        except BaseException:
            enclosure.remove_now()
            raise
        return enclosure

    def find(self, sandbox: Sandbox) -> "V2Enclosure | None":
        """That of a sandbox which was made earlier; None if there is nothing of it."""
        enclosure = self._enclosure(sandbox)
        enclosure.enforced_by = enforced_by(self._switched_on(), SOURCE)
        return enclosure if enclosure.folder.is_dir() else None

    def _enclosure(self, sandbox: Sandbox) -> "V2Enclosure":
        return V2Enclosure(self._ours / sandbox.id, sandbox, self.enforced_by)

    def _switched_on(self) -> list[str]:
        try:
            return (self._ours / "cgroup.subtree_control").read_text().split()
        except OSError:
            return []

    def _switch_on(self) -> None:
        for name in CONTROLLERS:
            for folder in (self._parent, self._ours):
                if not self._switch_on_in(folder, name):
                    break
        weight = self._ours / "cpu.weight"
        with contextlib.suppress(FileNotFoundError, PermissionError):
            write(weight, str(min(WEIGHT * CPUS, 10_000)))

    def _switch_on_in(self, folder: Path, controller: str) -> bool:
        control = folder / "cgroup.subtree_control"
        if controller in control.read_text().split():
            return True
        if controller not in (folder / "cgroup.controllers").read_text().split():
            return False
        try:
            write(control, f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY or not self._step_aside(folder):
                return False
            with contextlib.suppress(OSError):
                write(control, f"+{controller}")
        return controller in control.read_text().split()

    @staticmethod
    def _step_aside(folder: Path) -> bool:
        """No controller can be switched on where processes are; if it is only us, we move down."""
        if members(folder) != [os.getpid()]:
            return False
        with contextlib.suppress(FileExistsError):
            make_folder(folder / _DAEMON)
        write(folder / _DAEMON / "cgroup.procs", str(os.getpid()))
        return True


class V2Enclosure:
    """See :class:`~csb_mcp.ports.Enclosure`. ``folder`` need not exist (any more)."""

    walks = False

    def __init__(self, folder: Path, sandbox: Sandbox, enforced: Mapping[str, str]) -> None:
        self.folder = folder
        self.enforced_by = enforced
        self._counts_cpus = sandbox.spec.cpus is not None
        self._payload = folder / PAYLOAD
        self._gauges = Gauges()

    @property
    def prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        return entering(self.folder / "cgroup.procs")

    @property
    def payload_prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        return entering(self._payload / "cgroup.procs", payload=True)

    def set_limits(self, sandbox: Sandbox) -> None:
        """Write them, once the folder is made. Raises OSError."""
        spec = sandbox.spec
        values = {"memory.max": str(spec.memory), "pids.max": str(spec.pids)}
        # Without swap: what does not fit shall end, not slow the host down. Nor shall all end for
        # one of them: the hog alone (its oom_score_adj is raised).
        values |= {"memory.swap.max": "0", "memory.oom.group": "0"}
        if spec.cpus is not None:
            values["cpu.max"] = f"{max(1000, int(spec.cpus * CPU_PERIOD))} {CPU_PERIOD}"
        for name, value in values.items():
            if (self.folder / name).exists():  # with its controller, and as the kernel has it
                write(self.folder / name, value)
        make_folder(self._payload)
        if sandbox.uid != os.geteuid():
            for folder in (self.folder, self._payload):
                os.chown(folder / "cgroup.procs", sandbox.uid, -1)

    def usage(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        folder, gauges = self.folder, self._gauges
        charged = gauges.number(folder / "memory.current")
        count = gauges.number(folder / "pids.current")
        if charged is None or count is None:
            return tree_usage(root_pid)
        memory = max(0, charged - gauges.field(folder / "memory.stat", "inactive_file"))
        cpu = gauges.field(folder / "cpu.stat", "usage_usec") / 1e6
        read, written = self._io()
        return SandboxUsage(count, memory, cpu, read, written, source=SOURCE)

    def _io(self) -> tuple[int | None, int | None]:
        """Bytes; the file is empty until something was read, and lacks without the controller."""
        if not (self.folder / "io.stat").exists():
            return None, None
        sums = {"r": 0, "w": 0}
        for direction, count in _IO.findall(self._gauges.read(self.folder / "io.stat")):
            sums[direction] += int(count)
        return sums["r"], sums["w"]

    async def uphold(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`. The kernel does."""
        return self.usage(root_pid)

    def hits(self) -> Mapping[str, int]:
        """See :class:`~csb_mcp.ports.Enclosure`.

        Of memory the processes that were killed for it: ``max`` also grows while files fill the
        page cache, which harms nobody.
        """
        field = self._gauges.field
        found = {
            "memory": field(self.folder / "memory.events", "oom_kill"),
            "pids": field(self.folder / "pids.events", "max"),
        }
        if self._counts_cpus:
            found["cpus"] = field(self.folder / "cpu.stat", "nr_throttled")
        return found

    async def freeze(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        del pane_pid
        with unable("the payload cannot be frozen"):
            write(self._payload / "cgroup.freeze", "1")
        events = self._payload / "cgroup.events"
        try:
            await poll(
                lambda: self._gauges.field(events, "frozen") == 1,
                FREEZE_SECONDS,
                "the payload was not frozen",
            )
        except DeadlineExceeded:
            await self.thaw(0)
            raise

    async def thaw(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        del pane_pid
        with contextlib.suppress(OSError):  # gone: then nothing is frozen
            write(self._payload / "cgroup.freeze", "0")

    async def remove(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`. What is frozen dies too."""
        await poll(self.remove_now, REMOVE_SECONDS, "its processes did not end")
        self.close()

    def remove_now(self) -> bool:
        """Kill what is left and remove what can be; whether nothing is left."""
        try:
            write(self.folder / "cgroup.kill", "1")
        except (
            OSError
        ):  # gone, or Linux before 5.14: held still, or it may fork faster than we kill
            with contextlib.suppress(OSError):
                write(self.folder / "cgroup.freeze", "1")
            kill_members((self.folder, self._payload))
        gone = remove_folder(self._payload) and remove_folder(self.folder)
        if gone and self.folder.parent.name == NAME:
            remove_folder(self.folder.parent)  # if it was the last
        return gone

    def close(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        self._gauges.close()
