"""What the supervisor may ask for. It may be prompt-injected too, so the settings bound it."""

import os
from dataclasses import dataclass
from pathlib import Path

from csb_mcp.config import NETWORKS, Settings
from csb_mcp.errors import Forbidden, InvalidInput
from csb_mcp.lib.safe_open import open_folder
from csb_mcp.model import SandboxSpec

AGENTS = ("shell", "command")


@dataclass(frozen=True, slots=True)
class Project:
    """A folder that passed the policy. ``fd`` is an O_PATH descriptor of that very folder.

    Whoever holds this closes ``fd``. ``path`` may be swapped by somebody hostile after the check;
    the descriptor may not, so mounts are made from it.
    """

    path: Path
    fd: int


def check_spec(
    spec: SandboxSpec, settings: Settings, backends: tuple[str, ...], agents: tuple[str, ...] = ()
) -> None:
    """Refuse what this part, this host's settings or the combination of arguments does not allow.

    Raises InvalidInput, Forbidden.
    """
    _one_of(spec.backend, backends, "backend")
    _one_of(spec.agent, (*agents, *AGENTS), "agent")
    _check_supervised(spec, agents)
    _one_of(spec.workspace, ("direct",), "workspace")
    if (spec.agent == "command") != bool(spec.command):
        raise InvalidInput(
            "agent 'command' needs a command, and no other agent takes one", field="command"
        )
    _one_of(spec.network, NETWORKS, "network")
    if NETWORKS.index(spec.network) > NETWORKS.index(settings.max_network):
        raise Forbidden(
            f"the settings allow at most {settings.max_network!r}",
            field="network",
            hint="max_network in the settings bounds it; if you did not ask for it, its agent "
            'needs it: give network="none", or agent="shell"',
        )
    _check_way_out(spec, settings)


def _check_supervised(spec: SandboxSpec, agents: tuple[str, ...]) -> None:
    if spec.budget.given and spec.agent not in agents:
        raise InvalidInput(
            f"what agent {spec.agent!r} uses is not known",
            field=next(iter(spec.budget.given)),
            choices=agents,
        )
    if spec.task is not None and spec.agent not in agents:
        raise InvalidInput(
            f"agent {spec.agent!r} takes no task",
            field="task",
            choices=agents,
            hint="name an agent that does, or use send_keys",
        )


def _check_way_out(spec: SandboxSpec, settings: Settings) -> None:
    """What goes through an egress proxy needs one; what is let in must be in the settings.

    (Which hosts may be allowed is the business of :mod:`csb_mcp.service.rules`.)
    """
    known = settings.secrets
    by_proxy = tuple(name for name in spec.secrets if name not in known or not known[name].inside)
    for field, asked in (("allow_hosts", spec.allow_hosts), ("secrets", by_proxy)):
        if asked and spec.network != "allowlist":
            raise InvalidInput(
                f"only network 'allowlist' has {field}; this is {spec.network!r}",
                field=field,
                hint="ask for network 'allowlist'",
            )
    for name in spec.secrets:
        _one_of(name, tuple(settings.secrets), "secrets")
    for name in spec.forward:
        if name not in settings.forward:
            raise Forbidden(
                f"the settings do not let {name!r} in",
                field="forward",
                choices=settings.forward,
                hint="forward in the settings names what may be let in",
            )


def _one_of(value: str, choices: tuple[str, ...], field: str) -> None:
    if value not in choices:
        raise InvalidInput(f"{value!r} is not available here", field=field, choices=choices)


def open_project(asked: Path, settings: Settings) -> Project:
    """The project folder, resolved, checked and opened.

    Raises InvalidInput (missing, not a folder, not absolute), Forbidden (outside the
    ``project_roots``, or a place where a sandbox could harm the user or us).
    """
    if not asked.is_absolute():
        raise InvalidInput(f"{asked} is not an absolute path", field="project_dir")
    try:
        path = asked.resolve(strict=True)
        fd = open_folder(path)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{asked} does not exist", field="project_dir", hint="make the folder first"
        ) from error
    except NotADirectoryError as error:
        raise InvalidInput(f"{asked} is not a folder", field="project_dir") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise InvalidInput(f"{asked} cannot be opened: {error}", field="project_dir") from error
    try:
        _check_place(path, settings)
    except BaseException:
        os.close(fd)
        raise
    return Project(path, fd)


def _check_place(path: Path, settings: Settings) -> None:
    roots = [root.resolve() for root in settings.project_roots]
    if not any(root in path.parents for root in roots):
        raise Forbidden(
            f"{path} is not below a project root",
            field="project_dir",
            choices=[str(root) for root in roots],
            hint="project_roots in the settings names the folders below which projects may lie",
        )
    home = Path.home().resolve()
    if path == home or path in home.parents:
        raise Forbidden(f"{path} is, or holds, your home", field="project_dir")
    if home in path.parents and path.relative_to(home).parts[0].startswith("."):
        raise Forbidden(
            f"{path} lies in a dot-folder of your home, where programs keep settings and secrets",
            field="project_dir",
        )
    for ours in (settings.state_dir, settings.runtime_dir, settings.config_file):
        place = ours.resolve()
        if path == place or path in place.parents or place in path.parents:
            raise Forbidden(
                f"{path} holds, or lies in, {place}, which belongs to csb-mcp", field="project_dir"
            )
