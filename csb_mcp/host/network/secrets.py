"""Secrets on the daemon's side: read, stood in for, and handed to the proxy, not to a sandbox.

A sandbox with secrets has in ``folders.gate``: ``authority.pem`` (trusted inside),
``authority.key`` and ``placeholders.json`` (name of a secret to its placeholder). No value that
a proxy puts in is ever written anywhere; each is read anew when it is needed. Those that the
settings want inside go into the payload's environment instead, and no proxy knows them.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets as random
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from csb_mcp.config import Secret, Settings
from csb_mcp.errors import EgressFailed, HostUnable, InvalidInput
from csb_mcp.lib.safe_open import read_regular
from csb_mcp.model import Folders, Problem, Sandbox

_log = logging.getLogger(__name__)
_SHORTEST = 8  # what is shorter would be found, and replaced, in answers that do not carry it
_LONGEST = 4096
_AUTHORITIES_BYTES = 256 << 10
_MESSAGE_BYTES = 1000_000  # the control socket takes lines below 1 MiB
_OWN_FILE_BYTES = 64 << 10
_KEY, _PLACEHOLDERS = "authority.key", "placeholders.json"
_PLACEHOLDER = re.compile(r"csb-secret-[A-Za-z0-9_-]{1,32}-[0-9a-f]{32}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL_OWN = ("UID", "EUID", "PPID", "BASHOPTS", "SHELLOPTS", "BASH_VERSINFO", "IFS")


@dataclass(frozen=True, slots=True)
class Apis:
    """How to know agents' APIs, whose answers are counted: by host, or by what takes their key."""

    hosts: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()

    def has(self, secret: Secret) -> bool:
        """Whether it is a key to one."""
        return secret.host in self.hosts or secret.variable in self.variables


_NO_APIS = Apis()


class Secrets:
    """What the settings name as secrets, for one sandbox at a time."""

    def __init__(self, settings: Settings, apis: Apis = _NO_APIS) -> None:
        self._known = settings.secrets
        self._apis = apis

    def problems(self) -> Sequence[Problem]:
        """Secrets of the settings that cannot be read as they are."""
        found: list[Problem] = []
        for name, secret in self._known.items():
            try:
                _value(name, secret, None)
                _authorities(name, secret)
            except HostUnable as error:
                repair = error.hint or "see docs/secrets.md"
                found.append(Problem("secret", error.message, repair, fatal=False))
        return found

    async def prepare(self, sandbox: Sandbox, folders: Folders) -> Mapping[str, str]:
        """Make authority and placeholders; variable to placeholder, for the payload's environment.

        (To the value itself where the settings say ``inside``.)

        Raises InvalidInput (a name that the settings do not have, two secrets in one variable),
        HostUnable (a value cannot be read, or could be read by others).
        """
        if not sandbox.spec.secrets:
            return {}
        chosen = self._chosen(sandbox)
        return await asyncio.to_thread(_prepare, sandbox, folders, chosen)

    async def message(self, sandbox: Sandbox, folders: Folders) -> dict[str, Any] | None:
        """The control message with this sandbox's secrets, values read anew; None if it has none.

        A secret that cannot be had any more is left out, and the log says why: its host then gets
        the placeholder. Raises EgressFailed if the sandbox's own files are gone.
        """
        known = self._known
        names = [n for n in sandbox.spec.secrets if n not in known or not known[n].inside]
        if not names:
            return None
        chosen = {name: known[name] for name in names if name in known}
        if not chosen:
            _log.warning("sandbox %s: the settings have none of its secrets any more", sandbox.id)
            return {"do": "secrets", "secrets": [], "authorities": {}}
        message = await asyncio.to_thread(_message, sandbox, folders, names, chosen)
        hosts = {secret.host for secret in chosen.values() if self._apis.has(secret)}
        return {**message, "counted": sorted(hosts)} if hosts else message

    def _chosen(self, sandbox: Sandbox) -> dict[str, Secret]:
        spec = sandbox.spec
        chosen: dict[str, Secret] = {}
        for name in spec.secrets:
            if name not in self._known:
                raise InvalidInput(
                    f"the settings have no secret {name}",
                    field="secrets",
                    choices=sorted(self._known),
                    hint=f"name it in the settings file, as [secrets.{name}]",
                )
            chosen[name] = self._known[name]
        if spec.network != "allowlist" and not all(one.inside for one in chosen.values()):
            why = f"secrets are put in by the proxy, and network {spec.network} has none"
            raise InvalidInput(why, field="secrets", hint="ask for network allowlist")
        _check_variables(chosen, spec.env)
        return chosen


