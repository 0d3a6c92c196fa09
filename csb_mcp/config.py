"""One parser for all settings: a TOML file, then the environment, then flags; the last one wins.

The file is ``$XDG_CONFIG_HOME/csb-mcp/config.toml`` (root: ``/etc/csb-mcp/config.toml``), or what
``--config`` or ``CSB_MCP_CONFIG`` names. A setting ``create_timeout`` is ``create_timeout`` in the
file, ``CSB_MCP_CREATE_TIMEOUT`` in the environment and ``--create-timeout`` as a flag; lists are
separated by ``:`` in the environment and in flags.
"""

import os
import pwd
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.lib.hosts import normal_host, normal_pattern
from csb_mcp.lib.units import parse_duration, parse_size

PREFIX = "CSB_MCP_"
_DEAREST = 1e6  # dollars per million tokens
_MOST_SPARES = 64
NETWORKS = ("none", "allowlist", "full", "host")  # from the narrowest to the widest


FORWARDS = (
    *("git", "ssh-agent", "gh", "nix-daemon", "dbus"),
    *("gpu", "audio", "wayland", "display"),
)
"""All that can be let into a sandbox from the host, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """One secret that the egress proxy puts into requests to ``host`` (one name, port 443).

    ``variable``: the environment variable inside that has its placeholder. The value is read when
    a sandbox starts, from ``file`` or from the daemon's own environment variable ``environment``;
    exactly one is given. ``authorities``: a file of certificates (PEM) to trust for that host,
    instead of the system's. ``inside``: the sandbox gets the value itself, no placeholder; no proxy
    is needed then.
    """

    host: str
    variable: str
    file: Path | None = None
    environment: str | None = None
    authorities: Path | None = None
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, by kind: US dollars per million."""

    input: float
    output: float
    cache_creation: float
    cache_read: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, resolved. Paths are absolute; durations are seconds.

    ``project_roots``: sandboxes work on folders below one of these only. ``max_network``: the
    widest network mode that may be asked for. ``run_as``: account for payloads of a daemon that
    root runs, where no better one is known. ``uid_base``: first of the uids that a root daemon
    gives to sandboxes of their own. ``create_timeout``: how long a create may take before it is
    rolled back. ``stop_timeout``: how long a stop waits for processes to end by themselves.
    ``spares``: so many sandboxes are kept half made, like the last one, for the next create.
    ``idle_exit``: a daemon that was started by ``csb-mcp stdio`` ends after so long without
    sandboxes and clients. ``disk_reserve``: with fewer bytes free on the disk of the state folder,
    sandboxes that write are paused. ``cgroup_parent``: a folder of cgroup v2 that was given to us,
    where none is found by itself. ``egress_hosts``: hosts that may be allowed at all (``*``: any).
    ``forward``: what of the host sandboxes may be given if they ask for it. ``ssh_agent``,
    ``display``, ``xauthority``: where the user's session has the agent's socket, the X screen
    (``:N``) and its cookies, for a daemon that the session did not start. ``secrets``: by name,
    what the egress proxy may put into requests. ``prices``: what models' tokens cost, by the
    beginning of a model's name. ``bwrap`` ...: absolute paths of programs, where
    they are not to be looked for in the usual places.
    """

    state_dir: Path
    runtime_dir: Path
    config_file: Path
    project_roots: tuple[Path, ...]
    max_network: str = "full"
    run_as: str | None = None
    uid_base: int = 1_900_000_000
    create_timeout: float = 30.0
    stop_timeout: float = 2.0
    spares: int = 1
    idle_exit: float = 600.0
    disk_reserve: int = 512 * 1024**2
    cgroup_parent: Path | None = None
    egress_hosts: tuple[str, ...] = ("*",)
    forward: tuple[str, ...] = ()
    ssh_agent: Path | None = None
    display: str | None = None
    xauthority: Path | None = None
    secrets: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    prices: Mapping[str, Price] = field(default_factory=dict[str, Price])
    bwrap: Path | None = None
    tmux: Path | None = None
    xvfb: Path | None = None
    chromium: Path | None = None
    pasta: Path | None = None
    nft: Path | None = None
    claude: Path | None = None
    codex: Path | None = None

    @property
    def mcp_socket(self) -> Path:
        """Where the daemon answers MCP."""
        return self.runtime_dir / "daemon" / "mcp.sock"

    @property
    def http_socket(self) -> Path:
        """Where the daemon answers HTTP."""
        return self.runtime_dir / "daemon" / "http.sock"

    @property
    def lock_file(self) -> Path:
        """Held by the one daemon of this state folder."""
        return self.state_dir / "daemon.lock"


def load_settings(
    flags: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Settings from file, environment and ``flags`` (setting name to text).

    Raises InvalidInput, naming the setting and where it stood; HostUnable if there is no place for
    the runtime folder.
    """
    env = os.environ if environ is None else environ
    named = dict(flags or {})
    path = _config_file(named.pop("config", None), env)
    values: dict[str, Any] = _defaults(env) | {"config_file": path}
    for source, found in (
        (str(path), _read_file(path)),
        ("environment", _read_environment(env)),
        ("flags", named),
    ):
        for key, value in found.items():
            values[key] = _convert(key, value, source)
    return Settings(**values)


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def _config_file(named: str | None, env: Mapping[str, str]) -> Path:
    chosen = named or env.get(PREFIX + "CONFIG")
    if chosen:
        path = Path(chosen).absolute()
        if not path.is_file():
            raise InvalidInput(f"{path} is not a file", field="config")
        return path
    if os.getuid() == 0:
        return Path("/etc/csb-mcp/config.toml")
    base = env.get("XDG_CONFIG_HOME") or _home(env) / ".config"
    return Path(base) / "csb-mcp/config.toml"


