"""What repairs a host, in the words of its distribution (os-release(5))."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_DEBIAN, _FEDORA, _ARCH, _NIXOS = _FAMILIES = ("debian", "fedora", "arch", "nixos")
_ALIASES = {"ubuntu": _DEBIAN, "rhel": _FEDORA, "centos": _FEDORA}
_INSTALL = {_DEBIAN: "apt install", _FEDORA: "dnf install", _ARCH: "pacman -S"}
_SAME = ("bubblewrap", "coreutils", "tmux", "bash", "git", "chromium", "passt", "nftables")
_PACKAGES: Mapping[str, tuple[str, str, str, str]] = {
    **{name: (name, name, name, name) for name in _SAME},
    "setpriv": ("util-linux", "util-linux", "util-linux", "util-linux"),
    "script": ("bsdutils", "util-linux-script", "util-linux", "util-linux"),
    "Xvfb": ("xvfb", "xorg-x11-server-Xvfb", "xorg-server-xvfb", "xorg.xorgserver"),
    "xkbcomp": ("x11-xkb-utils", "xkbcomp", "xorg-xkbcomp", "xorg.xkbcomp"),
    "fonts": ("fonts-dejavu-core", "dejavu-sans-fonts", "ttf-dejavu", "dejavu_fonts"),
    "systemd-nspawn": ("systemd-container", "systemd-container", "systemd", "systemd"),
    "qemu": ("qemu-system-x86", "qemu-system-x86-core", "qemu-base", "qemu"),
    "lwm": ("lwm", "", "", "lwm"),
    "gh": ("gh", "gh", "github-cli", "gh"),
    "xdg-dbus-proxy": ("xdg-dbus-proxy", "xdg-dbus-proxy", "xdg-dbus-proxy", "xdg-dbus-proxy"),
    "python3": ("python3", "python3", "python", "python3"),
    "apparmor": ("apparmor-profiles", "", "", ""),
}
_BROUGHT_BY = {
    "bwrap": "bubblewrap",
    **dict.fromkeys(("env", "stat", "mkdir", "dd"), "coreutils"),
    "setsid": "setpriv",
    "pasta": "passt",
    "nft": "nftables",
    "qemu-system-x86_64": "qemu",
}
_SYSCTL_FILE = "/etc/sysctl.d/60-csb-mcp.conf"
_PROFILE = "bwrap-userns-restrict"


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution. ``family`` is empty for one whose ways are not known here."""

    name: str
    family: str
    root: bool = False

    def install(self, program: str) -> str:
        """The line that brings ``program``."""
        names = _PACKAGES.get(_BROUGHT_BY.get(program, program))
        package = names[_FAMILIES.index(self.family)] if names and self.family else ""
        if not package:
            return f"install the package that has {program}"
        if self.family == _NIXOS:
            return f"environment.systemPackages = [ pkgs.{package} ];"
        return self._as_root(f"{_INSTALL[self.family]} {package}")

    def sysctl(self, key: str, value: int) -> str:
        """The line that sets a kernel's setting for good."""
        if self.family == _NIXOS:
            return f'boot.kernel.sysctl."{key}" = {value};'
        write = self._as_root(f"tee -a {_SYSCTL_FILE}")
        return f"echo '{key} = {value}' | {write}; {self._as_root('sysctl --system')}"

    def allow_bwrap(self) -> str:
        """The lines that make AppArmor let bwrap make user namespaces, and no other program."""
        if self.family != _DEBIAN:
            return f"load AppArmor's profile {_PROFILE}"
        source, target = f"/usr/share/apparmor/extra-profiles/{_PROFILE}", "/etc/apparmor.d/"
        steps = (f"ln -s {source} {target}", f"apparmor_parser -r {target}{_PROFILE}")
        return "; ".join([self.install("apparmor"), *map(self._as_root, steps)])

    def _as_root(self, line: str) -> str:
        return line if self.root else f"sudo {line}"


@cache
def here() -> Distribution:
    """That of this host."""
    for path in _OS_RELEASE:
        try:
            return parse(path.read_text(errors="replace"), root=os.geteuid() == 0)
        except OSError:
            continue
    return Distribution("Linux", "", os.geteuid() == 0)


def parse(text: str, *, root: bool) -> Distribution:
    """From the text of os-release."""
    lines = (line.partition("=") for line in text.splitlines())
    values = {key: value.strip().strip("\"'") for key, _, value in lines}
    for word in [values.get("ID", ""), *values.get("ID_LIKE", "").split()]:
        family = _ALIASES.get(word, word)
        if family in _FAMILIES:
            return Distribution(values.get("PRETTY_NAME", word), family, root)
    return Distribution(values.get("PRETTY_NAME", "Linux"), "", root)
