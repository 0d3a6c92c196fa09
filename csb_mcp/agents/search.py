"""Where an agent's program is on this host: native, or a script for Node, in many a place.

PATH is asked only where a person typed the command: a daemon's may come from anywhere.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csb_mcp.errors import HostUnable
from csb_mcp.ports.agent import Program


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for. ``name``: the program's, and that of the setting that may name it.

    ``places``: where it may be below a home, as patterns; ``system``: elsewhere.
    """

    name: str
    places: tuple[str, ...]
    system: tuple[str, ...]
    install: str


# Below a home, where npm with a prefix and version managers put a program.
_MANAGED = (
    ".npm-global/bin/",
    ".npm-packages/bin/",
    ".nvm/versions/node/*/bin/",
    ".local/share/fnm/node-versions/*/installation/bin/",
    ".volta/bin/",
    ".bun/bin/",
    "node_modules/.bin/",
)


def managed(name: str) -> tuple[str, ...]:
    """Places of a program that npm or the like installed."""
    return tuple(folder + name for folder in _MANAGED)


def located(wanted: Wanted, chosen: Path | None, home: Path, path: Sequence[str] = ()) -> Path:
    """The program, links not followed. ``path``: folders to look in first. Raises HostUnable."""
    for candidate in _candidates(wanted, chosen, home, path):
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return Path(candidate)
    if chosen:
        hint = f"correct the setting `{wanted.name}`"
        raise HostUnable(f"{chosen} is not a program", hint=hint)
    raise HostUnable(f"{wanted.name} is not installed", hint=wanted.install)


def _candidates(
    wanted: Wanted, chosen: Path | None, home: Path, path: Sequence[str]
) -> Iterator[str]:
    if chosen:
        yield str(chosen)
        return
    yield from (f"{folder}/{wanted.name}" for folder in path if folder.startswith("/"))
    for place in wanted.places:
        yield from newest(f"{home}/{place}")
    yield from wanted.system


def newest(pattern: str) -> list[str]:
    """What fits, of several versions the newest first: numbers compare as numbers."""
    return sorted(glob.glob(pattern), key=_version, reverse=True)


def _version(path: str) -> list[tuple[int, str]]:
    words = path.replace("-", ".").replace("/", ".").replace("v", ".").split(".")
    return [(int(word), "") if word.isascii() and word.isdigit() else (-1, word) for word in words]


def started(found: Path, path: Sequence[str] = ()) -> Program:
    """How ``found`` is started, a script by its Node, and what is shown for it."""
    program = found.resolve()
    argv: tuple[str, ...] = (str(program),)
    shown = [_package(program)]
    if _first_line(program).rstrip().endswith(b"node"):
        interpreter = _node(found, program, path)
        shown.append(interpreter)
        argv = (str(interpreter), str(program))
    return Program(argv, outside(shown))


def outside(shown: Sequence[Path]) -> tuple[Path, ...]:
    """Those that a sandbox does not see anyway."""
    return tuple(path for path in shown if not path.is_relative_to("/usr"))


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
