"""The arguments of each call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from csb_mcp.decode.conditions import conditions
from csb_mcp.decode.values import (
    MAX_WIDTH,
    between,
    command_line,
    command_timeout,
    cursors,
    duration,
    environment,
    geometry,
    inner_path,
    key_list,
    name,
    named,
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
from csb_mcp.lib.text import one_line
from csb_mcp.model import MAX_ROWS, Condition, Geometry, Region, SandboxSpec, SandboxState

AGENTS = ("shell", "command")
WORKSPACES = ("direct",)
FORMATS = ("png", "jpeg", "webp")
MODES = ("any", "all")
TARGETS = ("terminal", "display")
_CREATE = (
    *("project_dir", "name", "backend", "agent", "command", "network", "workspace"),
    *("geometry", "gl", "ttl", "env"),
)

T = TypeVar("T")
D = TypeVar("D")


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


def sandbox_spec(values: object) -> SandboxSpec:
    """Arguments of create_sandbox.

    ``network`` may be true (``full``) or false (``none``), as in the earlier manager's REST body.
    Without ``agent``, a ``command`` means ``agent="command"``.
    """
    fields = _Fields(
        values,
        _CREATE,
    )
    command = fields.get("command", command_line, ())
    agent = fields.get("agent", one_of(AGENTS), "command" if command else "shell")
    if (agent == "command") != bool(command):
        raise InvalidInput(
            f'agent "{agent}" ' + ("takes no command" if command else "needs a command"),
            field="command",
            hint='Give agent="command" and command=["program", "argument"], or neither',
        )
    return SandboxSpec(
        project_dir=fields.need("project_dir", project),
        name=fields.get("name", name, None),
        backend=fields.get("backend", name, "bubblewrap"),
        agent=agent,
        command=command,
        network=fields.get("network", network, "none"),
        workspace=fields.get("workspace", one_of(WORKSPACES), "direct"),
        geometry=fields.get("geometry", geometry, Geometry(1280, 800)),
        gl=fields.get("gl", truth, False),
        ttl=fields.get("ttl", duration, None),
        env=fields.get("env", environment, dict[str, str]()),
    )


def list_filter(values: object) -> SandboxState | None:
    """Arguments of list_sandboxes."""
    states = tuple(state.value for state in SandboxState)
    fields = _Fields(values, ("state",))
    return fields.get("state", lambda value: SandboxState(one_of(states)(value)), None)


def named_sandbox(values: object) -> str:
    """Arguments of calls that take a sandbox and nothing else."""
    return _Fields(values, ("sandbox",)).need("sandbox", reference)


def optional_sandbox(values: object) -> str | None:
    """Arguments of metrics."""
    return _Fields(values, ("sandbox",)).get("sandbox", reference, None)


def read_terminal(values: object) -> ReadTerminal:
    """Arguments of read_terminal."""
    fields = _Fields(values, ("sandbox", "cursor", "lines"))
    return ReadTerminal(
        fields.need("sandbox", reference),
        fields.get("cursor", token, None),
        fields.get("lines", between(1, MAX_ROWS), None),
    )


def send_keys(values: object) -> SendKeys:
    """Arguments of send_keys."""
    fields = _Fields(values, ("sandbox", "keys", "text", "target"))
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
    fields = _Fields(values, ("sandboxes", "until", "mode", "timeout", "cursor"))
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
    fields = _Fields(values, ("sandbox", "command", "timeout", "cwd", "stdin", "background"))
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
    fields = _Fields(values, ("sandbox", "region", "max_width", "format", "if_changed_since"))
    return TakeScreenshot(
        fields.need("sandbox", reference),
        fields.get("region", region, None),
        fields.get("max_width", between(16, MAX_WIDTH), 1280),
        fields.get("format", one_of(FORMATS), "png"),
        fields.get("if_changed_since", token, None),
    )


class _Fields:
    """A mapping whose keys are known, read field by field; errors get the field's name."""

    def __init__(self, values: object, valid: Sequence[str]) -> None:
        if not isinstance(values, Mapping):
            raise InvalidInput("arguments must be an object", choices=valid)
        self._values = cast("Mapping[str, object]", values)
        for key in self._values:
            if key not in valid:
                raise InvalidInput("unknown argument", field=one_line(str(key), 64), choices=valid)

    def need(self, key: str, convert: Callable[[object], T]) -> T:
        """The field, converted; an error if it is not there."""
        value = self._values.get(key)
        if value is None:
            raise InvalidInput("is required", field=key)
        return named(key, convert, value)

    def get(self, key: str, convert: Callable[[object], T], default: D) -> T | D:
        """The field, converted, or the default."""
        value = self._values.get(key)
        return default if value is None else named(key, convert, value)
