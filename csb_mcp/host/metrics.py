"""What psutil gives in one pass for the host."""

import os
from pathlib import Path

import psutil

from csb_mcp.host.limits.tree import tree_usage
from csb_mcp.model import HostUsage, SandboxUsage


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

    @staticmethod
    def tree(root_pid: int) -> SandboxUsage:
        """Sums over one process tree."""
        return tree_usage(root_pid)