def _check_variables(chosen: Mapping[str, Secret], env: Mapping[str, str]) -> None:
    taken = dict.fromkeys(env, "env")
    for name, secret in chosen.items():
        variable = secret.variable
        if not _VARIABLE.fullmatch(variable) or variable in _SHELL_OWN:
            raise InvalidInput(f"{name}: {variable} cannot be a variable", field="secrets")
        if variable in taken:
            why = f"{name} and {taken[variable]} both set the variable {variable}"
            raise InvalidInput(why, field="secrets", hint="leave one of them out")
        taken[variable] = name


def _prepare(sandbox: Sandbox, folders: Folders, chosen: Mapping[str, Secret]) -> Mapping[str, str]:
    from csb_mcp.host.network.authority import make_authority  # noqa: PLC0415 - slow, see there

    given: dict[str, str] = {}
    for name, secret in chosen.items():
        given[name] = _value(name, secret, sandbox.spec.project_dir)
        _authorities(name, secret)
    placeholders = {name: _placeholder(name) for name, one in chosen.items() if not one.inside}
    given |= placeholders
    variables = {secret.variable: given[name] for name, secret in chosen.items()}
    if not placeholders:
        return variables
    hosts = sorted({chosen[name].host for name in placeholders})
    certificate, key = make_authority(sandbox.id, hosts)
    try:
        _make_gate(folders.gate, sandbox.uid)
        _write(folders.gate, folders.authority.name, certificate, 0o644)
        _write(folders.gate, _KEY, key, 0o600)
        _write(folders.gate, _PLACEHOLDERS, json.dumps(placeholders), 0o600)
    except OSError as error:
        why = f"{error.filename or folders.gate} cannot be written: {error.strerror}"
        raise HostUnable(why) from error
    return variables


def _message(
    sandbox: Sandbox, folders: Folders, names: Sequence[str], chosen: Mapping[str, Secret]
) -> dict[str, Any]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - as the next one

    from csb_mcp.host.network.authority import make_leaf  # noqa: PLC0415 - slow, see there

    items: list[dict[str, str]] = []
    authorities: dict[str, str] = {}
    try:
        placeholders = _read_placeholders(folders.gate)
        authority, key = (_own(folders.gate, name) for name in (folders.authority.name, _KEY))
        hosts = {secret.host for secret in chosen.values()}
        leaves = {host: make_leaf(authority, key, host) for host in hosts}
    except (OSError, ValueError, TypeError, RecursionError, UnsupportedAlgorithm) as error:
        why = f"its authority or placeholders cannot be read: {type(error).__name__}"
        raise EgressFailed(why, sandbox=sandbox.id, hint="make it anew") from error
    for name in names:
        try:
            secret, placeholder = chosen[name], placeholders[name]
            value = _value(name, secret, sandbox.spec.project_dir)
            trusted = _authorities(name, secret)
        except (HostUnable, KeyError) as error:
            why = "the settings do not have it" if isinstance(error, KeyError) else str(error)
            _log.warning("sandbox %s: its secret %s is not put in: %s", sandbox.id, name, why)
            continue
        certificate, leaf_key = leaves[secret.host]
        item = {"host": secret.host, "placeholder": placeholder, "value": value}
        items.append(item | {"certificate": certificate, "key": leaf_key})
        authorities |= {secret.host: authorities.get(secret.host, "") + trusted} if trusted else {}
    return _sized({"do": "secrets", "secrets": items, "authorities": authorities}, sandbox)


def _sized(message: dict[str, Any], sandbox: Sandbox) -> dict[str, Any]:
    if len(json.dumps(message)) > _MESSAGE_BYTES:
        why = "its secrets are too large together"
        raise EgressFailed(why, sandbox=sandbox.id, hint="give their hosts smaller authorities")
    return message


