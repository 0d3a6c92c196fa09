"""create_sandbox, list_sandboxes, stop, delete."""

from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.config import NETWORKS
from csb_mcp.model import Sandbox, SandboxState
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    INTEGER,
    STRING,
    STRINGS,
    Definition,
    Json,
    answer,
    choice,
    described,
    hints,
)

_MAX_LISTED = 50
_IN_LINE = (
    "id",
    "name",
    "state",
    "reason",
    "project_dir",
    "limits",
    "warnings",
)  # said before the details

_RECORD: Json = {
    **dict.fromkeys(("id", "backend", "agent", "state", "agent_state", "project_dir"), STRING),
    "name": {"type": ["string", "null"]},
    **dict.fromkeys(("network", "workspace", "geometry", "created_at", "attach"), STRING),
    "limits": {"type": "object"},
    **dict.fromkeys(("ended_at", "reason"), STRING),
    "exit_status": INTEGER,
    "warnings": {"type": "array", "items": STRING},
}
_ENDED: Json = {
    key: _RECORD[key] for key in ("id", "state", "reason", "exit_status")
}  # of the same


async def _create(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return _one(await service.create(decode.sandbox_spec(arguments)))


async def _list(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    found = await service.list(decode.list_filter(arguments))
    shown, left_out = found[:_MAX_LISTED], max(0, len(found) - _MAX_LISTED)
    lines = [_line(sandbox) for sandbox in shown] or ["no sandboxes"]
    if left_out:
        lines.append(f"{left_out} older ones left out: ask by state, and delete what is not needed")
    return answer(
        "\n".join(lines),
        {"sandboxes": [decode.record(sandbox) for sandbox in shown], "left_out": left_out},
    )


async def _stop(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return _one(await service.stop(decode.named_sandbox(arguments)))


async def _delete(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return _one(await service.delete(decode.named_sandbox(arguments)), verb="deleted; it was ")


def _one(sandbox: Sandbox, verb: str = "") -> CallToolResult:
    record = decode.record(sandbox)
    return answer(_line(sandbox, verb) + "\n" + _details(record), record)


def _line(sandbox: Sandbox, verb: str = "") -> str:
    name = f" ({sandbox.name})" if sandbox.name else ""
    reason = f", {decode.record(sandbox)['reason']}" if sandbox.reason else ""
    warned = "".join(f"; WARNING: {warning}" for warning in sandbox.warnings)
    return f"{sandbox.id}{name}: {verb}{sandbox.state}{reason}; {sandbox.spec.project_dir}{warned}"


def _details(record: dict[str, Any]) -> str:
    asked, by = record["limits"]["asked"], record["limits"]["enforced_by"]
    limits = [f"{key} {value} (by {by.get(key, 'nothing')})" for key, value in asked.items()]
    lines = [
        f"{key}: {value}"
        for key, value in record.items()
        if key not in _IN_LINE and value not in (None, "")
    ]
    return "\n".join([*lines, *(["limits: " + ", ".join(limits)] if limits else [])])


CREATE = Definition(
    name="create_sandbox",
    title="Create a sandbox",
    description="Start an isolated sandbox on a project folder, with a terminal and a display. "
    "Returns when it is ready. Then send_keys, or run_command. Changes in the project are real.",
    call=_create,
    arguments={
        "project_dir": described(STRING, "Absolute path on the host; same path inside"),
        "name": described(STRING, "Optional: a-z 0-9 . _ -"),
        "backend": choice(("bubblewrap",), default="bubblewrap"),
        "agent": choice(decode.AGENTS, default="shell"),
        "command": described(STRINGS, 'Program and arguments, for agent "command"'),
        "network": choice(NETWORKS, default="none"),
        "workspace": choice(decode.WORKSPACES, default="direct"),
        "geometry": described(STRING, "Of the display", default="1280x800"),
        "gl": described(BOOLEAN, "Software OpenGL", default=False),
        "ttl": described({"type": ["string", "number"]}, 'Ends after that long: "30m", or seconds'),
        "env": {"type": "object", "additionalProperties": STRING},
    },
    required=("project_dir",),
    output=_RECORD,
    output_required=("id", "state"),
    annotations=hints(open_world=True),
)

LIST = Definition(
    name="list_sandboxes",
    title="List sandboxes",
    description="All sandboxes, newest first, also those that ended (until delete).",
    call=_list,
    arguments={"state": choice(tuple(state.value for state in SandboxState))},
    output={"sandboxes": {"type": "array", "items": {"type": "object"}}, "left_out": INTEGER},
    output_required=("sandboxes",),
    annotations=hints(read_only=True, idempotent=True, open_world=False),
)

STOP = Definition(
    name="stop",
    title="Stop a sandbox",
    description="End all that runs in it. Record, log and last screen stay until delete.",
    call=_stop,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output=_ENDED,
    output_required=("id", "state"),
    annotations=hints(destructive=True, idempotent=True, open_world=False),
)

DELETE = Definition(
    name="delete",
    title="Delete a sandbox",
    description="End it and remove its home, log and record for good. The project folder stays.",
    call=_delete,
    arguments={"sandbox": STRING},
    required=("sandbox",),
    output=_ENDED,
    output_required=("id", "state"),
    annotations=hints(destructive=True, idempotent=True, open_world=False),
)
