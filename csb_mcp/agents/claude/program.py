"""Where Claude Code is on this host: a native program, or a script for Node, in many a place.

PATH is asked only where a person typed the command: a daemon's may come from anywhere.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from csb_mcp.errors import HostUnable
from csb_mcp.ports.agent import Program

_INSTALL = "install Claude Code (npm install -g @anthropic-ai/claude-code), or set `claude`"
# Below a home: its own installer's, npm's with a prefix, and what version managers have.
_HOME = (
    ".local/bin/claude",
    ".local/share/claude/versions/*",
    ".claude/local/claude",
    ".npm-global/bin/claude",
    ".npm-packages/bin/claude",
    ".nvm/versions/node/*/bin/claude",
    ".local/share/fnm/node-versions/*/installation/bin/claude",
    ".volta/bin/claude",
    ".bun/bin/claude",
    "node_modules/.bin/claude",
)
_SYSTEM = ("/usr/local/bin/claude", "/usr/bin/claude", "/opt/claude/bin/claude")


def find(chosen: Path | None, home: Path, path: Sequence[str] = ()) -> Program:
    """The program to start and what to show of the host. ``path``: folders to look in first.

    Raises HostUnable.
    """
    for candidate in _candidates(chosen, home, path):
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return _program(Path(candidate), path)
    if chosen:
        raise HostUnable(f"{chosen} is not a program", hint="correct the setting `claude`")
    raise HostUnable("claude is not installed", hint=_INSTALL)


def _candidates(chosen: Path | None, home: Path, path: Sequence[str]) -> Iterator[str]:
    if chosen:
        yield str(chosen)
        return
    yield from (f"{folder}/claude" for folder in path if folder.startswith("/"))
    for place in _HOME:
        # Of several versions the newest: numbers compare as numbers.
        yield from sorted(glob.glob(f"{home}/{place}"), key=_version, reverse=True)
    yield from _SYSTEM


def _version(path: str) -> list[tuple[int, str]]:
    words = path.replace("-", ".").replace("/", ".").replace("v", ".").split(".")
    return [(int(word), "") if word.isascii() and word.isdigit() else (-1, word) for word in words]


def _program(found: Path, path: Sequence[str]) -> Program:
    program = found.resolve()
    argv: tuple[str, ...] = (str(program),)
    shown = [_package(program)]
    if _first_line(program).rstrip().endswith(b"node"):
        interpreter = _node(found, program, path)
        shown.append(interpreter)
        argv = (str(interpreter), str(program))
    return Program(argv, tuple(path for path in shown if not path.is_relative_to("/usr")))


def _node(found: Path, program: Path, path: Sequence[str]) -> Path:
    """The Node that it was installed with, else the system's."""
    beside = (found.parent, *(parent / "bin" for parent in program.parents))
    for folder in (*beside, *path, "/usr/local/bin", "/usr/bin"):
        node = Path(folder) / "node"
        if node.is_file() and os.access(node, os.X_OK):
            return node.resolve()
    raise HostUnable(f"{program} needs node, which is not found", hint="install Node.js")


def _package(program: Path) -> Path:
    """The folder of an npm package that holds ``program``, with those beside it; else itself."""
    folders = [folder for folder in program.parents if folder.name == "node_modules"]
    return folders[-1] if folders else program


def _first_line(program: Path) -> bytes:
    with program.open("rb") as file:
        start = file.read(128)
    return start.splitlines()[0] if start.startswith(b"#!") else b""
