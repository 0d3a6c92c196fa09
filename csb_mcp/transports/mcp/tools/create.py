"""create_sandbox."""

from collections.abc import Mapping

from mcp_types import CallToolResult

from csb_mcp import decode
from csb_mcp.config import FORWARDS, NETWORKS
from csb_mcp.model import DEFAULT_GEOMETRY, DEFAULT_PIDS
from csb_mcp.ports import SandboxService
from csb_mcp.transports.mcp.tool import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    STRING,
    STRINGS,
    Definition,
    Json,
    choice,
    described,
    hints,
)
from csb_mcp.transports.mcp.tools.records import RECORD, whole

_DURATION: Json = {"type": ["string", "number"]}


async def _create(service: SandboxService, arguments: Mapping[str, object]) -> CallToolResult:
    return whole(await service.create(decode.sandbox_spec(arguments)))


CREATE = Definition(
    name="create_sandbox",
    title="Create a sandbox",
    description="Start an isolated sandbox on a project folder, with agent, terminal, display. "
    "Returns when ready, task submitted. Changes in the project are real.",
    call=_create,
    arguments={
        "project_dir": described(STRING, "Absolute; same path inside"),
        "name": STRING,
        "backend": choice(("bubblewrap",), default="bubblewrap"),
        "agent": choice(decode.AGENTS, default=decode.DEFAULT_AGENT),
        "command": described(STRINGS, 'Program and arguments, for agent "command"'),
        "network": choice(NETWORKS, description="Default allowlist; shell, command: none"),
        "workspace": choice(decode.WORKSPACES, default="direct"),
        "geometry": described(STRING, "Of the display", default=str(DEFAULT_GEOMETRY)),
        "gl": {**BOOLEAN, "default": False},
        "memory": described({"type": ["string", "integer"]}, '"512M", or bytes', default="4G"),
        "cpus": NUMBER,
        "pids": {**INTEGER, "default": DEFAULT_PIDS},
        "ttl": described(_DURATION, 'Ends after that long: "30m", or seconds'),
        "idle_timeout": described(_DURATION, "So long without output or input"),
        "task": described(STRING, "First prompt of the agent"),
        "max_tokens": INTEGER,
        "max_cost": NUMBER,
        "max_turns": INTEGER,
        "env": {"type": "object", "additionalProperties": STRING},
        "allow_hosts": described(
            STRINGS, '"example.org", "*.example.org", presets such as pip', default=[]
        ),
        "secrets": described(STRINGS, "Names, from the settings", default=[]),
        "forward": {"type": "array", "items": {"enum": list(FORWARDS)}, "default": []},
        "verify": described(BOOLEAN, "Attack it first", default=False),
    },
    required=("project_dir",),
    output=RECORD,
    output_required=("id", "state"),
    annotations=hints(open_world=True),
    about="Starts a sandbox on a project folder. Returns its record when display, terminal and "
    "helper have answered. If a stage fails, nothing is left.",
    words={
        "project_dir": "Absolute path of a folder on the host, below a "
        "[project root](settings.md#project_roots). Same path inside; changes are real and at once",
        "name": "1 to 63 of `a-z 0-9 . _ -`, beginning with a letter or digit. A sandbox keeps it "
        "until it is deleted; no other can have it meanwhile",
        "backend": "What isolates",
        "agent": "`claude`: Claude Code, which this host must have. `codex`: [Codex](codex.md). "
        "`shell`: bash. `command`: what `command` says, and need not be named beside it",
        "task": "The first prompt of the agent: create returns once it is proved submitted. If it "
        "is not, nothing is left",
        "command": "Program and arguments, for agent `command`",
        "network": "`none`: loopback, nothing else. `allowlist`: the hosts that are allowed, by a "
        "proxy; others are asked for. `full`: the internet, but neither this host nor private "
        "ranges. `host`: this host's own network, if the settings allow it. By default "
        "`allowlist` for `claude` and `codex`, or with `allow_hosts` or `secrets`; else `none`",
        "workspace": "The project itself, its [protected paths](security.md#protected-paths) "
        "read-only",
        "geometry": "Size of the display, 64x64 to 7680x4320",
        "gl": "OpenGL in software on the display; doubles the time it takes to start",
        "memory": "Bytes, or `512M`, `4G`: of all that runs in it, display and terminal included",
        "cpus": "Processors' worth of time, from 0.05; without it, no limit",
        "pids": "Processes and threads, from 16 on",
        "ttl": "The sandbox is stopped so long after its creation: seconds, or `30m`, `2h`, `1d`",
        "idle_timeout": "It is stopped after so long without output, input or a running command",
        "max_tokens": "Of the agent, all kinds together: an event at 80 %, at 100 % it is paused",
        "max_cost": "US dollars, by the [price table](settings.md#prices), where it lacks a "
        "model by its dearest; likewise",
        "max_turns": "It is paused after so many turns",
        "env": "Environment variables for the payload, at most 64 KiB. They never stand in an "
        "argument list",
        "allow_hosts": "For network `allowlist`: what [`allow_host`](#allow_host) takes, a list or "
        "one text with commas between",
        "secrets": "Names of secrets in the settings: the sandbox sees placeholders, its proxy "
        "puts the values into requests to each secret's host alone, which is allowed with it",
        "forward": "What of the host is let in; the settings name what may be: "
        + ", ".join(f"`{name}`" for name in FORWARDS),
        "verify": "Attack it as [`verify_isolation`](#verify_isolation) does before it is given "
        "out; if an attack succeeds it is taken back",
    },
    after="""\
### Record

`id`, `name`, `backend`, `agent`, `state`, `agent_state`, `project_dir`, `network`, `workspace`,
`geometry`, `limits`, `created_at`, `attach`; once it has ended also `ended_at`, `reason`, and
`exit_status` if its program ended by itself (128 + n for signal n). Times are RFC 3339 in UTC.
`limits.asked` names each limit, `limits.enforced_by` what enforces it on this host. `attach` is a
command with which a person on the host joins the terminal. `warnings`, if there are any, tell what
a person should look at: a limit that was hit, or a [protected path](security.md#protected-paths)
that appeared. `allowed_hosts` and `denied_hosts` are the egress rules in force, `pending_hosts` the
hosts that wait for an answer, with how often each was asked for; `secrets` and `forward` name what
it was given. `cursor`, in the answer to a create with a task, is from before that: wait with it.
Each of these is there only if it is not empty.
""",
)
