"""What psutil gives in one pass for the host, and /proc for one process tree."""

import os
from pathlib import Path

import psutil

from csb_mcp.lib.processes import descendants, stat_fields
from csb_mcp.model import HostUsage, SandboxUsage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class PsutilMeter:
    """The :class:`~csb_mcp.ports.Meter`. ``disk`` is the folder whose file system is reported."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        psutil.cpu_percent()  # the first call only sets the mark that later ones measure from

    def host(self) -> HostUsage:
        """See :class:`~csb_mcp.ports.Meter`. The CPU share is since the last look."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._disk))
        network = [
            counters
            for name, counters in psutil.net_io_counters(pernic=True).items()
            if name != "lo"
        ]
        return HostUsage(
            cpu_percent=psutil.cpu_percent(),
            cpu_count=os.cpu_count() or 1,
            load=os.getloadavg(),
            memory_total=memory.total,
            memory_available=memory.available,
            disk_total=disk.total,
            disk_free=disk.free,
            network_received=sum(counters.bytes_recv for counters in network),
            network_sent=sum(counters.bytes_sent for counters in network),
        )


def tree_usage(root_pid: int) -> SandboxUsage:
    """Sums over a tree. Walks the tree itself, not all of /proc.

    Threads count, as they do for the limit. What a process waited for is in its own times and io,
    so the sums go on growing when children end; a process that ends takes nothing with it.
    """
    tasks = memory = 0
    cpu = 0.0
    read, written = 0, 0
    told = True
    for pid in (root_pid, *descendants(root_pid)):
        fields = stat_fields(pid)
        if fields is None:
            continue
        cpu += sum(map(int, fields[11:15])) / _TICKS  # utime, stime, cutime, cstime
        tasks += int(fields[17])
        memory += int(fields[21]) * _PAGE
        io = _io(pid)
        told = told and io is not None
        read, written = read + (io or (0, 0))[0], written + (io or (0, 0))[1]
    return SandboxUsage(tasks, memory, cpu, read if told else None, written if told else None)


def _io(pid: int) -> tuple[int, int] | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except FileNotFoundError:
        return 0, 0  # it has just ended
    except OSError:
        return None  # of another user
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields["read_bytes"]), int(fields["write_bytes"])
