"""A sandbox's record, as text and as a structure with a schema."""

from typing import Any

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.model import Sandbox
from csb_mcp.transports.mcp.tool import INTEGER, STRING, Json, answer

_LISTS = ("allowed_hosts", "denied_hosts", "pending_hosts", "secrets", "forward")
_IN_LINE = (
    "id",
    "name",
    "state",
    "reason",
    "project_dir",
    "limits",
    "warnings",
    *_LISTS,
)  # said before the details

STATE: Json = {"id": STRING, "state": STRING}
RECORD: Json = {**STATE, "agent_state": STRING, "attach": STRING}  # what is acted on; there is more
ENDED: Json = {**STATE, "reason": STRING, "exit_status": INTEGER}


def whole(sandbox: Sandbox, verb: str = "") -> CallToolResult:
    """A tool's answer that is one record."""
    record = decode.record(sandbox)
    return answer(line(sandbox, verb) + "\n" + _details(record), record)


def line(sandbox: Sandbox, verb: str = "") -> str:
    """What matters of a record, on one line."""
    name = f" ({sandbox.name})" if sandbox.name else ""
    reason = f", {decode.record(sandbox)['reason']}" if sandbox.reason else ""
    asks = ", ".join(map(decode.pending, sandbox.pending))
    asked = f"; asks for {asks}" if asks else ""
    warned = "".join(f"; WARNING: {warning}" for warning in sandbox.warnings)
    told = f"{verb}{sandbox.state}{reason}; {sandbox.spec.project_dir}"
    return f"{sandbox.id}{name}: {told}{asked}{warned}"


def _details(record: dict[str, Any]) -> str:
    asked, by = record["limits"]["asked"], record["limits"]["enforced_by"]
    limits = [f"{key} {value} (by {by.get(key, 'nothing')})" for key, value in asked.items()]
    lines = [
        f"{key}: {value}"
        for key, value in record.items()
        if key not in _IN_LINE and value not in (None, "")
    ]
    lines += [f"{key}: {', '.join(record[key])}" for key in _LISTS if key in record]
    return "\n".join([*lines, *(["limits: " + ", ".join(limits)] if limits else [])])
