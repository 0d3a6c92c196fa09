"""What an attacker would go for in a project: files that make the host run code.

This is the attacker's own list. The launcher has another, of what it guards: one that is left out
there is found by the attack (a test holds the two together).
"""

import os
import re
from collections.abc import Iterator

from csb_mcp.lib.safe_open import read_regular
from csb_mcp.model import Sandbox

TARGETS = (
    *(".git/hooks", ".git/config", ".git/config.worktree", ".git/commondir"),
    *(".git/info/attributes", ".git/modules", ".git/worktrees"),
    *(".claude/settings.json", ".claude/settings.local.json", ".claude/hooks", ".claude/commands"),
    *(".claude/agents", ".claude/skills", ".claude/plugins", ".mcp.json", ".cursor/mcp.json"),
    *(".cursor/hooks.json", ".codex/config.toml", ".codex/hooks.json", ".codex/rules"),
    *(".codex/skills", ".gemini/settings.json", ".envrc", ".vscode", ".idea", ".zed", ".fleet"),
    *(".husky", ".githooks", ".devcontainer", ".devcontainer.json"),
    *(".exrc", ".vimrc", ".nvimrc", ".nvim.lua", ".dir-locals.el", ".cargo/config"),
    ".cargo/config.toml",
)
_CONFIG_BYTES = 1 << 16
_NAMES = re.compile(
    r"^\s*(hookspath|fsmonitor|attributesfile|path)\s*=\s*\"?(.*?)\"?\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def protected(sandbox: Sandbox) -> list[str]:
    """Absolute paths that exist and were there, as far as is known, when the sandbox started."""
    top = sandbox.spec.project_dir
    names = [*TARGETS]
    if os.path.isfile(top / "HEAD") and os.path.isdir(top / "objects"):
        names += ["hooks", "config", "commondir"]
    if os.path.isfile(top / ".git"):
        names.append(".git")
    if ".git/config" not in sandbox.unguarded:
        names += _named(str(top))
    fresh = {*sandbox.unguarded}
    return [
        f"{top}/{name}" for name in dict.fromkeys(names) if name not in fresh and _there(top / name)
    ]


def _there(path: os.PathLike[str]) -> bool:
    return os.path.lexists(path) and not os.path.islink(path)


def _named(top: str) -> Iterator[str]:
    """Paths in the project that git's configuration names as something to run or to read."""
    try:
        text = read_regular(top, ".git/config", _CONFIG_BYTES).decode(errors="replace")
    except OSError:
        return
    for key, value in _NAMES.findall(text):
        base = f"{top}/.git" if key.lower() == "path" else top
        path = os.path.normpath(os.path.join(base, value))
        if path.startswith(f"{top}/"):
            yield path[len(top) + 1 :]


def links(sandbox: Sandbox) -> list[str]:
    """Links on the way to a target: a sandbox with one is not even started."""
    top = sandbox.spec.project_dir
    names = [name for name in TARGETS if name not in sandbox.unguarded]
    ways = (part for name in names for part in _ways(name))
    return [f"{top}/{way}" for way in dict.fromkeys(ways) if os.path.islink(top / way)]


def _ways(name: str) -> Iterator[str]:
    parts = name.split("/")
    for i in range(len(parts)):
        yield "/".join(parts[: i + 1])


def folders_above(sandbox: Sandbox) -> list[str]:
    """The folders in the project that those lie in: moved away, they would take them along."""
    top = str(sandbox.spec.project_dir)
    found: dict[str, None] = {top: None}
    for path in protected(sandbox):
        above = os.path.dirname(path)
        while above.startswith(f"{top}/"):
            found[above] = None
            above = os.path.dirname(above)
    return [*found]