def _defaults(env: Mapping[str, str]) -> dict[str, Any]:
    home, root = _home(env), os.getuid() == 0
    state = Path(env.get("XDG_STATE_HOME") or home / ".local/state") / "csb-mcp"
    return {
        "state_dir": Path("/var/lib/csb-mcp") if root else state,
        "runtime_dir": _runtime_dir(env, root=root),
        "project_roots": (home,),
    }


def _runtime_dir(env: Mapping[str, str], *, root: bool) -> Path:
    if root:
        return Path("/run/csb-mcp")
    if env.get("XDG_RUNTIME_DIR"):
        return Path(env["XDG_RUNTIME_DIR"]) / "csb-mcp"
    # No login session (ssh without pam_systemd, containers): a folder of ours on tmpfs. The daemon
    # checks its owner and mode before it uses it.
    return Path(f"/dev/shm/csb-mcp-{os.getuid()}")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise HostUnable(f"{path} cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}", field="config") from error


def _read_environment(env: Mapping[str, str]) -> dict[str, str]:
    found = {k[len(PREFIX) :].lower(): v for k, v in env.items() if k.startswith(PREFIX)}
    found.pop("config", None)
    return found


def _convert(key: str, value: object, source: str) -> object:
    if key not in _CONVERTERS:
        raise InvalidInput("no such setting", field=f"{source}: {key}", choices=sorted(_CONVERTERS))
    try:
        return _CONVERTERS[key](value)
    except ValueError as error:
        raise InvalidInput(str(error), field=f"{source}: {key}") from error


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError(f"{value} is not an absolute path")
    return path


def _paths(value: object) -> tuple[Path, ...]:
    parts = value.split(":") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise ValueError("must be a list of absolute paths")
    return tuple(_path(part) for part in cast("list[object]", parts))


def _network(value: object) -> str:
    if value not in NETWORKS:
        raise ValueError("must be one of " + ", ".join(NETWORKS))
    return str(value)


def _whole(value: object) -> int:
    number = int(str(value))
    if number < 1:
        raise ValueError(f"{value} is not a positive number")
    return number


