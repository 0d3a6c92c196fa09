"""``claude-sandbox``: one sandbox by hand, in this terminal, without a daemon.

It only finds things: a home for this project, the agent's program. What the sandbox is made of is
the launcher's business, which takes the place of this process.
"""

import hashlib
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from csb_mcp.agents import shell
from csb_mcp.agents.claude.program import find
from csb_mcp.config import load_settings
from csb_mcp.errors import CsbError, HostUnable
from csb_mcp.host.launchers import Launchers
from csb_mcp.lib.processes import default_signals

_FLAGS = {"--shell", "--print-args", "--contract", "--help"}
_FAILED = 125  # as the launcher's own failures


@dataclass(frozen=True, slots=True)
class _Line:
    """What the launcher's command line says, as far as it matters here."""

    words: tuple[str, ...]  # all before ``--``
    command: tuple[str, ...]
    options: frozenset[str]
    project: Path


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
    place = settings.state_dir / "by-hand"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    launchers = Launchers(place / "launchers", settings)
    if problems := launchers.problems():
        first = problems[0]
        raise HostUnable(f"{first.what}: {first.why}", hint=first.repair)
    launchers.install()
    words = [str(launchers.path("bubblewrap")), *line.words]
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
    options = [word for word in words if word.startswith("--")]
    positional = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("--") and (not before.startswith("--") or before in _FLAGS)
    ]
    project = Path(positional[-1] if positional else ".").resolve()
    return _Line(tuple(words), tuple(command), frozenset(options), project)


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


def _home(place: Path, project: Path) -> Path:
    """A home of this project's own, kept from one time to the next."""
    name = hashlib.sha256(os.fsencode(project)).hexdigest()[:16]
    (place / name).mkdir(mode=0o700, exist_ok=True)
    home = place / name / "home"
    shell.seed_home(home, os.getuid(), os.getgid())
    return home


def _complain(why: str) -> int:
    print(f"claude-sandbox: {why}", file=sys.stderr)
    return _FAILED


if __name__ == "__main__":
    main()
