"""A sandbox: what was asked for, and its record."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from csb_mcp.model.agent import AgentState
from csb_mcp.model.bounds import DEFAULT_MEMORY, DEFAULT_PIDS
from csb_mcp.model.budget import NO_BUDGET, Budget
from csb_mcp.model.counted import KeptCount
from csb_mcp.model.egress import EgressRequest
from csb_mcp.model.screen import DEFAULT_GEOMETRY, Geometry


class SandboxState(StrEnum):
    """``creating -> running <-> paused -> stopped | dead | failed``."""

    CREATING = "creating"  # a row is in the store; processes may or may not exist yet
    RUNNING = "running"  # display, terminal and helper have answered
    PAUSED = "paused"  # frozen by us
    STOPPED = "stopped"  # we ended it, on request, at its ttl or at shutdown
    DEAD = "dead"  # it ended by itself, or was lost
    FAILED = "failed"  # it never came up; everything was rolled back

    @property
    def ended(self) -> bool:
        """Nothing of it runs any more."""
        return self in (SandboxState.STOPPED, SandboxState.DEAD, SandboxState.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What was asked for, already checked for form (not yet for policy).

    ``memory`` is bytes, ``cpus`` processors' worth of time (1.5: one and a half), ``pids`` a number
    of processes (threads count), each for the whole tree, display and terminal included. ``ttl`` is
    wall-clock seconds from creation, ``idle_timeout`` seconds without output, input or a running
    command. None: no limit. ``command`` is the argument vector that ``agent="command"`` runs.
    ``env`` is added to the payload's environment; it never appears in an argument vector.
    ``allow_hosts`` are hosts as :mod:`csb_mcp.model.egress` writes them, or names of presets;
    ``secrets`` are names of the settings' secrets, ``forward`` of what is let in from the host.
    ``task``: the first prompt of its agent, submitted and proved before it is given out; it is not
    kept. ``budget`` bounds what its agent may use. ``verify``: attack it before it is given out,
    and take it back if an attack succeeds.
    """

    project_dir: Path
    name: str | None = None
    backend: str = "bubblewrap"
    agent: str = "shell"
    command: tuple[str, ...] = ()
    network: str = "none"
    workspace: str = "direct"
    geometry: Geometry = DEFAULT_GEOMETRY
    gl: bool = False
    memory: int = DEFAULT_MEMORY
    cpus: float | None = None
    pids: int = DEFAULT_PIDS
    ttl: float | None = None
    idle_timeout: float | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    allow_hosts: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    forward: tuple[str, ...] = ()
    verify: bool = False
    task: str | None = None
    budget: Budget = NO_BUDGET


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``asked``: limit name to what was asked; ``enforced_by``: limit name to what enforces it."""

    asked: Mapping[str, str] = field(default_factory=dict[str, str])
    enforced_by: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The record of one sandbox, as every face shows it.

    ``uid`` is the host uid that the payload runs as, never 0. ``attach`` is a ready command for a
    person. ``exit_status`` is the payload's own (128 + n for a signal n), if it ended by itself.
    ``unguarded`` are the protected paths (relative to the project) that did not exist at the start
    and so could not be bound read-only; ``warnings`` tell, among others, when one of them appears.
    ``allowed_hosts`` and ``denied_hosts`` are the egress rules in force, presets by their names;
    ``pending`` are hosts that it asked for and that nobody has answered for. ``counted`` is what
    its proxy counted of an agent's API, None if it counts none. ``cursor`` is from before its task,
    in what create gives and nowhere else.
    """

    id: str
    spec: SandboxSpec
    state: SandboxState
    uid: int
    created_at: float
    name: str | None = None
    agent_state: AgentState = AgentState.NONE
    ended_at: float | None = None
    reason: str | None = None
    exit_status: int | None = None
    limits: Limits = Limits()
    attach: str = ""
    unguarded: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    denied_hosts: tuple[str, ...] = ()
    pending: tuple[EgressRequest, ...] = ()
    counted: KeptCount | None = None
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start one process tree.

    ``prefix`` goes before the *root* of the tree (tmux): it enters what bounds the tree, changes
    uid and stages folders, and is empty where nothing of the kind is needed. ``argv`` runs inside
    that root, in a pane.
    """

    argv: tuple[str, ...]
    prefix: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that this host lacks. ``repair`` is a command line or a sentence.

    ``fatal``: no sandbox can be made without it; else something is weaker, and works all the same.
    """

    what: str
    why: str
    repair: str
    fatal: bool = True
