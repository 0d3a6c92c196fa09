"""metrics."""

from collections.abc import Mapping, Sequence

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.decode import answers
from csb_mcp.model import HostUsage, Sample, SandboxUsage
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import STRING, Definition, Json, answer, described, hints

_MEBIBYTE = 1024 * 1024
_MAX_SAMPLES = 30


async def _metrics(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    metrics = await service.metrics(decode.optional_sandbox(arguments))
    structured = answers.metrics(metrics)
    del structured["history"]  # in rows it would cost ten times the tokens
    lines = [_host(metrics.host)]
    if metrics.sandbox is not None:
        lines.append(_sandbox(metrics.sandbox))
    if metrics.history:
        structured["history"] = _history(metrics.history)
        lines.append(_range(metrics.history))
    return answer("\n".join(lines), structured)


def _host(host: HostUsage) -> str:
    load = " ".join(f"{value:.2f}" for value in host.load)
    return (
        f"host: cpu {host.cpu_percent:.0f} % of {host.cpu_count} cores, load {load}, "
        f"memory {_mebibytes(host.memory_available)} of {_mebibytes(host.memory_total)} MiB "
        f"available, disk {_mebibytes(host.disk_free)} of {_mebibytes(host.disk_total)} MiB "
        f"free, {host.sandboxes_running} sandboxes running"
    )


def _sandbox(usage: SandboxUsage) -> str:
    moved = [
        f"{_mebibytes(count)} MiB {verb} disks"
        for verb, count in (("read from", usage.io_read), ("written to", usage.io_written))
        if count is not None
    ]
    parts = [
        f"sandbox: {usage.processes} processes",
        f"{_mebibytes(usage.memory)} MiB of memory",
        f"{usage.cpu_seconds:.1f} s of cpu so far",
        *moved,
    ]
    return f"{', '.join(parts)} (by {usage.source})"


def _history(samples: Sequence[Sample]) -> Json:
    """Columns instead of rows, and thinned out from the newest back: a tenth of the tokens."""
    stride = -(-len(samples) // _MAX_SAMPLES)  # rounded up
    kept = samples[::-stride][::-1]
    return {
        "from": decode.timestamp(kept[0].time),
        "to": decode.timestamp(kept[-1].time),
        "cpu_percent": [round(sample.cpu_percent, 1) for sample in kept],
        "memory": [sample.memory for sample in kept],
        "processes": [sample.processes for sample in kept],
    }


def _range(samples: Sequence[Sample]) -> str:
    seconds = samples[-1].time - samples[0].time
    cpu = [sample.cpu_percent for sample in samples]
    memory = [_mebibytes(sample.memory) for sample in samples]
    return (
        f"in the last {seconds:.0f} s: cpu {min(cpu):.0f} to {max(cpu):.0f} %, "
        f"memory {min(memory)} to {max(memory)} MiB"
    )


def _mebibytes(size: int) -> int:
    return size // _MEBIBYTE


METRICS = Definition(
    name="metrics",
    title="Usage",
    description="CPU, memory and disk of the host; with sandbox also what that one uses.",
    call=_metrics,
    arguments={"sandbox": described(STRING, "Leave out for the host alone")},
    output={name: {"type": "object"} for name in ("host", "sandbox", "history")},
    output_required=("host",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
    about="CPU, memory, disk, network and load of the host; of a sandbox its processes, memory, "
    "CPU time and disk traffic, terminal and display included; and a short history of the sandbox "
    "if one is named, else of the host. Sizes are bytes. `source` tells where a sandbox's numbers "
    "come from: its cgroup, or its processes.",
    words={"sandbox": "Without it, the host alone"},
    after=f"""\
`history` holds at most {_MAX_SAMPLES} evenly spaced samples, oldest first, as one list for each
of `cpu_percent` (of one core, so it may exceed 100; the host's of all), `memory` and `processes`,
with the times of the first and the last.
""",
)