def _placeholder(name: str) -> str:
    shown = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:32] or "-"
    return f"csb-secret-{shown}-{random.token_hex(16)}"


def _value(name: str, secret: Secret, project: Path | None) -> str:
    """Raises HostUnable, never with a part of the value. It must not lie in ``project``."""
    if secret.environment is not None:
        text = os.environ.get(secret.environment)
        if text is None:
            why = f"the daemon has no variable {secret.environment}"
            hint = "start the daemon with it, or keep the secret in a file"
            raise HostUnable(f"secret {name}: {why}", hint=hint)
        return _checked(name, secret.environment, text)
    path = cast("Path", secret.file)
    if project and path.resolve().is_relative_to(project.resolve()):
        why = f"{path} lies in the project, where the sandbox reads it"
        raise HostUnable(f"secret {name}: {why}", hint="keep it elsewhere")
    data = _read(name, path, _LONGEST + 2, private=True)
    return _checked(name, str(path), data.decode("latin-1").removesuffix("\n").removesuffix("\r"))


def _checked(name: str, place: str, text: str) -> str:
    """It goes into a field of a header: a line break would begin another one."""
    if not _SHORTEST <= len(text) <= _LONGEST:
        why = f"{place} must hold {_SHORTEST} to {_LONGEST} characters, not {len(text)}"
        raise HostUnable(f"secret {name}: {why}")
    if not (text.isascii() and text.isprintable()) or text != text.strip():
        why = f"{place} must hold one line of printable ASCII, without blanks around it"
        raise HostUnable(f"secret {name}: {why}")
    return text


def _authorities(name: str, secret: Secret) -> str:
    if secret.authorities is None:
        return ""
    from csb_mcp.host.network.authority import certificates  # noqa: PLC0415 - slow, see there

    data = _read(name, secret.authorities, _AUTHORITIES_BYTES + 1, private=False)
    try:
        if len(data) <= _AUTHORITIES_BYTES:
            return certificates(data)
    except ValueError:
        pass
    why = f"{secret.authorities} must hold certificates (PEM), 256 KiB at most"
    raise HostUnable(f"secret {name}: {why}")


def _read(name: str, path: Path, limit: int, *, private: bool) -> bytes:
    """Links are followed: the settings name the path, and managers of secrets make links."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        why = f"{path} cannot be read: {error.strerror}"
        raise HostUnable(f"secret {name}: {why}", hint="csb-mcp's daemon must own it") from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise HostUnable(f"secret {name}: {path} is not a file")
        if private and (why := _exposed(found)):
            raise HostUnable(f"secret {name}: {path} {why}", hint=f"chown it, and chmod 600 {path}")
        with open(fd, "rb", closefd=False) as file:
            return file.read(limit)
    except OSError as error:
        raise HostUnable(f"secret {name}: {path} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)


def _exposed(found: os.stat_result) -> str:
    if found.st_uid not in (0, os.geteuid()):
        return "belongs to somebody else"
    # Where an access list lets one more account read (systemd's credentials), its mask is what the
    # group's bits show; the group is root's then.
    allowed = 0o740 if found.st_gid == 0 else 0o700
    return "can be read or written by others" if stat.S_IMODE(found.st_mode) & ~allowed else ""


def _make_gate(gate: Path, uid: int) -> None:
    with contextlib.suppress(FileExistsError):
        gate.mkdir(mode=0o700)
        if uid != os.geteuid():
            os.chown(gate, uid, uid, follow_symlinks=False)


def _write(folder: Path, name: str, text: str, mode: int) -> None:
    """The folder may belong to a sandbox's uid, and we be root: nothing that lies there is used."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=fd), "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask is
            file.write(text.encode())
    finally:
        os.close(fd)


def _own(gate: Path, name: str) -> str:
    return read_regular(gate, name, _OWN_FILE_BYTES).decode()


def _read_placeholders(gate: Path) -> dict[str, str]:
    """Raises OSError, ValueError. What lies there is believed only if it looks like ours."""
    found: object = json.loads(_own(gate, _PLACEHOLDERS))
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a file's content, no wrong call
    items = cast("dict[str, object]", found).items()
    return {name: p for name, p in items if isinstance(p, str) and _PLACEHOLDER.fullmatch(p)}
