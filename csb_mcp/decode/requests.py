"""The arguments of each call."""

from collections.abc import Mapping
from dataclasses import dataclass

from csb_mcp.decode.conditions import MAX_TOKENS, conditions
from csb_mcp.decode.egress import forwards, hosts, secret_names
from csb_mcp.decode.fields import Fields
from csb_mcp.decode.values import (
    MAX_PIDS,
    MAX_WIDTH,
    MIN_PIDS,
    between,
    command_line,
    command_timeout,
    cpus,
    cursors,
    dollars,
    duration,
    environment,
    geometry,
    inner_path,
    key_list,
    memory,
    name,
    network,
    non_empty,
    one_of,
    project,
    reference,
    references,
    region,
    text,
    token,
    truth,
    wait_timeout,
)
from csb_mcp.errors import InvalidInput
from csb_mcp.model import (
    DEFAULT_GEOMETRY,
    DEFAULT_MEMORY,
    DEFAULT_PIDS,
    MAX_ROWS,
    Budget,
    Condition,
    Region,
    SandboxSpec,
    SandboxState,
)

AGENTS = ("claude", "codex", "shell", "command")
DEFAULT_AGENT = "claude"
WITH_HOSTS = ("claude", "codex")  # agents that need some
WORKSPACES = ("direct",)
FORMATS = ("png", "jpeg", "webp")
MODES = ("any", "all")
TARGETS = ("terminal", "display")
MAX_TURNS = 10**6
MAX_LOG = 1024 * 1024
_DEFAULT_LOG = 64 * 1024
_OFFSET_BITS = 62
_CREATE = (
    *("project_dir", "name", "backend", "agent", "command", "network", "workspace"),
    *("geometry", "gl", "memory", "cpus", "pids", "ttl", "idle_timeout", "env"),
    *("allow_hosts", "secrets", "forward", "verify", "task", "max_tokens", "max_cost", "max_turns"),
)


@dataclass(frozen=True, slots=True)
class ReadTerminal:
    """Arguments of read_terminal."""

    sandbox: str
    cursor: str | None
    lines: int | None


@dataclass(frozen=True, slots=True)
class SendKeys:
    """Arguments of send_keys. Text goes before keys."""

    sandbox: str
    text: str | None
    keys: tuple[str, ...]
    target: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Arguments of wait. ``cursor`` is by sandbox, as the caller named it."""

    sandboxes: tuple[str, ...]
    until: tuple[Condition, ...]
    mode: str
    timeout: float
    cursor: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Arguments of run_command."""

    sandbox: str
    command: str
    timeout: float
    cwd: str | None
    stdin: str | None
    background: bool


@dataclass(frozen=True, slots=True)
class TakeScreenshot:
    """Arguments of screenshot."""

    sandbox: str
    region: Region | None
    max_width: int
    format: str
    if_changed_since: str | None


