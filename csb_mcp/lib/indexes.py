"""Which package indexes this host's pip, npm and apt take packages from.

As their configuration has it, else as the installed program itself does: an index may be a mirror,
and no list of ours would know. What cannot be read names no host.
"""

import configparser
import importlib.util
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from csb_mcp.lib.hosts import normal_host

_PIP_FILES = ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_NPM_FILES = ("/etc/npmrc", "/usr/local/etc/npmrc", "~/.npmrc")
_NPM_HOMES = ("/usr/lib/node_modules/npm", "/usr/local/lib/node_modules/npm", "/usr/share/nodejs")
_NPM_OWN = "@npmcli/config/lib/definitions/definitions.js"
_URL = re.compile(r"https?://[^\s'\"`,)\]]+")
_PIP_OWN = re.compile(r'^PyPI = PackageIndex\(\s*"([^"]+)",\s*(?:\w+=)?"([^"]+)"', re.MULTILINE)
_NPM_SET = re.compile(r"^\s*(?:@[^\s:=]+:)?registry\s*=\s*(\S+)", re.MULTILINE)
_NPM_DEFAULT = re.compile(r"new Definition\('registry',\s*\{\s*default:\s*['\"`]([^'\"`]+)")


def pip_hosts() -> tuple[str, ...]:
    """Hosts of pip's indexes, and those that its own index keeps files on."""
    found = list(_pip_configured())
    if not any(key == "index-url" for key, _ in found):
        found = [("", url) for url in _pip_own()] + found
    return _hosts(url for _, url in found)


def npm_hosts() -> tuple[str, ...]:
    """Hosts of npm's registries."""
    own = [
        url
        for home in _NPM_HOMES
        for url in _NPM_DEFAULT.findall(_text(f"{home}/node_modules/{_NPM_OWN}"))
    ]
    configured = [url for name in _NPM_FILES for url in _NPM_SET.findall(_text(name))]
    return _hosts(configured or own)


def apt_hosts() -> tuple[str, ...]:
    """Hosts of apt's sources."""
    folder = Path("/etc/apt/sources.list.d")
    files = [Path("/etc/apt/sources.list"), *folder.glob("*.list"), *folder.glob("*.sources")]
    lines = [line for path in sorted(files) for line in _text(path).splitlines()]
    return _hosts(url for line in lines for url in _URL.findall(line.partition("#")[0]))


def _pip_configured() -> Iterator[tuple[str, str]]:
    for name in _PIP_FILES:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(_text(name))
        except configparser.Error:
            continue
        for section in ("global", "install", "download"):
            for key in ("index-url", "extra-index-url"):
                for url in parser.get(section, key, fallback="").split():
                    yield key, url


def _pip_own() -> Iterator[str]:
    spec = importlib.util.find_spec("pip")
    home = Path(spec.origin).parent if spec and spec.origin else Path("/nowhere")
    if match := _PIP_OWN.search(_text(home / "_internal/models/index.py")):
        yield match[1]
        yield f"https://{match[2]}/"


def _hosts(urls: Iterable[str]) -> tuple[str, ...]:
    """Each once, in order; with its port if that is not the web's."""
    found: dict[str, None] = {}
    for url in urls:
        try:
            parts = urlsplit(url)
            name, port = normal_host(parts.hostname), parts.port
        except ValueError:
            continue  # an address, a file: nothing that the proxy lets be named
        found[f"{name}:{port}" if port not in (None, 80, 443) else name] = None
    return tuple(found)


def _text(path: str | Path) -> str:
    try:
        return Path(path).expanduser().read_text(errors="replace")
    except (OSError, RuntimeError):
        return ""
