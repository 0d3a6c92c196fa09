"""Where Codex is on this host. npm's launcher is a script that starts a native program beside it.

The native one is started straight: that needs no Node, and a signal meets nobody in between. Of the
host its own folder is shown, which has what it calls (ripgrep, say).
"""

import platform
from collections.abc import Sequence
from pathlib import Path

from csb_mcp.agents.search import Wanted, located, managed, newest, outside, started
from csb_mcp.ports.agent import Program

_INSTALL = "install Codex (npm install -g @openai/codex), or set `codex`"
# Below a home: its own installer's, and what npm and version managers have.
_HOME = (".local/bin/codex", ".codex/packages/standalone/current/codex", *managed("codex"))
_SYSTEM = ("/usr/local/bin/codex", "/usr/bin/codex", "/opt/codex/bin/codex")
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_MARK = "codex-package.json"  # in the folder above that of the native program


def find(chosen: Path | None, home: Path, path: Sequence[str] = ()) -> Program:
    """The program to start and what to show of the host. ``path``: folders to look in first.

    Raises HostUnable.
    """
    found = located(Wanted("codex", _HOME, _SYSTEM, _INSTALL), chosen, home, path)
    native = _native(found.resolve())
    if native is None:
        return started(found, path)
    folder = native.parent.parent
    shown = folder if (folder / _MARK).is_file() else native
    return Program((str(native),), outside([shown]))


def _native(program: Path) -> Path | None:
    """That which ``program`` starts, or is."""
    if (program.parent.parent / _MARK).is_file():
        return program
    if program.name != "codex.js":
        return None
    package = program.parent.parent
    machine = _MACHINES.get(platform.machine(), platform.machine())
    own = f"codex-linux-{machine}"  # one for each machine: beside it, or below it
    for base in (package / "node_modules/@openai" / own, package.parent / own, package):
        for place in newest(f"{base}/vendor/*-linux-*/bin/codex"):
            return Path(place).resolve()
    return None
