"""doctor --attack: a throwaway sandbox of each network that this host has, attacked from inside."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csb_mcp.transports.cli.client import Client, Refused, sandbox_path
from csb_mcp.transports.cli.egress import VERIFY_SECONDS, show_verification
from csb_mcp.transports.cli.render import paint, put, say, show_json
from csb_mcp.transports.cli.stage import a_stage

Json = dict[str, Any]

_NETWORKS = ("none", "allowlist", "full", "host")
_LACKING = ("forbidden", "invalid_input", "host_unable")  # the settings or the host have not got it
_SECONDS = 120.0


def attack(settings: Mapping[str, str], *, as_json: bool) -> int:
    """Make, attack, remove; status 0 if there was one and all of them held."""
    found: list[Json] = []
    try:
        with a_stage("attack", settings) as (client, project):
            for one in _each(client, project):
                found.append(one)
                if not as_json:
                    _show(one)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    verdicts = [one["held"] for one in found if "left_out" not in one]
    held = bool(verdicts) and all(verdicts)
    if as_json:
        show_json({"held": held, "networks": found})
    return 0 if held else 1


def _each(client: Client, project: Path) -> Iterator[Json]:
    for network in _NETWORKS:
        try:
            yield {"network": network, **_one(client, project, network)}
        except Refused as error:
            key = "left_out" if error.kind in _LACKING else "failed"
            yield {"network": network, key: str(error), "held": False}


def _one(client: Client, project: Path, network: str) -> Json:
    body = {"project_dir": str(project), "agent": "shell", "network": network}
    made = client.post("/api/sandboxes", body, timeout=_SECONDS, doing="creating").json()
    path = sandbox_path(made["id"])
    try:
        options: Json = {"timeout": VERIFY_SECONDS, "doing": f"attacking one with {network}"}
        return client.post(f"{path}/verify", **options).json()
    finally:
        client.delete(path, timeout=_SECONDS, doing="deleting")


def _show(one: Json) -> None:
    put(paint(f"network {one['network']}", "bold") + "\n")
    if "left_out" in one:
        say(f"left out: {one['left_out']}")
    elif "failed" in one:
        say(f"FAILED: {one['failed']}")
    else:
        show_verification(one)
    say()
