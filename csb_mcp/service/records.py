"""What a new sandbox's record says: what bounds it, how a person attaches, what did not hold."""

import os
import time

from csb_mcp.lib.text import one_line
from csb_mcp.lib.units import size_text
from csb_mcp.model import (
    AgentState,
    Folders,
    Limits,
    Outcome,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Verification,
)
from csb_mcp.ports import Backend, Enclosure
from csb_mcp.service.agents.budgets import budget_words


def new_record(
    made: str, uid: int, spec: SandboxSpec, backend: Backend, attach: str, *, supervised: bool
) -> Sandbox:
    """The record of one that is being created, with that id."""
    return Sandbox(
        id=made,
        name=spec.name,
        spec=spec,
        state=SandboxState.CREATING,
        uid=uid,
        created_at=time.time(),
        limits=_limits(spec, backend),
        unguarded=tuple(backend.unguarded(spec.project_dir)),
        attach=attach,
        allowed_hosts=spec.allow_hosts,
        agent_state=AgentState.STARTING if supervised else AgentState.NONE,
    )


def not_held(found: Verification) -> str:
    """The rows that say so: attacks that succeeded, else those that could not be tried."""
    broken = [row for row in found.probes if row.outcome is Outcome.BROKEN]
    rows = broken or [row for row in found.probes if row.outcome is Outcome.UNTESTED]
    told = "; ".join(f"{row.name} ({row.protects}): {row.detail}".rstrip(": ") for row in rows)
    what = "isolation does not hold" if broken else "isolation could not be tested"
    return f"{what}: {one_line(told, 1000) or 'no attack was tried'}"


def attach_line(folders: Folders, uid: int) -> str:
    """A line for a person. Never as root: a tmux client does what its server says."""
    attach = f"tmux -S {folders.tmux_socket} attach -t main"
    if uid == os.geteuid():
        return attach
    return f"setpriv --reuid={uid} --regid={uid} --clear-groups {attach}"


def _limits(spec: SandboxSpec, backend: Backend) -> Limits:
    """What was asked for, in words, by name; and what the backend bounds anyway."""
    asked = {"memory": size_text(spec.memory), "pids": str(spec.pids)}
    if spec.cpus is not None:
        asked["cpus"] = f"{spec.cpus:g}"
    if spec.ttl is not None:
        asked["ttl"] = f"{spec.ttl:g}s"
    if spec.idle_timeout is not None:
        asked["idle_timeout"] = f"{spec.idle_timeout:g}s"
    asked |= budget_words(spec.budget)
    bounds = backend.bounds(spec)
    asked |= {name: limit for name, (limit, _) in bounds.items()}
    return Limits(asked=asked, enforced_by={name: by for name, (_, by) in bounds.items()})


def enforced(sandbox: Sandbox, enclosure: Enclosure) -> Limits:
    """With what enforces each limit that was asked for: the host's means, or this program."""
    asked, known = sandbox.limits.asked, sandbox.limits.enforced_by
    by = {name: known.get(name) or enclosure.enforced_by.get(name, "csb-mcp") for name in asked}
    return Limits(asked=asked, enforced_by=by)
