"""Answers as plain JSON values."""

from datetime import UTC, datetime
from typing import Any

from csb_mcp.lib.text import one_line
from csb_mcp.model import EgressRequest, Sandbox

HOST = 262  # characters of a host, of whatever a sandbox says is one


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record(sandbox: Sandbox) -> dict[str, Any]:
    """A sandbox as all faces show it.

    ``ended_at``, ``reason``, ``exit_status``, ``warnings``, ``cursor`` and all about the way out
    come if there are any.
    """
    spec = sandbox.spec
    ended: dict[str, Any] = {
        "ended_at": None if sandbox.ended_at is None else timestamp(sandbox.ended_at),
        "reason": None if sandbox.reason is None else one_line(sandbox.reason, 1000),
        "exit_status": sandbox.exit_status,
    }
    outside = {
        "allowed_hosts": list(sandbox.allowed_hosts),
        "denied_hosts": list(sandbox.denied_hosts),
        "pending_hosts": [pending(asked) for asked in sandbox.pending],
        "secrets": list(spec.secrets),
        "forward": list(spec.forward),
        "warnings": list(sandbox.warnings),
        "cursor": sandbox.cursor,
    }
    return {
        "id": sandbox.id,
        "name": sandbox.name,
        "backend": spec.backend,
        "agent": spec.agent,
        "state": sandbox.state.value,
        "agent_state": sandbox.agent_state.value,
        "project_dir": str(spec.project_dir),
        "network": spec.network,
        "workspace": spec.workspace,
        "geometry": str(spec.geometry),
        "limits": {
            "asked": dict(sandbox.limits.asked),
            "enforced_by": dict(sandbox.limits.enforced_by),
        },
        "created_at": timestamp(sandbox.created_at),
        "attach": sandbox.attach,
        **{key: words for key, words in outside.items() if words},
        **{key: value for key, value in ended.items() if value is not None},
    }


def pending(asked: EgressRequest) -> str:
    """A host that waits for an answer, and how often it was asked for."""
    return f"{one_line(asked.host, HOST)}:{asked.port} (x{asked.count})"
