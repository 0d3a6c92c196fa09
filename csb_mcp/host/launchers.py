"""The launcher scripts: composed from shipped text, installed where a sandbox's uid can read them.

A launcher is a preamble of variables for this host, ``common.sh`` and its own body, joined byte for
byte. They go to a folder named by a digest of all that went in, made whole by one rename: running
sandboxes keep the version they were started with, and a second install changes nothing.
"""

import contextlib
import hashlib
import os
import platform
import py_compile
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import csb_mcp
from csb_mcp.config import Settings
from csb_mcp.errors import HostUnable
from csb_mcp.host.distribution import here
from csb_mcp.model import Problem

CONTRACT = "2"
"""Version of the launchers' command line; a launcher prints its own on ``--contract``."""

TRUSTED = (Path("/usr/bin"), Path("/usr/local/bin"), Path("/bin"))
"""Where programs are looked for; PATH never is."""

_ADMIN = Path("/usr/sbin")  # nft's place on some distributions
_SCRIPTS = {  # each launcher: the texts that it is joined from
    "bubblewrap": ("common", "arguments", "network", "certificates", "forward", "bubblewrap"),
    "display": ("common", "display"),
    "egress": ("common", "egress"),
}
_CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
_WRAPPERS = tuple(f"share/bin/{name}" for name in _CHROMIUM_NAMES)
_HELPER = "share/helper.sh"
_SHARED = ("bus.py", "chromium-policy.json", "door.py", "probes.py", "scope.py", "probe_calls.py")
_EGRESS = "proxy"  # folder of the proxy's program: the parts of this package that it is made of
_EGRESS_PARTS = ("__init__.py", "lib/__init__.py", "lib/hosts.py", "host/__init__.py")
_EGRESS_PACKAGE = "host/network"
# As a file, not by its folder: for that Python imports runpy, which takes as long as all the rest.
_EGRESS_MAIN = b"""import sys

sys.path.insert(0, __file__.rpartition("/")[0])
from csb_mcp.host.network.proxy.main import main

sys.exit(main())
"""
_XKBCOMP = "xkb/xkbcomp"
_PROGRAMS = (*_SCRIPTS, *_WRAPPERS, _HELPER, _XKBCOMP)
_FILTER = "filter.bpf"
_NEEDED = ("bwrap", "bash", "env", "stat", "mkdir", "setpriv", "script", "setsid")


def find_tool(name: str, configured: Path | None = None) -> Path | None:
    """Absolute path of a program: ``configured``, else in one of the TRUSTED folders.

    None if it is not there, or if somebody else than root and us could replace it.
    """
    places = (*TRUSTED, _ADMIN) if name == "nft" else TRUSTED
    for path in [configured] if configured else [folder / name for folder in places]:
        if _trusted(path):
            return path
    return None


def _trusted(path: Path) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    replaceable = found.st_uid not in (0, os.geteuid()) or found.st_mode & stat.S_IWOTH
    return stat.S_ISREG(found.st_mode) and os.access(path, os.X_OK) and not replaceable


def sources() -> Path:
    """Folder of the shipped texts: package data in a wheel, ``nix/backends`` in a checkout."""
    package = Path(csb_mcp.__file__).parent
    shipped = package / "_backends"
    return shipped if shipped.is_dir() else package.parent / "nix" / "backends"


