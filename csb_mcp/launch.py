"""``claude-sandbox``: one sandbox by hand, in this terminal, without a daemon.

It only finds things: a home for this project, the agent's program. What the sandbox is made of is
the launcher's business, which takes the place of this process.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from csb_mcp.agents import shell
from csb_mcp.agents.claude.program import find
from csb_mcp.config import NETWORKS, Settings, load_settings
from csb_mcp.errors import CsbError, Forbidden, HostUnable, InvalidInput
from csb_mcp.host.launchers import Launchers
from csb_mcp.lib.hosts import normal_pattern
from csb_mcp.lib.processes import default_signals, stat_fields
from csb_mcp.model import PRESETS, resolved

_FLAGS = {"--shell", "--print-args", "--contract", "--help"}
_FAILED = 125  # as the launcher's own failures


@dataclass(frozen=True, slots=True)
class _Line:
    """What the launcher's command line says, as far as it matters here."""

    words: tuple[str, ...]  # all before ``--``, but --allow-host
    command: tuple[str, ...]
    options: frozenset[str]
    project: Path
    network: str
    allow: tuple[str, ...]


def main() -> None:
    """Become the launcher. Exits 125 with the reason if that cannot be."""
    try:
        _run(sys.argv[1:])
    except CsbError as error:
        sys.exit(_complain(str(error)))
    except OSError as error:
        sys.exit(_complain(f"{error.filename}: {error.strerror}"))


def _run(argv: Sequence[str]) -> NoReturn:
    line = _parse(argv)
    if os.geteuid() == 0:
        _leave_root(line.project)
    settings = load_settings()
    _check_network(line, settings)
    place = settings.state_dir / "by-hand"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    launchers = Launchers(place / "launchers", settings)
    if problems := launchers.problems():
        first = problems[0]
        raise HostUnable(f"{first.what}: {first.why}", hint=first.repair)
    launchers.install()
    words = [str(launchers.path("bubblewrap")), *line.words]
    if line.network == "allowlist" and not line.options & (_FLAGS - {"--shell"}):
        door = _start_proxy(_own_folder(place, line.project), launchers, line.allow)
        words += ["--egress-dir", str(door)]
    if "--home" not in line.options:
        words += ["--home", str(_home(place, line.project))]
    command = line.command
    if not command and not line.options & _FLAGS:
        folders = os.environ.get("PATH", os.defpath).split(":")  # of the person who typed this
        program = find(settings.claude, Path.home(), folders)
        command = program.argv
        words += [word for path in program.shown for word in ("--program", str(path))]
    default_signals()
    os.execv(words[0], [*words, "--", *command] if command else words)  # noqa: S606  no shell


def _parse(argv: Sequence[str]) -> _Line:
    words = list(argv)
    command: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    allow: list[str] = []
    while "--allow-host" in words[:-1]:
        at = words.index("--allow-host")
        allow.append(words[at + 1])
        del words[at : at + 2]
    options = [word for word in words if word.startswith("--")]
    positional = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("--") and (not before.startswith("--") or before in _FLAGS)
    ]
    project = Path(positional[-1] if positional else ".").resolve()
    network = (["none"] + [b for a, b in pairwise(words) if a == "--network"])[-1]
    return _Line(tuple(words), tuple(command), frozenset(options), project, network, _normal(allow))


def _normal(hosts: Sequence[str]) -> tuple[str, ...]:
    """Presets by what they stand for. Raises InvalidInput."""
    try:
        named = [host if host in PRESETS else normal_pattern(host) for host in hosts]
    except ValueError as error:
        raise InvalidInput(str(error), field="--allow-host", choices=sorted(PRESETS)) from error
    if empty := [name for name in named if name in PRESETS and not PRESETS[name]]:
        raise InvalidInput(f"{empty[0]} is set up for no index here", field="--allow-host")
    return resolved(tuple(named))


def _check_network(line: _Line, settings: Settings) -> None:
    if line.network not in NETWORKS:
        raise InvalidInput("no such network", field="--network", choices=NETWORKS)
    if NETWORKS.index(line.network) > NETWORKS.index(settings.max_network):
        raise Forbidden(
            f"the settings allow at most {settings.max_network!r}",
            field="--network",
            hint="max_network in the settings bounds it",
        )
    if line.allow and line.network != "allowlist":
        raise InvalidInput("this goes with --network allowlist", field="--allow-host")


def _start_proxy(own: Path, launchers: Launchers, allow: Sequence[str]) -> Path:
    """Start the egress proxy, which ends with this process; gives the folder of its door.

    Its rules stay as they are; ``connections/log`` beside the home tells what came of them.
    """
    running = set(_running())
    for path in own.glob("egress-*"):
        if path.name not in running:
            shutil.rmtree(path, ignore_errors=True)
    here, log = own / next(_running(os.getpid())), own / "connections"
    words = [str(launchers.path("egress")), "--log", str(log)]
    for option in ("door", "control"):
        (here / option).mkdir(mode=0o700, parents=True)
        words += [f"--{option}", str(here / option)]
    log.mkdir(mode=0o700, exist_ok=True)
    # An empty one without any: nobody is there who would send rules, or could be asked.
    words += [word for host in allow or ("",) for word in ("--allow", host)]
    with (log / "messages").open("wb") as messages:
        # bwrap ends it with us, that is, with what we are about to become.
        subprocess.Popen(
            words,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            start_new_session=True,
        )
    return here / "door"


def _running(*pids: int) -> Iterator[str]:
    """Names of folders whose process runs."""
    for pid in pids or [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        if fields := stat_fields(pid):
            yield f"egress-{pid}-{fields[19]}"  # with the time it started at (proc(5))


def _leave_root(project: Path) -> None:
    """Become who called sudo, else the project's owner; never root. As the launcher does."""
    uid = int(os.environ.get("SUDO_UID", "0")) or project.stat().st_uid
    if uid == 0:
        raise HostUnable(
            "refusing to run a payload as root",
            hint=f"run: sudo -u USER claude-sandbox {project}",
        )
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        raise HostUnable(f"uid {uid} has no account, so no home") from None
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(uid, uid, uid)
    kept = {name: os.environ[name] for name in ("TERM", "LANG", "PATH") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name)


def _own_folder(place: Path, project: Path) -> Path:
    folder = place / hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _home(place: Path, project: Path) -> Path:
    """A home of this project's own, kept from one time to the next."""
    home = _own_folder(place, project) / "home"
    shell.seed_home(home, os.getuid(), os.getgid())
    return home


def _complain(why: str) -> int:
    print(f"claude-sandbox: {why}", file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    main()
