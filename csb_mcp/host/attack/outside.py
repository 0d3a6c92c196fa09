"""What the kernel tells of a sandbox from outside, where nobody inside can lie."""

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from csb_mcp.host.attack.table import looked, untested
from csb_mcp.lib.processes import children, descendants, peer_pid, stat_fields
from csb_mcp.model import Folders, Probe, Sandbox

_NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")
_MANAGER_SECONDS = 1.0  # display.sh starts it after 0.2 s
_MANAGER_MEMORY = 131072 * 1024
# What the launcher sets for process 1; what was lent for the payload alone is not among it.
_VARIABLES = re.compile(
    r"HOME|USER|LOGNAME|SHELL|PATH|LANG|TERM|PWD|OLDPWD|SHLVL|_|XDG_RUNTIME_DIR|BROWSER|CSB_[A-Z_]+"
    r"|DISPLAY|XAUTHORITY|LC_ALL|MESA_SHADER_CACHE_DISABLE"
    r"|(?i:https?_proxy|all_proxy|no_proxy)|NODE_USE_ENV_PROXY"
    r"|SSH_AUTH_SOCK|PULSE_SERVER|PIPEWIRE_RUNTIME_DIR|WAYLAND_DISPLAY|NIX_REMOTE"
    r"|DBUS_SESSION_BUS_ADDRESS"
)
_READ_ONLY = re.compile(
    r"/|/usr|/s?bin|/lib(32|64|x32)?|/nix/store|/etc/.+|/opt/csb|/proc/(sys|key-users|keys"
    r"|latency_stats|sched_debug|sysrq-trigger|irq|bus|fs|acpi|asound|scsi)|/dev"
    r"|/tmp/\.X11-unix(/X0)?|/run/csb(/.+)?|/nix/var/nix/daemon-socket|/sys/devices/.+"
)
_OWN = re.compile(
    r"/proc|/dev/(null|zero|full|random|urandom|tty|console|pts|shm|dri/.+)|/tmp|/run"
)
_FRESH = ("/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/tmp", "/run", "/run/csb")
_X_OWN = re.compile(r"/proc|/dev|/dev/(null|zero|full|random|urandom|tty|console|pts|shm)|/tmp")
_X_READ_ONLY = re.compile(
    r"/|/usr|/s?bin|/lib(32|64|x32)?|/nix/store|/etc/.+|/run/(xauthority|xkb|xkbcomp)"
    r"|/tmp/\.X11-unix|.*/xkbcomp|/run/csb/program|/run/(systemd/resolve|NetworkManager|[a-z]*resolv.*)"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of a mountinfo(5): a mounted tree is a ``device`` and a ``root`` on it."""

    point: str
    device: str
    root: str
    read_only: bool


def mounts(pid: int | str) -> list[Mount]:
    """All mounts that ``pid`` has. Raises OSError."""
    found: list[Mount] = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text(errors="surrogateescape").splitlines():
        _, _, device, root, point, options, *_ = line.split(" ")
        found.append(Mount(_plain(point), device, _plain(root), "ro" in options.split(",")))
    return found


def _plain(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def place_of(path: Path) -> tuple[str, str]:
    """Device and root of a folder on this host, as a bind mount of it would have them."""
    longest = Mount("", "", "", read_only=False)
    for mount in mounts("self"):
        inside = f"{path}/".startswith(f"{mount.point.rstrip('/')}/")
        if inside and len(mount.point) >= len(longest.point):
            longest = mount
    rest = str(path)[len(longest.point.rstrip("/")) :]
    return longest.device, (longest.root.rstrip("/") + rest) or "/"


def look(sandbox: Sandbox, folders: Folders, init: int, files: int) -> Iterator[Probe]:
    """All rows; ``init`` is process 1 inside, ``files`` how many it may have open at most."""
    parent = int((stat_fields(init) or ["", "0"])[1])
    every = [init, *descendants(init)]
    shared = ("net",) if sandbox.spec.network == "host" else ()
    most = {"Max core file size": 0, "Max open files": files, "Max processes": sandbox.spec.pids}
    looks: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "namespaces": ("the host's kernel objects", lambda: _shared(init, os.getpid(), shared)),
        "privileges": (
            "root's powers",
            lambda: [what for pid in every for what in _powers(pid)] + _root(parent),
        ),
        "environment": ("variables of the host", lambda: _environment(init, sandbox)),
        "arguments": ("what others on the host may read", lambda: _arguments(parent, sandbox)),
        "mounts": ("what of the host is to be seen", lambda: _mounts(init, sandbox, folders)),
        "process-one": ("the helper, which outlives kill -9 -1", lambda: _process_one(init)),
        "limits-outside": ("the host from one that takes all", lambda: _limits(init, most)),
    }
    for name, (protects, wrong) in looks.items():
        yield _row(name, protects, wrong)
    yield from _display(folders, init)
    if sandbox.spec.network == "allowlist":
        yield _proxy(folders, init)


def _row(name: str, protects: str, wrong: Callable[[], Sequence[str]]) -> Probe:
    try:
        return looked(name, protects, wrong(), "as seen by the kernel, from outside")
    except OSError as error:
        return untested(name, protects, f"it cannot be seen: {error.strerror}")


def _status(pid: int) -> Mapping[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _shared(pid: int, other: int, fine: Sequence[str] = ()) -> list[str]:
    """Names of the namespaces that two processes share."""
    return [
        f"the {name} namespace is shared"
        for name in _NAMESPACES
        if name not in fine
        and os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/{other}/ns/{name}")
    ]


def _powers(pid: int) -> list[str]:
    """What a process inside could do that none may."""
    status = _status(pid)
    wrong = [
        f"{name} {status[name]}"
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        if int(status.get(name, "0"), 16)
    ]
    for name, value in (("NoNewPrivs", "1"), ("Seccomp", "2")):
        if status and status.get(name) != value:
            wrong.append(f"{name} {status.get(name)}")
    return [f"process {pid}: {what}" for what in (*wrong, *_root(pid))]


def _root(pid: int) -> list[str]:
    status = _status(pid)
    names = [name for name in ("Uid", "Gid") if "0" in status.get(name, "").split()]
    return [f"process {pid} has {name} 0" for name in names]


def _variables(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    pairs = (pair.partition("=") for pair in text.split("\0") if pair)
    return {name: value for name, _, value in pairs}


def _environment(init: int, sandbox: Sandbox) -> list[str]:
    found = _variables(init)
    lent = {name for name, value in sandbox.spec.env.items() if found.get(name) == value}
    return [n for n in sorted(found) if n in lent or not _VARIABLES.fullmatch(n)]


def _arguments(parent: int, sandbox: Sandbox) -> list[str]:
    words = Path(f"/proc/{parent}/cmdline").read_bytes().decode(errors="replace").split("\0")
    options = [word for word in ("--setenv", "--bind", "--ro-bind") if word in words]
    values = [name for name, value in sandbox.spec.env.items() if value and value in words]
    return [f"bwrap's {what} is to be read" for what in (*options, *values)]


def _mounts(init: int, sandbox: Sandbox, folders: Folders) -> list[str]:
    found = mounts(init)
    project = str(sandbox.spec.project_dir)
    places = {
        project: place_of(sandbox.spec.project_dir),
        "/home/agent": place_of(folders.home),
    }
    if project not in [mount.point for mount in found]:
        return ["the project is not there"]
    host = {mount.device for mount in mounts("self")}
    wrong = [f"{m.point} is the host's" for m in found if m.point in _FRESH and m.device in host]
    return wrong + [word for mount in found for word in _odd(mount, project, places)]


def _odd(mount: Mount, project: str, places: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    here = mount.point
    below = next(
        (top for top in (project, "/home/agent") if f"{here}/".startswith(f"{top}/")), None
    )
    if below:
        device, root = places[below]
        if (mount.device, mount.root) != (device, (root.rstrip("/") + here[len(below) :]) or "/"):
            yield f"{here} is {mount.root} of device {mount.device}"
    elif _READ_ONLY.fullmatch(here):
        if not mount.read_only:
            yield f"{here} can be written"
        if here in ("/etc", "/run/csb") and mount.root != "/":
            yield f"{here} is {mount.root}"
        if here == "/" and mount.root != "/newroot":
            yield f"the root is {mount.root} of device {mount.device}"
    elif not _OWN.fullmatch(here):
        yield f"{here} is {mount.root} of device {mount.device}"


def _process_one(init: int) -> list[str]:
    words = Path(f"/proc/{init}/cmdline").read_bytes().split(b"\0")
    wrong = [] if words[1:3] == [b"-p", b"/opt/csb/helper.sh"] else [f"it is {words[0]!r}"]
    if _status(init).get("NSpid", "").split()[-1:] != ["1"]:
        wrong.append("the helper is not process 1")
    return wrong


def _limits(pid: int, most: Mapping[str, int]) -> list[str]:
    text = Path(f"/proc/{pid}/limits").read_text()
    wrong: list[str] = []
    for name, limit in most.items():
        match = re.search(rf"^{name} +\S+ +(\S+)", text, re.MULTILINE)
        hard = match[1] if match else "unknown"
        if not hard.isdigit() or int(hard) > limit:
            wrong.append(f"{name.lower()}: {hard}")
    return wrong


# -- the display: another sandbox, whose clients are hostile --


def _display(folders: Folders, init: int) -> Iterator[Probe]:
    server = ("display-server", "the host from the X server, should a client take it over")
    manager = ("window-manager", "the host and the X server from the window manager")
    try:
        pid = peer_pid(folders.x11 / "X0")
    except OSError:
        yield untested(*server, "there is no display")
        yield untested(*manager, "there is no display")
        return
    own = {"/run/framebuffer": folders.framebuffer, "/tmp/.X11-unix": folders.x11}
    yield _row(*server, lambda: [*_box(pid, [os.getpid(), init], own), *_server(pid)])
    parent = int((stat_fields(pid) or ["", "0"])[1])
    others = _managers(parent, pid)
    if not others:
        yield untested(*manager, "there is none")
        return
    most = {"Max processes": 2, "Max address space": _MANAGER_MEMORY}
    apart = [os.getpid(), init, pid]
    yield _row(*manager, lambda: [*_box(others[0], apart, {}), *_limits(others[0], most)])


def _managers(parent: int, server: int) -> list[int]:
    """Process 1 of the window manager's box, which is made a moment after the server's."""
    deadline = time.monotonic() + _MANAGER_SECONDS
    while True:
        boxes = [child for child in children(parent) if child != server]
        found = [process for box in boxes for process in children(box)]
        if any(map(_begun, found)) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def _begun(pid: int) -> bool:
    """It has become display.sh's line of sh: until then it is bwrap, at its work."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sh\0")
    except OSError:
        return False


def _proxy(folders: Folders, init: int) -> Probe:
    name = ("egress-proxy", "the host from the egress proxy, should a payload take it over")
    try:
        pid = peer_pid(folders.egress / "door.sock")
    except OSError as error:
        return untested(*name, f"it does not answer: {error.strerror}")
    names = {"door": folders.egress, "control": folders.gate, "log": folders.connections}
    own = {f"/run/csb/{name}": folder for name, folder in names.items()}
    most = {"Max core file size": 0}
    return _row(
        *name,
        lambda: [
            *_box(pid, [os.getpid()], own, ("net",)),
            *_shared(pid, init),
            *_limits(pid, most),
        ],
    )


def _box(
    pid: int, apart_from: Sequence[int], own: Mapping[str, Path], fine: Sequence[str] = ()
) -> list[str]:
    """What is wrong with a small sandbox beside the payload's.

    ``own`` is what it may write to, at its place inside; ``fine`` are namespaces that it shares.
    """
    wrong = [word for other in apart_from for word in _shared(pid, other, fine)] + _powers(pid)
    state = stat_fields(pid) or ["", "0", "", "", "0"]
    words = Path(f"/proc/{state[1]}/cmdline").read_bytes().split(b"\0")
    wrong += ["bwrap's arguments are to be read"] if b"--ro-bind" in words else []
    wrong += _box_mounts(pid, {place: place_of(path) for place, path in own.items()})
    wrong += ["it has a terminal"] if state[4] != "0" else []
    # One that lets nobody look into its memory shows these to root alone (prctl, PR_SET_DUMPABLE).
    with contextlib.suppress(PermissionError):
        odd = [name for name in _variables(pid) if not _VARIABLES.fullmatch(name)]
        wrong += [*(f"variable {name}" for name in odd), *_open_files(pid)]
    return wrong


def _box_mounts(pid: int, own: Mapping[str, tuple[str, str]]) -> list[str]:
    wrong: list[str] = []
    for mount in mounts(pid):
        if not mount.read_only and mount.point in own:
            if (mount.device, mount.root) != own[mount.point]:
                wrong.append(f"{mount.point} is {mount.root} of device {mount.device}")
        elif _X_READ_ONLY.fullmatch(mount.point):
            if not mount.read_only:
                wrong.append(f"{mount.point} can be written")
            if mount.point == "/" and mount.root != "/newroot":
                wrong.append(f"the root is {mount.root} of device {mount.device}")
        elif not _X_OWN.fullmatch(mount.point):
            wrong.append(f"{mount.point} is {mount.root} of device {mount.device}")
    return wrong


def _open_files(pid: int) -> list[str]:
    """Files and folders that are open and lie on no mount of its own: they were opened outside."""
    own = {
        line.split(" ", 1)[0] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    }
    wrong: list[str] = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found, name = os.stat(f"/proc/{pid}/fd/{fd}"), os.readlink(f"/proc/{pid}/fd/{fd}")
            info = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
        except OSError:
            continue
        match = re.search(r"^mnt_id:\s*([0-9]+)", info, re.MULTILINE)
        kind = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
        if kind and match and match[1] not in own and not name.startswith("/memfd:"):
            wrong.append(f"it has {name} open")
    return wrong


def _server(pid: int) -> list[str]:
    wrong = _limits(pid, {"Max core file size": 0, "Max address space": 1 << 40})
    if re.search(r"@\S*X11-unix", Path(f"/proc/{pid}/net/unix").read_text(errors="replace")):
        wrong.append("it listens on an abstract socket")
    for name in ("tcp", "tcp6"):
        if len(Path(f"/proc/{pid}/net/{name}").read_text().splitlines()) > 1:
            wrong.append("it listens on a network")
    return wrong
