"""metrics."""

from collections.abc import Mapping
from dataclasses import asdict

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.model import HostUsage, SandboxUsage
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import STRING, Definition, Json, answer, described, hints

_MEBIBYTE = 1024 * 1024


async def _metrics(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    metrics = await service.metrics(decode.optional_sandbox(arguments))
    structured: Json = {"host": asdict(metrics.host)}
    lines = [_host(metrics.host)]
    if metrics.sandbox is not None:
        structured["sandbox"] = asdict(metrics.sandbox)
        lines.append(_sandbox(metrics.sandbox))
    return answer("\n".join(lines), structured)


def _host(host: HostUsage) -> str:
    load = " ".join(f"{value:.2f}" for value in host.load)
    return (
        f"host: cpu {host.cpu_percent:.0f} % of {host.cpu_count} cores, load {load}, "
        f"memory {host.memory_available // _MEBIBYTE} of {host.memory_total // _MEBIBYTE} MiB "
        f"available, disk {host.disk_free // _MEBIBYTE} of {host.disk_total // _MEBIBYTE} MiB "
        f"free, {host.sandboxes_running} sandboxes running"
    )


def _sandbox(usage: SandboxUsage) -> str:
    return (
        f"sandbox: {usage.processes} processes, {usage.memory // _MEBIBYTE} MiB resident, "
        f"{usage.cpu_seconds:.1f} s of cpu so far"
    )


METRICS = Definition(
    name="metrics",
    title="Usage",
    description="CPU, memory and disk of the host; with sandbox also what that one uses.",
    call=_metrics,
    arguments={"sandbox": described(STRING, "Leave out for the host alone")},
    output={"host": {"type": "object"}, "sandbox": {"type": "object"}},
    output_required=("host",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
)
