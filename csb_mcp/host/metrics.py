"""What psutil gives in one pass, for the host and for one process tree."""

import contextlib
import os
from pathlib import Path

import psutil

from csb_mcp.lib.processes import descendants
from csb_mcp.model import HostUsage, SandboxUsage


class PsutilMeter:
    """The :class:`~csb_mcp.ports.Meter`. ``disk`` is the folder whose file system is reported."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        psutil.cpu_percent()  # the first call only sets the mark that later ones measure from

    def host(self) -> HostUsage:
        """See :class:`~csb_mcp.ports.Meter`. The CPU share is since the last look."""
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._disk))
        return HostUsage(
            cpu_percent=psutil.cpu_percent(),
            cpu_count=os.cpu_count() or 1,
            load=os.getloadavg(),
            memory_total=memory.total,
            memory_available=memory.available,
            disk_total=disk.total,
            disk_free=disk.free,
        )

    def tree(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Meter`. Walks the tree itself, not all of /proc."""
        count = memory = 0
        cpu = 0.0
        for pid in [root_pid, *descendants(root_pid)]:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                    cpu += times.user + times.system
                    count += 1
        return SandboxUsage(processes=count, memory=memory, cpu_seconds=cpu)
