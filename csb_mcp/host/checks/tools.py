"""Programs and fonts. What a piece cannot do without, or a network, is reported by that piece."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.host.checks.outcome import Check, Outcome, enough, ok
from csb_mcp.host.distribution import here
from csb_mcp.host.launchers import find_tool

_SECONDS = 5
_FONTS = tuple(Path(root) for root in ("/usr/share/fonts", "/usr/local/share/fonts"))
_FONT_FILES = ("*.ttf", "*.otf", "*.ttc", "*.pfb")
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def checks(settings: Settings) -> Iterator[Check]:
    """One for each tool that is there, or that would be of use."""
    for name, configured, version in (
        ("bwrap", settings.bwrap, "--version"),
        ("tmux", settings.tmux, "-V"),
        ("Xvfb", settings.xvfb, ""),
        ("git", None, "--version"),
        ("setpriv", None, "--version"),
        ("python3", None, "--version"),
        ("pasta", settings.pasta, "--version"),
        ("nft", settings.nft, "--version"),
    ):
        path = find_tool(name, configured)
        if path is not None:
            yield ok(name, _told(path, version))
    yield from _wanted(settings)


def _wanted(settings: Settings) -> Iterator[Check]:
    host = here()
    if find_tool("git") is None:
        why = "agents that work in repositories miss it"
        yield Check("git", Outcome.WEAK, why, host.install("git"))
    keymaps = find_tool("xkbcomp")
    why = str(keymaps) if keymaps else "each display takes a third longer to start without it"
    yield enough("xkbcomp", why, host.install("xkbcomp"), well=keymaps is not None)
    found = (find_tool(name, settings.chromium) for name in _CHROMIUM)
    browser = next((path for path in found if path), None)
    why = str(browser) if browser else "no browser inside sandboxes"
    yield enough("chromium", why, host.install("chromium"), well=browser is not None)
    fonts = _has_fonts()
    why = "found" if fonts else "without any, pages and windows show boxes instead of letters"
    yield enough("fonts", why, host.install("fonts"), well=fonts)


def _told(path: Path, version: str) -> str:
    """Its path, and what it says of its version."""
    if not version:
        return str(path)
    try:
        done = subprocess.run(
            [path, version],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return str(path)
    lines = done.stdout.decode(errors="replace").splitlines()
    return f"{path}, {lines[0]}" if lines else str(path)


def _has_fonts() -> bool:
    return any(
        next(folder.rglob(pattern), None) is not None
        for folder in _FONTS
        if folder.is_dir()
        for pattern in _FONT_FILES
    )
