"""Who may import whom. The house stands on these rules, so a machine keeps them."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "csb_mcp"
LEAVES = ("csb_mcp.errors", "csb_mcp.model", "csb_mcp.ports", "csb_mcp.config", "csb_mcp.lib")
LIGHT = ("csb_mcp.places", "csb_mcp.bridge", "csb_mcp.autostart")


@dataclass(frozen=True, slots=True)
class Room:
    """Modules below ``name`` may import ``ours`` of this package and ``others`` from outside.

    The standard library and the room itself go without saying (but see ``sibling_rule``).
    """

    name: str
    ours: tuple[str, ...] = LEAVES
    others: tuple[str, ...] = ()


ROOMS = (
    Room(PACKAGE, ()),
    *(Room(leaf) for leaf in LEAVES),
    Room("csb_mcp.decode"),
    Room("csb_mcp.service", others=("regex",)),  # re with a time limit: patterns come from outside
    Room("csb_mcp.host", (*LEAVES, "csb_mcp.agents"), ("PIL", "cryptography", "isal", "psutil")),
    Room("csb_mcp.agents"),
    Room("csb_mcp.transports", (*LEAVES, "csb_mcp.decode")),
    Room(
        "csb_mcp.transports.mcp",
        (*LEAVES, "csb_mcp.decode"),
        ("anyio", "mcp", "mcp_types", "pydantic", "typing_extensions"),  # all of them the SDK's
    ),
    # A client of REST, so no face's rules apply; it starts a daemon as the bridge does.
    Room("csb_mcp.transports.cli", (*LEAVES, *LIGHT)),
    Room(
        "csb_mcp.transports.http",
        (*LEAVES, "csb_mcp.decode"),
        ("starlette", "typing_extensions", "uvicorn"),
    ),
    # The composition root knows every class. Around it stands the command: what a bridge needs in
    # its few milliseconds (LIGHT) stays clear of all that is heavy.
    Room("csb_mcp.app", (*LEAVES, "csb_mcp.service", "csb_mcp.host", "csb_mcp.agents")),
    *(Room(light, (*LEAVES, *LIGHT)) for light in LIGHT),
    Room("csb_mcp.daemon", (*LEAVES, *LIGHT, "csb_mcp.app", "csb_mcp.transports")),
    Room("csb_mcp.doctor", (*LEAVES, *LIGHT, "csb_mcp.app", "csb_mcp.host")),
    Room("csb_mcp.launch", (*LEAVES, "csb_mcp.host", "csb_mcp.agents")),
    Room("csb_mcp.__main__", (PACKAGE,)),
)
BY_NAME = ("import_module", "__import__")


@dataclass(frozen=True, slots=True)
class Import:
    """One import, wherever it stands in its file."""

    module: str
    file: Path
    line: int
    target: str

    def refused(self, rule: str) -> str:
        return f"{self.file}:{self.line}: {self.module} imports {self.target}: {rule}"


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def module_name(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path, root: Path) -> Iterator[Import]:
    module = module_name(file, root)
    for node in ast.walk(ast.parse(file.read_bytes(), filename=str(file))):
        for target in targets(node, module, is_package=file.name == "__init__.py"):
            yield Import(module, file, getattr(node, "lineno", 0), target)


def targets(node: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """What ``node`` imports; ``from a import b`` is a.b, which fits a prefix if a does."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            up = node.level - is_package
            stem = module.split(".")[: -up or None]
            base = ".".join([*stem, base] if base else stem)
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in BY_NAME:
            yield name


def room_of(module: str) -> Room | None:
    """The innermost that holds ``module``; the package's own is for its ``__init__`` alone."""
    fitting = [
        r for r in ROOMS if below(module, r.name) and (r.name != PACKAGE or module == r.name)
    ]
    return max(fitting, key=lambda room: len(room.name), default=None)


def broken_rule(found: Import, room: Room, root: Path) -> str | None:
    """The rule that ``found`` breaks, in words; None if it may stand."""
    if found.target in BY_NAME:
        return "an import by name cannot be checked"
    if not below(found.target, PACKAGE):
        return outside_rule(found.target.partition(".")[0], room)
    return inside_rule(found, room, root)


def outside_rule(top: str, room: Room) -> str | None:
    if top in sys.stdlib_module_names or top in room.others:
        return None
    allowed = " and ".join(("the standard library", *room.others))
    return f"{room.name} takes only {allowed} from outside"


def inside_rule(found: Import, room: Room, root: Path) -> str | None:
    if found.target in (PACKAGE, f"{PACKAGE}.__version__"):
        return None
    if below(found.target, "csb_mcp.host") and below(found.module, "csb_mcp.host"):
        return sibling_rule(found, root)
    if below(found.target, room.name) or any(below(found.target, ours) for ours in room.ours):
        return None
    return f"{room.name} imports only itself and {', '.join(room.ours)}"