@dataclass(frozen=True, slots=True)
class Resume:
    """Arguments of resume."""

    sandbox: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Arguments of logs. ``offset`` None: the last ``limit`` bytes."""

    sandbox: str
    offset: int | None
    limit: int


def sandbox_spec(values: object) -> SandboxSpec:
    """Arguments of create_sandbox.

    ``network`` may be true (``full``) or false (``none``), as in the earlier manager's REST body.
    Without ``agent``, a ``command`` means ``agent="command"``, and else it is Claude Code. Without
    ``network``, hosts or secrets mean ``allowlist``, and so does an agent that needs some.
    """
    fields = Fields(values, _CREATE)
    command = fields.get("command", command_line, ())
    agent = fields.get("agent", one_of(AGENTS), "command" if command else DEFAULT_AGENT)
    if (agent == "command") != bool(command):
        raise InvalidInput(
            f'agent "{agent}" ' + ("takes no command" if command else "needs a command"),
            field="command",
            hint='Give agent="command" and command=["program", "argument"], or neither',
        )
    allow_hosts = fields.get("allow_hosts", hosts, ())
    secrets = fields.get("secrets", secret_names, ())
    task = fields.get("task", non_empty, None)
    usual = "allowlist" if secrets or agent in WITH_HOSTS else "none"
    return SandboxSpec(
        project_dir=fields.need("project_dir", project),
        name=fields.get("name", name, None),
        backend=fields.get("backend", name, "bubblewrap"),
        agent=agent,
        command=command,
        network=_network(fields, usual, by_proxy=bool(allow_hosts)),
        workspace=fields.get("workspace", one_of(WORKSPACES), "direct"),
        geometry=fields.get("geometry", geometry, DEFAULT_GEOMETRY),
        gl=fields.get("gl", truth, False),
        memory=fields.get("memory", memory, DEFAULT_MEMORY),
        cpus=fields.get("cpus", cpus, None),
        pids=fields.get("pids", between(MIN_PIDS, MAX_PIDS), DEFAULT_PIDS),
        ttl=fields.get("ttl", duration, None),
        idle_timeout=fields.get("idle_timeout", duration, None),
        env=fields.get("env", environment, dict[str, str]()),
        allow_hosts=allow_hosts,
        secrets=secrets,
        forward=fields.get("forward", forwards, ()),
        verify=fields.get("verify", truth, False),
        task=task,
        budget=_budget(fields),
    )


def _budget(fields: Fields) -> Budget:
    return Budget(
        max_tokens=fields.get("max_tokens", between(1, MAX_TOKENS), None),
        max_cost=fields.get("max_cost", dollars, None),
        max_turns=fields.get("max_turns", between(1, MAX_TURNS), None),
    )


def resume(values: object) -> Resume:
    """Arguments of resume."""
    fields = Fields(values, ("sandbox", "max_tokens", "max_cost", "max_turns"))
    return Resume(fields.need("sandbox", reference), _budget(fields))


def _network(fields: Fields, usual: str, *, by_proxy: bool) -> str:
    """With ``by_proxy`` hosts were given. (Which secrets need a proxy, the settings know.)."""
    found = fields.get("network", network, "allowlist" if by_proxy else usual)
    if by_proxy and found != "allowlist":
        raise InvalidInput(
            f'network "{found}" has no proxy for them',
            field="allow_hosts",
            hint='Leave network out, or give network="allowlist"',
        )
    return found


def list_filter(values: object) -> SandboxState | None:
    """Arguments of list_sandboxes."""
    states = tuple(state.value for state in SandboxState)
    fields = Fields(values, ("state",))
    return fields.get("state", lambda value: SandboxState(one_of(states)(value)), None)


def named_sandbox(values: object) -> str:
    """Arguments of calls that take a sandbox and nothing else."""
    return Fields(values, ("sandbox",)).need("sandbox", reference)


def optional_sandbox(values: object) -> str | None:
    """Arguments of metrics."""
    return Fields(values, ("sandbox",)).get("sandbox", reference, None)


def read_terminal(values: object) -> ReadTerminal:
    """Arguments of read_terminal."""
    fields = Fields(values, ("sandbox", "cursor", "lines"))
    return ReadTerminal(
        fields.need("sandbox", reference),
        fields.get("cursor", token, None),
        fields.get("lines", between(1, MAX_ROWS), None),
    )


def send_keys(values: object) -> SendKeys:
    """Arguments of send_keys."""
    fields = Fields(values, ("sandbox", "keys", "text", "target"))
    sandbox = fields.need("sandbox", reference)
    keys = fields.get("keys", key_list, ())
    content = fields.get("text", text, None)
    if not keys and not content:
        raise InvalidInput(
            "neither text nor keys were given",
            field="keys",
            hint='Give text="ls", keys=["Enter"], or both; text is typed first',
        )
    return SendKeys(sandbox, content, keys, fields.get("target", one_of(TARGETS), "terminal"))


def wait(values: object) -> Wait:
    """Arguments of wait. With one sandbox, ``sandboxes`` and ``cursor`` may be plain strings."""
    fields = Fields(values, ("sandboxes", "until", "mode", "timeout", "cursor"))
    sandboxes = fields.need("sandboxes", references)
    return Wait(
        sandboxes,
        fields.need("until", conditions),
        fields.get("mode", one_of(MODES), "any"),
        fields.get("timeout", wait_timeout, 30.0),
        fields.get("cursor", lambda value: cursors(value, sandboxes), dict[str, str]()),
    )


def run_command(values: object) -> RunCommand:
    """Arguments of run_command."""
    fields = Fields(values, ("sandbox", "command", "timeout", "cwd", "stdin", "background"))
    return RunCommand(
        fields.need("sandbox", reference),
        fields.need("command", non_empty),
        fields.get("timeout", command_timeout, 30.0),
        fields.get("cwd", inner_path, None),
        fields.get("stdin", text, None),
        fields.get("background", truth, False),
    )


def screenshot(values: object) -> TakeScreenshot:
    """Arguments of screenshot."""
    fields = Fields(values, ("sandbox", "region", "max_width", "format", "if_changed_since"))
    return TakeScreenshot(
        fields.need("sandbox", reference),
        fields.get("region", region, None),
        fields.get("max_width", between(16, MAX_WIDTH), 1280),
        fields.get("format", one_of(FORMATS), "png"),
        fields.get("if_changed_since", token, None),
    )


def read_log(values: object) -> ReadLog:
    """Arguments of logs."""
    fields = Fields(values, ("sandbox", "offset", "limit"))
    return ReadLog(
        fields.need("sandbox", reference),
        fields.get("offset", between(0, 1 << _OFFSET_BITS), None),
        fields.get("limit", between(1, MAX_LOG), _DEFAULT_LOG),
    )
