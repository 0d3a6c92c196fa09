"""What of the host is let into a sandbox: finds it, checks it, and says so to the launcher.

Nothing here is done that was not named (``forward``). What is found is the daemon's user's own: the
git identity and the token of the account that runs the daemon, sockets that the payload's uid may
really use. docs/forwarding.md says of each what it gives away.
"""

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from csb_mcp.config import FORWARDS, Settings
from csb_mcp.errors import HostUnable, InvalidInput
from csb_mcp.host.distribution import here
from csb_mcp.host.launchers import find_tool
from csb_mcp.host.sockets import reachable, resolved, session_socket
from csb_mcp.lib.xauth import find_cookie

_SECONDS = 10
_DISPLAY = re.compile(r"(?:unix)?:(\d{1,5})(?:\.\d+)?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9_.\-]{1,1000}", re.ASCII)
_PASSED = ("HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
_AGENTS = ("ssh-agent", "openssh_agent", "ssh-agent.socket", "gcr/ssh", "keyring/ssh")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """``words`` are the launcher's arguments; ``environment`` is for the payload, and secret."""

    words: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Payload:
    """For whom: host ids, the folder for small files of ours, the project."""

    uid: int
    gid: int
    folder: Path
    project: Path


class Forwarder:
    """Finds things. ``environ`` is the daemon's own; the others are where the host has them."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] = os.environ,
        *,
        nix: Path = Path("/nix/var/nix/daemon-socket"),
        dri: Path = Path("/dev/dri"),
        x11: Path = Path("/tmp/.X11-unix"),
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._nix = nix
        self._dri = dri
        self._x11 = x11
        self._ways: Mapping[str, Callable[[Payload], Iterator[tuple[str, Path]]]] = {
            "git": self._git,
            "ssh-agent": self._ssh_agent,
            "nix-daemon": self._nix_daemon,
            "dbus": self._dbus,
            "gpu": self._gpu,
            "audio": self._audio,
            "wayland": self._wayland,
            "display": self._display,
        }

    def find(self, names: Sequence[str], payload: Payload) -> Forwarded:
        """All of ``names`` for ``payload``. May start short programs.

        Raises InvalidInput (no such name, a place that cannot be used), HostUnable (it is not here,
        or not for this uid); both with field ``forward``.
        """
        words: list[str] = []
        environment: dict[str, str] = {}
        for name in dict.fromkeys(names):
            if name == "gh":
                environment["GH_TOKEN"] = self._token()
            elif name in self._ways:
                words += self._words(name, payload)
            else:
                raise InvalidInput(f"{name!r} is unknown", field="forward", choices=FORWARDS)
        return Forwarded(tuple(words), environment)

    def _words(self, name: str, payload: Payload) -> list[str]:
        try:
            found = list(self._ways[name](payload))
        except OSError as error:
            why = f"{name}: {error.filename}: {error.strerror}"
            raise HostUnable(why, field="forward") from error
        return [word for kind, path in found for word in ("--forward", f"{kind}={path}")]

    def _git(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        lines = ["[user]"]
        for key in ("name", "email"):
            value = self._say("git", "config", "--global", "--get", f"user.{key}").strip("\n")
            if not value or "\n" in value:
                hint = f"git config --global user.{key} ..."
                raise HostUnable(f"git: no user.{key} is set", field="forward", hint=hint)
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'\t{key} = "{escaped}"')
        yield "git", _file(payload, "git", "\n".join(lines))

    def _ssh_agent(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        runtime = self._runtime(payload)
        places = [self._settings.ssh_agent, self._path("SSH_AUTH_SOCK")]
        found = _first([*places, *(runtime / name for name in _AGENTS)])
        if found is None:
            hint = "start one and set ssh_agent in the settings, or SSH_AUTH_SOCK for the daemon"
            raise HostUnable("ssh-agent: no agent is known", field="forward", hint=hint)
        yield "ssh-agent", self._socket("ssh-agent", found, payload)

    def _nix_daemon(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        folder = resolved("nix-daemon", self._nix)
        session_socket(
            "nix-daemon",
            folder / "socket",
            payload.uid,
            payload.gid,
            owners={0, payload.uid, os.geteuid()},
            keep_out=self._keep_out(payload),
        )
        if others := sorted({entry.name for entry in folder.iterdir()} - {"socket"}):
            why = f"nix-daemon: {folder} holds more than its socket: {others[0]}"
            raise HostUnable(why, field="forward")
        yield "nix-daemon", folder

    def _dbus(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        for program in ("xdg-dbus-proxy", "python3"):
            if find_tool(program) is None:
                hint = here().install(program)
                raise HostUnable(f"dbus: {program} is missing", field="forward", hint=hint)
        default = f"unix:path={self._runtime(payload)}/bus"
        address = self._environ.get("DBUS_SESSION_BUS_ADDRESS", default).partition(";")[0]
        if not address.startswith("unix:path="):
            why = f"dbus: the session bus is at {address}, and only unix:path= can be let in"
            raise HostUnable(why, field="forward")
        path = Path(address.removeprefix("unix:path=").partition(",")[0])
        yield "dbus", self._socket("dbus", path, payload)
        yield "bus-door", _folder(payload, "bus")

    def _gpu(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        nodes = sorted(self._dri.glob("renderD*"))
        if not nodes:
            why = f"gpu: there is no {self._dri}/renderD*"
            raise HostUnable(why, field="forward", hint="a graphics card with a driver is needed")
        for node in nodes:
            if not stat.S_ISCHR(node.stat().st_mode):
                raise HostUnable(f"gpu: {node} is no device", field="forward")
            reachable("gpu", node, payload.uid, payload.gid)
            yield "gpu", node

    def _audio(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        runtime = self._runtime(payload)
        server = self._environ.get("PULSE_SERVER", "").removeprefix("unix:")
        pulse = Path(server) if server.startswith("/") else runtime / "pulse/native"
        found = [
            (kind, self._socket("audio", path, payload))
            for kind, path in (("pulse", pulse), ("pipewire", runtime / "pipewire-0"))
            if path.exists()
        ]
        if not found:
            why = f"audio: neither {pulse} nor {runtime}/pipewire-0 is there"
            raise HostUnable(why, field="forward", hint="start PipeWire or PulseAudio")
        yield from found

    def _wayland(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        path = self._runtime(payload) / self._environ.get("WAYLAND_DISPLAY", "wayland-0")
        yield "wayland", self._socket("wayland", path, payload)

    def _display(self, payload: Payload) -> Iterator[tuple[str, Path]]:
        name = self._settings.display or self._environ.get("DISPLAY", "")
        found = _DISPLAY.fullmatch(name)
        if found is None:
            hint = "set display in the settings, or DISPLAY for the daemon, to :N"
            why = f"display: {name!r} is no screen of this host"
            raise HostUnable(why, field="forward", hint=hint)
        owners = {0, payload.uid, os.geteuid()}
        socket = self._x11 / f"X{found[1]}"
        yield "display", self._socket("display", socket, payload, owners)
        file = self._settings.xauthority or self._path("XAUTHORITY")
        cookie = _cookie(file or self._home() / ".Xauthority", found[1])
        if cookie:
            yield "x-cookie", _file(payload, "x-cookie", cookie.hex() + "\n")

    def _token(self) -> str:
        """That of GitHub's own command: from the environment, else what it has stored itself."""
        kept = self._environ.get("GH_TOKEN") or self._environ.get("GITHUB_TOKEN")
        token = (kept or self._say("gh", "auth", "token")).strip()
        if not _TOKEN.fullmatch(token):
            hint = "gh auth login, as the account that runs the daemon"
            raise HostUnable("gh: no token is known", field="forward", hint=hint)
        return token

    def _socket(
        self, name: str, path: Path, payload: Payload, owners: set[int] | None = None
    ) -> Path:
        return session_socket(
            name,
            path,
            payload.uid,
            payload.gid,
            owners=owners or {payload.uid},
            keep_out=self._keep_out(payload),
        )

    def _keep_out(self, payload: Payload) -> tuple[Path, ...]:
        return (payload.project, self._settings.state_dir, self._settings.runtime_dir)

    def _say(self, program: str, *words: str) -> str:
        """What a program prints; empty if it fails. It gets little of our environment."""
        path = find_tool(program)
        if path is None:
            hint = here().install(program)
            raise HostUnable(f"{program} is not installed", field="forward", hint=hint)
        kept = {name: self._environ[name] for name in _PASSED if name in self._environ}
        kept |= {"GH_CONFIG_DIR": value} if (value := self._environ.get("GH_CONFIG_DIR")) else {}
        try:
            done = subprocess.run(
                [path, *words],
                env={"HOME": str(self._home()), "PATH": "/usr/bin:/bin"} | kept,
                cwd="/",
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.decode(errors="replace") if done.returncode == 0 else ""

    def _home(self) -> Path:
        return Path(self._environ.get("HOME") or Path.home())

    def _runtime(self, payload: Payload) -> Path:
        """The folder of the payload's user's session."""
        own = self._path("XDG_RUNTIME_DIR")
        if own and own.is_dir() and own.stat().st_uid == payload.uid:
            return own
        return Path(f"/run/user/{payload.uid}")

    def _path(self, variable: str) -> Path | None:
        value = self._environ.get(variable, "")
        return Path(value) if value.startswith("/") else None


def _first(places: Sequence[Path | None]) -> Path | None:
    """What is named counts, whether it is there or not; what is only usual must be."""
    named = [place for place in places[:2] if place]
    return (named or [place for place in places[2:] if place and place.exists()] or [None])[0]


def _folder(payload: Payload, name: str) -> Path:
    """A new folder of the payload's user, next to what else is made for this sandbox."""
    path = payload.folder / name
    for each in (payload.folder, path):
        each.mkdir(mode=0o700, exist_ok=True)
        os.chown(each, payload.uid, payload.gid, follow_symlinks=False)
    return path


def _file(payload: Payload, name: str, text: str) -> Path:
    path = _folder(payload, name) / "text"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.chown(path, payload.uid, payload.gid, follow_symlinks=False)
    return path


def _cookie(file: Path, number: str) -> bytes:
    """Empty if there is none: some servers let a user in by uid alone."""
    try:
        return find_cookie(file.read_bytes(), number)
    except OSError:
        return b""