def sibling_rule(found: Import, root: Path) -> str | None:
    """In ``host``, modules that lie directly in it are for all; a folder is for itself."""
    parts = found.target.split(".")
    if len(parts) < 3 or not (root / PACKAGE / "host" / parts[2]).is_dir():
        return None
    folder = ".".join(parts[:3])
    if below(found.module, folder):
        return None
    return f"only {folder} itself and the composition root know what lies in it"


def violations(root: Path) -> list[str]:
    found: list[str] = []
    for file in sorted((root / PACKAGE).rglob("*.py")):
        room = room_of(module_name(file, root))
        if room is None:
            found.append(f"{file}: no rule names this room: add one to ROOMS")
            continue
        for one in imports_of(file, root):
            rule = broken_rule(one, room, root)
            if rule:
                found.append(one.refused(rule))
    for file in sorted((root / "clients").rglob("*.py")):
        found += [
            one.refused("clients prove the public interfaces, so they import none of ours")
            for one in imports_of(file, root)
            if below(one.target, PACKAGE)
        ]
    return found


def test_rooms_import_only_what_they_may() -> None:
    broken = violations(REPOSITORY)
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("csb_mcp/errors.py", "import psutil"),
        ("csb_mcp/model.py", "from csb_mcp.service import manager"),
        ("csb_mcp/lib/png.py", "from csb_mcp import host"),
        ("csb_mcp/service/manager.py", "from csb_mcp.host.store import Store"),
        ("csb_mcp/service/manager.py", "from ..host import store"),
        ("csb_mcp/service/manager.py", "import starlette"),
        ("csb_mcp/service/manager.py", "def late():\n    import csb_mcp.transports.mcp"),
        ("csb_mcp/host/store.py", "from csb_mcp.service.manager import Manager"),
        ("csb_mcp/host/store.py", "from csb_mcp.host.display import capture"),
        ("csb_mcp/host/terminal/tmux.py", "from csb_mcp.host.display import capture"),
        ("csb_mcp/host/terminal/tmux.py", "from csb_mcp.host import display"),
        ("csb_mcp/host/terminal/__init__.py", "from ..display import capture"),
        ("csb_mcp/host/terminal/tmux.py", "from mcp import types"),
        ("csb_mcp/agents/shell.py", "import csb_mcp.app"),
        ("csb_mcp/bridge.py", "def late():\n    from csb_mcp.app import build"),
        ("csb_mcp/transports/mcp/tools.py", "from csb_mcp.host import metrics"),
        ("csb_mcp/transports/mcp/tools.py", "from csb_mcp.transports.http import app"),
        ("csb_mcp/transports/mcp/tools.py", "import starlette.routing"),
        ("csb_mcp/transports/http/app.py", "import mcp.server"),
        ("csb_mcp/transports/cli/client.py", "from csb_mcp.host import store"),
        ("csb_mcp/transports/cli/client.py", "from csb_mcp.transports.http import server"),
        (
            "csb_mcp/transports/http/app.py",
            "from csb_mcp.transports.mcp.server import build_server",
        ),
        ("csb_mcp/transports/http/app.py", "from csb_mcp.host import metrics"),
        ("csb_mcp/service/manager.py", "import importlib; importlib.import_module('x')"),
        ("csb_mcp/service/manager.py", "if TYPE_CHECKING:\n    from csb_mcp.app import App"),
        ("csb_mcp/cupboard/thing.py", "import os"),
        ("clients/orchestration/go.py", "from csb_mcp.errors import CsbError"),
    ],
)
def test_a_planted_violation_is_refused(tmp_path: Path, file: str, line: str) -> None:
    for folder in ("csb_mcp/host/display", "csb_mcp/host/terminal"):
        (tmp_path / folder).mkdir(parents=True)
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(line + "\n")
    (refused,) = violations(tmp_path)
    assert refused.startswith(f"{planted}:")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("csb_mcp/lib/png.py", "import zlib"),
        ("csb_mcp/service/manager.py", "from csb_mcp.service.waits import wait"),
        ("csb_mcp/service/manager.py", "from . import waits"),
        ("csb_mcp/host/terminal/tmux.py", "from csb_mcp.host.terminal.parse import line"),
        ("csb_mcp/host/terminal/tmux.py", "from csb_mcp.host import launchers"),
        ("csb_mcp/transports/mcp/tools.py", "from mcp.server.mcpserver import MCPServer"),
        ("csb_mcp/transports/mcp/tools.py", "from csb_mcp import __version__"),
        ("csb_mcp/transports/http/app.py", "from starlette.applications import Starlette"),
        ("csb_mcp/app.py", "from csb_mcp.host.terminal.tmux import Tmux"),
    ],
)
def test_what_the_house_needs_is_allowed(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / "csb_mcp/host/terminal").mkdir(parents=True)
    allowed = tmp_path / file
    allowed.parent.mkdir(parents=True, exist_ok=True)
    allowed.write_text(line + "\n")
    assert violations(tmp_path) == []
