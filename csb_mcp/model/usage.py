"""What is used of the host, and by whom."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostUsage:
    """One look at the host. Counters are since boot, sizes bytes.

    ``cpu_percent`` is of all cores together (0 to 100), since the look before. ``disk_*`` are of
    the file system that holds the state folder; ``network_*`` sums over all interfaces but
    loopback.
    """

    cpu_percent: float
    cpu_count: int
    load: tuple[float, float, float]
    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int
    network_received: int = 0
    network_sent: int = 0
    sandboxes_running: int = 0


@dataclass(frozen=True, slots=True)
class SandboxUsage:
    """One look at a sandbox's whole tree, its display and terminal included.

    ``processes`` counts threads too, as the limit does. ``memory`` is bytes: what the cgroup is
    charged with, without caches that can be dropped; or, ``source`` being ``processes``, the
    resident sets summed (shared pages count once each). ``cpu_seconds``, ``io_read`` and
    ``io_written`` (bytes to and from disks) grow since its start; None: this host does not tell.
    ``source``: ``cgroup v1``, ``cgroup v2``, ``systemd scope`` or ``processes``.
    """

    processes: int
    memory: int
    cpu_seconds: float
    io_read: int | None = None
    io_written: int | None = None
    source: str = "processes"


@dataclass(frozen=True, slots=True)
class Sample:
    """One point of a history. ``cpu_percent``: of one core, so it may exceed 100; host: of all."""

    time: float
    cpu_percent: float
    memory: int
    processes: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """Answer of metrics. Histories are evenly spaced, oldest first, some minutes long."""

    host: HostUsage
    sandbox: SandboxUsage | None = None
    history: tuple[Sample, ...] = ()  # of the sandbox if one was named, else of the host
