"""metrics."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from csb_mcp.transports.cli.client import reach, sandbox_path
from csb_mcp.transports.cli.parser import Line
from csb_mcp.transports.cli.render import pairs, show_json, size, span, sparkline

_BARS = 60  # points of a history that are shown: the last ones

Json = dict[str, Any]


def metrics(line: Line) -> int:
    """What is used, and how it went in the last minutes."""
    client, sandbox = reach(line.settings), line.values["sandbox"]
    path = sandbox_path(sandbox, "metrics") if sandbox else "/api/metrics/system"
    found: Json = client.get(path).json()
    if line.values["json"]:
        show_json(found)
        return 0
    rows = _sandbox(found["sandbox"]) if found.get("sandbox") else _host(found["host"])
    pairs([*rows, *_history(found.get("history") or [], 100.0 if not sandbox else None)])
    return 0


def _host(host: Json) -> list[tuple[str, str]]:
    load = " ".join(f"{value:.2f}" for value in host["load"])
    used = host["memory_total"] - host["memory_available"]
    return [
        ("cpu", f"{host['cpu_percent']:.0f} % of {host['cpu_count']} cores, load {load}"),
        ("memory", f"{size(used)} of {size(host['memory_total'])} used"),
        ("disk", f"{size(host['disk_free'])} of {size(host['disk_total'])} free"),
        ("network", f"{size(host['network_received'])} in, {size(host['network_sent'])} out"),
        ("sandboxes", f"{host['sandboxes_running']} running"),
    ]


def _sandbox(usage: Json) -> list[tuple[str, str]]:
    read, written = usage.get("io_read"), usage.get("io_written")
    io = "" if read is None or written is None else f"{size(read)} read, {size(written)} written"
    return [
        ("cpu", f"{usage['cpu_seconds']:.1f} s"),
        ("memory", f"{size(usage['memory'])} ({usage['source']})"),
        ("processes", str(usage["processes"])),
        ("disk", io),
    ]


def _history(samples: list[Json], top: float | None) -> list[tuple[str, str]]:
    """``top``: percent of processors that fill a bar; None: the most that there was."""
    last = samples[-_BARS:]
    if len(last) < 2:
        return []
    cpu = [float(sample["cpu_percent"]) for sample in last]
    memory = [float(sample["memory"]) for sample in last]
    began, ended = (datetime.fromisoformat(last[i]["time"]) for i in (0, -1))
    lasted = span((ended - began).total_seconds())
    return [
        ("cpu history", f"{sparkline(cpu, top)} {lasted}, most {max(cpu):.0f} %"),
        ("memory history", f"{sparkline(memory)} {lasted}, most {size(max(memory))}"),
    ]


ACTIONS: dict[str, Callable[[Line], int]] = {"metrics": metrics}
