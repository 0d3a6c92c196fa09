"""A short history of what is used: samples from counters."""

import time
from collections import deque
from collections.abc import Mapping

from csb_mcp.model import HostUsage, Sample, SandboxUsage

KEPT = 150  # samples: five minutes at the sampler's usual pace
_PERCENT = 100.0


class History:
    """Samples of one thing, and counters at the last look.

    ``hits``: how often each limit had been hit; ``written``: bytes to disks.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._before: tuple[float, float] | None = None
        self.hits: Mapping[str, int] = {}
        self.written: int | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Oldest first."""
        return tuple(self._samples)

    def add_host(self, usage: HostUsage, processes: int) -> None:
        """The host's share of processors is measured by the meter itself."""
        memory = usage.memory_total - usage.memory_available
        self._samples.append(Sample(time.time(), usage.cpu_percent, memory, processes))

    def add(self, usage: SandboxUsage) -> None:
        """A sandbox's: its share of a processor since the look before."""
        self.written = usage.io_written
        now, before = time.monotonic(), self._before
        self._before = now, usage.cpu_seconds
        if before is None or now <= before[0]:
            return
        share = max(0.0, usage.cpu_seconds - before[1]) / (now - before[0]) * _PERCENT
        self._samples.append(Sample(time.time(), share, usage.memory, usage.processes))
