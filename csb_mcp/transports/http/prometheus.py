"""Numbers in Prometheus' text format, version 0.0.4.

Names are those of OpenTelemetry's semantic conventions (``system.memory.usage``), turned into
Prometheus' by its rules: dots become underscores, the unit is written out at the end, counters end
in ``_total``. What has no convention yet begins with ``csb_``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from csb_mcp import __version__
from csb_mcp.errors import CsbError
from csb_mcp.lib.text import one_line
from csb_mcp.model import HostUsage, Sandbox, SandboxState, SandboxUsage
from csb_mcp.ports import SandboxService

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Mapping[str, str]
_NONE: Labels = {}


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name: labels and value of each."""

    name: str
    help: str
    samples: Iterable[tuple[Labels, float]]
    kind: str = "gauge"

    def lines(self) -> Iterable[str]:
        """As text, HELP and TYPE first."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        for labels, value in self.samples:
            yield f"{self.name}{_labels(labels)} {_number(value)}"


async def exposition(service: SandboxService) -> str:
    """Everything there is to tell at this moment."""
    host = (await service.metrics(None)).host
    sandboxes = await service.list()
    used: list[tuple[Sandbox, SandboxUsage]] = []
    for sandbox in sandboxes:
        if sandbox.state not in (SandboxState.RUNNING, SandboxState.PAUSED):
            continue
        try:
            usage = (await service.metrics(sandbox.id)).sandbox
        except CsbError:
            continue  # it ended just now
        if usage is not None:
            used.append((sandbox, usage))
    families = (*_daemon(sandboxes), *_host(host), *_sandboxes(used))
    return "".join(f"{line}\n" for family in families for line in family.lines())


def _daemon(sandboxes: Iterable[Sandbox]) -> Iterable[Family]:
    counted = Counter(sandbox.state for sandbox in sandboxes)
    yield Family("csb_build_info", "Version of csb-mcp.", [({"version": __version__}, 1)])
    yield Family(
        "csb_sandbox_count",
        "Sandboxes on record, by state.",
        [({"state": state.value}, counted[state]) for state in SandboxState],
    )


def _host(host: HostUsage) -> Iterable[Family]:
    yield Family(
        "system_cpu_utilization_ratio",
        "Busy part of all processors together, since the last look.",
        [(_NONE, host.cpu_percent / 100)],
    )
    yield Family("system_cpu_logical_count", "Processors.", [(_NONE, host.cpu_count)])
    for minutes, load in zip((1, 5, 15), host.load, strict=True):
        name = f"system_cpu_load_average_{minutes}m"
        yield Family(name, f"Load average over {minutes} minutes.", [(_NONE, load)])
    yield Family("system_memory_limit_bytes", "Memory of the host.", [(_NONE, host.memory_total)])
    yield Family(
        "system_memory_usage_bytes",
        "Memory in use: what is neither free nor could be freed.",
        [({"system_memory_state": "used"}, host.memory_total - host.memory_available)],
    )
    yield Family(
        "system_linux_memory_available_bytes",
        "Memory that new programs could have.",
        [(_NONE, host.memory_available)],
    )
    yield Family(
        "system_filesystem_limit_bytes",
        "Size of the file system that holds the state folder.",
        [(_NONE, host.disk_total)],
    )
    used = host.disk_total - host.disk_free
    yield Family(
        "system_filesystem_usage_bytes",
        "Its space, by state.",
        [
            ({"system_filesystem_state": state}, size)
            for state, size in (("used", used), ("free", host.disk_free))
        ],
    )
    yield Family(
        "system_network_io_bytes_total",
        "Bytes over all interfaces but loopback, since boot.",
        [
            ({"network_io_direction": direction}, size)
            for direction, size in (
                ("receive", host.network_received),
                ("transmit", host.network_sent),
            )
        ],
        "counter",
    )


def _sandboxes(used: list[tuple[Sandbox, SandboxUsage]]) -> Iterable[Family]:
    labelled = [({"sandbox_id": sandbox.id}, usage) for sandbox, usage in used]
    yield Family(
        "csb_sandbox_info",
        "Sandboxes that run, and what they are; to be joined by sandbox_id.",
        [(_info(sandbox), 1) for sandbox, _ in used],
    )
    yield Family(
        "csb_sandbox_cpu_time_seconds_total",
        "Processor time that its tree has used.",
        [(labels, usage.cpu_seconds) for labels, usage in labelled],
        "counter",
    )
    yield Family(
        "csb_sandbox_memory_usage_bytes",
        "Memory that its tree uses.",
        [(labels, usage.memory) for labels, usage in labelled],
    )
    yield Family(
        "csb_sandbox_process_count",
        "Processes of its tree.",
        [(labels, usage.processes) for labels, usage in labelled],
    )
    yield Family(
        "csb_sandbox_disk_io_bytes_total",
        "Bytes that its tree read from and wrote to disks, where the host tells.",
        [
            ({**labels, "disk_io_direction": direction}, size)
            for labels, usage in labelled
            for direction, size in (("read", usage.io_read), ("write", usage.io_written))
            if size is not None
        ],
        "counter",
    )


def _info(sandbox: Sandbox) -> Labels:
    return {
        "sandbox_id": sandbox.id,
        "sandbox_name": sandbox.name or "",
        "backend": sandbox.spec.backend,
        "agent": sandbox.spec.agent,
        "state": sandbox.state.value,
        "project_dir": one_line(str(sandbox.spec.project_dir), 500),
    }


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))