class Launchers:
    """The installed launchers. ``folder`` is ours; its parents need not be open to sandboxes.

    Raises HostUnable if the shipped texts are not where they belong.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._tools = _find_tools(settings)
        try:
            self._texts = _read_texts()
        except OSError as error:
            why = f"{error.filename} cannot be read: {error.strerror}"
            raise HostUnable(why, hint="install csb-mcp again") from error
        parts = [repr(self._tools), *(f"{name}{text!r}" for name, text in self._texts.items())]
        self._home = folder / hashlib.sha256("".join(parts).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """What a sandbox's tree must be able to read, besides the host's own programs."""
        return self._folder

    def path(self, name: str) -> Path:
        """The installed launcher ``name`` (``bubblewrap``, ``display``, ``egress``)."""
        return self._home / name

    def tool(self, name: str) -> Path | None:
        """The program ``name`` as launchers call it; None if this host has none."""
        return self._tools[name]

    def problems(self) -> Sequence[Problem]:
        """Programs and files that launchers need and this host lacks."""
        places = ", ".join(map(str, TRUSTED))
        found = [
            Problem(name, f"{name} is not in {places}", here().install(name))
            for name in _NEEDED
            if not self._tools[name]
        ]
        if _FILTER not in self._texts:
            why = f"no system call filter is shipped for {platform.machine()}"
            found.append(Problem("seccomp", why, "use an x86_64 or aarch64 machine"))
        return found

    def install(self) -> None:
        """Write all files, unless this very set is there. Atomic: a reader sees all or nothing.

        Raises HostUnable if the folder cannot be written.
        """
        if self._home.is_dir():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o755)
            self._write()
        except OSError as error:
            why = f"{self._folder} cannot be written: {error.strerror}"
            raise HostUnable(why, hint="set runtime_dir to a folder of yours on tmpfs") from error

    def _write(self) -> None:
        draft = Path(tempfile.mkdtemp(prefix=".new", dir=self._folder))
        try:
            preamble = self._preamble()
            for name, text in self._texts.items():
                runs = name in _PROGRAMS
                path = draft / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(preamble + text if runs else text)
                path.chmod(0o555 if runs else 0o444)
            _compile_keymap(self._tools["xkbcomp"], draft / "xkb")
            _compile_python(self._tools["python"], draft / _EGRESS)
            for folder in (draft, *(path for path in draft.rglob("*") if path.is_dir())):
                folder.chmod(0o755)
            draft.rename(self._home)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not self._home.is_dir():  # else another process was faster, with the same files
                raise

    def _preamble(self) -> bytes:
        values = {
            "CONTRACT": CONTRACT,
            "LAYOUT": "fhs",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "SHARE": self._home / "share",
            "BPF": self._home / _FILTER,
            "XKB": self._home / "xkb",
            "EGRESS": self._home / _EGRESS,
        } | {name.upper(): path or "" for name, path in self._tools.items()}
        lines = [f"CSB_{name}={shlex.quote(str(value))}" for name, value in values.items()]
        # -p: no functions and no BASH_ENV from a caller's environment.
        start = [f"#!{self._tools['bash']} -p", "set -euo pipefail", *lines, ""]
        return "\n".join(start).encode()


def _compile_keymap(xkbcomp: Path | None, folder: Path) -> None:
    """Compile the keymap that every X server asks for when it starts. Without it, each does so."""
    if xkbcomp is None:
        return
    compiled = folder / "keymap.xkm"
    command = [xkbcomp, "-w", "0", "-R/usr/share/X11/xkb", "-xkm", folder / "keymap.xkb", compiled]
    try:
        subprocess.run(command, env={}, capture_output=True, timeout=10, check=True)
        compiled.chmod(0o444)
    except (OSError, subprocess.SubprocessError):
        compiled.unlink(missing_ok=True)


def _compile_python(python: Path | None, folder: Path) -> None:
    """Compile the proxy for the interpreter that will run it: it starts in half the time so.

    Nothing depends on it. A pyc's source is never looked at again: nobody may change these files.
    """
    if python is None:
        return
    ours = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if python.resolve().name == ours:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        for path in folder.rglob("*.py"):
            py_compile.compile(str(path), dfile=path.name, invalidation_mode=mode)
    else:
        command = [python, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = [*command, "unchecked-hash", folder]
            subprocess.run(words, env={}, capture_output=True, timeout=20, check=False)
    for path in folder.rglob("*.pyc"):
        path.chmod(0o444)  # whatever our umask is: other uids run it


def _find_tools(settings: Settings) -> dict[str, Path | None]:
    tools = {name: find_tool(name) for name in _NEEDED}
    tools["bwrap"] = find_tool("bwrap", settings.bwrap)
    tools["xvfb"] = find_tool("Xvfb", settings.xvfb)
    tools["xkbcomp"] = find_tool("xkbcomp")
    tools["lwm"] = find_tool("lwm")
    tools |= {name: find_tool(name) for name in ("git", "gh", "xauth")}  # for what is forwarded
    tools["dbus_proxy"] = find_tool("xdg-dbus-proxy")
    tools["python"] = find_tool("python3")
    tools["pasta"] = find_tool("pasta", settings.pasta)
    tools["nft"] = find_tool("nft", settings.nft)
    browsers = (find_tool(name, settings.chromium) for name in _CHROMIUM_NAMES)
    tools["chromium"] = next(filter(None, browsers), None)
    return tools


def _read_texts() -> dict[str, bytes]:
    """Relative path of each installed file to its text, without the preamble."""
    here = sources()
    texts = {
        name: b"".join((here / f"{part}.sh").read_bytes() for part in parts)
        for name, parts in _SCRIPTS.items()
    }
    texts[_HELPER] = (here / "helper.sh").read_bytes()
    texts |= {f"share/{name}": (here / name).read_bytes() for name in _SHARED}
    texts |= _read_egress()
    texts[_XKBCOMP] = (here / "xkbcomp.sh").read_bytes()
    texts["xkb/keymap.xkb"] = (here / "keymap.xkb").read_bytes()
    texts |= dict.fromkeys(_WRAPPERS, (here / "chromium.sh").read_bytes())
    bpf = here / "seccomp" / f"{platform.machine()}.bpf"
    return texts | ({_FILTER: bpf.read_bytes()} if bpf.is_file() else {})


def _read_egress() -> dict[str, bytes]:
    """The proxy's program: its own package and the little that it uses, at the same paths."""
    package = Path(csb_mcp.__file__).parent
    parts = [package / part for part in _EGRESS_PARTS]
    proxy = package / _EGRESS_PACKAGE
    parts += [proxy / "__init__.py", *sorted((proxy / "proxy").glob("*.py"))]
    found = {f"{path.relative_to(package.parent)}": path.read_bytes() for path in parts}
    return {f"{_EGRESS}/{name}": text for name, text in found.items()} | {
        f"{_EGRESS}/__main__.py": _EGRESS_MAIN
    }