def _few(value: object) -> int:
    number = int(str(value))
    if not 0 <= number <= _MOST_SPARES:
        raise ValueError(f"{value} is not 0 to {_MOST_SPARES}")
    return number


def _words(value: object) -> tuple[str, ...]:
    parts = value.split(":") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError("must be a list of words")  # noqa: TRY004  _convert names the setting
    return tuple(_text(part) for part in cast("list[object]", parts))


def _forwards(value: object) -> tuple[str, ...]:
    names = _words(value)
    if unknown := [name for name in names if name not in FORWARDS]:
        raise ValueError(f"{unknown[0]} is none of " + ", ".join(FORWARDS))
    return names


def _hosts(value: object) -> tuple[str, ...]:
    # With commas between, as a colon goes before a port.
    names = _words(value.split(",") if isinstance(value, str) else value)
    if dotless := [name for name in names if name != "*" and "." not in name]:
        raise ValueError(f"{dotless[0]} is no host; a preset's hosts have to be named one by one")
    return tuple(name if name == "*" else normal_pattern(name) for name in names)


def _secrets(value: object) -> dict[str, Secret]:
    if not isinstance(value, dict):
        raise ValueError("must be tables: [secrets.NAME] in the settings file")  # noqa: TRY004
    tables = cast("dict[str, object]", value)
    return {name: _secret(name, table) for name, table in tables.items()}


def _secret(name: str, table: object) -> Secret:
    known: dict[str, Callable[[object], object]]
    known = {"host": normal_host, "variable": _text, "environment": _text}
    known |= {"file": _path, "authorities": _path, "inside": _truth}
    values = cast("dict[str, object]", table) if isinstance(table, dict) else {}
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{name}: {unknown[0]} is none of " + ", ".join(known))
    found: dict[str, Any] = {key: known[key](item) for key, item in values.items()}
    if not {"host", "variable"} <= set(found) or ("file" in found) == ("environment" in found):
        raise ValueError(f"{name} needs host, variable, and either file or environment")
    return Secret(**found)


def _prices(value: object) -> dict[str, Price]:
    if not isinstance(value, dict):
        raise ValueError('must be tables: [prices."MODEL"] in the settings file')  # noqa: TRY004
    return {name: _price(name, table) for name, table in cast("dict[str, object]", value).items()}


def _price(name: str, table: object) -> Price:
    kinds = [f.name for f in fields(Price)]
    values = cast("dict[str, object]", table) if isinstance(table, dict) else {}
    if sorted(values) != sorted(kinds):
        raise ValueError(f"{name} needs " + ", ".join(kinds) + ", and nothing else")
    found = [values[kind] for kind in kinds]
    numbers = [float(one) for one in found if isinstance(one, int | float)]
    if len(numbers) < len(kinds) or any(not 0 <= one < _DEAREST for one in numbers):
        raise ValueError(f"{name}: each is a number of US dollars per million tokens")
    return Price(*numbers)


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004  _convert names the setting
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a non-empty string")
    return value


_CONVERTERS: dict[str, Callable[[object], object]] = {
    "max_network": _network,
    "run_as": _text,
    "display": _text,
    "uid_base": _whole,
    "spares": _few,
    "disk_reserve": parse_size,
    "project_roots": _paths,
    "egress_hosts": _hosts,
    "forward": _forwards,
    "secrets": _secrets,
    "prices": _prices,
    **dict.fromkeys(("create_timeout", "stop_timeout", "idle_exit"), parse_duration),
    **dict.fromkeys(
        ("state_dir", "runtime_dir", "cgroup_parent", "ssh_agent", "xauthority"), _path
    ),
    **dict.fromkeys(
        ("bwrap", "tmux", "xvfb", "chromium", "pasta", "nft", "claude", "codex"), _path
    ),
}
SETTINGS = tuple(f.name for f in fields(Settings) if f.name in _CONVERTERS)
"""Names of all settings, in the order in which they are documented."""
