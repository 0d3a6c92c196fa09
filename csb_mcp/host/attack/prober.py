"""Attacks on a sandbox from its inside, with their controls outside (``ports.Prober``)."""

import asyncio
import hashlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from csb_mcp.errors import HelperFailed
from csb_mcp.host.attack import outside, table
from csb_mcp.host.attack.calls import calls
from csb_mcp.host.attack.network import RESOLVER, network_attacks
from csb_mcp.host.attack.plants import MARKER, Plants, planted
from csb_mcp.host.attack.protected import folders_above, links, protected
from csb_mcp.host.attack.table import Answers, Attack
from csb_mcp.host.launchers import find_tool, sources
from csb_mcp.model import Folders, Probe, Sandbox, Verification
from csb_mcp.ports import Helper

PROGRAM = "/opt/csb/probes.py"
"""Where the attacking program lies inside."""

_SECONDS = 15.0
# Should pasta forward ports, it looks for new ones when a second has passed since the last time and
# something comes to it: as the question to the resolver does, which is answered after that look.
_SEEN_SECONDS = 1.05
_CALLS = 80  # whose names fit into one answer
FILES = 65536  # that one process may have open
_TMP, _SHM, _RUN, _OURS = 1024**3, 512 * 1024**2, 64 * 1024**2, 1024**2

ROWS = {
    "host-files": "files of the host and of other sandboxes",
    "host-identity": "the host's accounts, name and machine id",
    "home": "the home of the user",
    "open-files": "what was open outside when the sandbox was started",
    "devices": "disks, memory and other devices",
    "kernel-settings": "settings of the kernel, and lists of what others use",
    "system-files": "programs and libraries, read-only",
    "own-files": "what the daemon put inside",
    "protected-paths": "files of the project that make the host run code",
    "memory-folders": "memory, from files in it without a bound",
    "set-uid": "programs that would run as their owner",
    "processes": "processes of the host and of other sandboxes",
    "shared-memory": "memory that programs of the host share",
    "terminal": "the terminal outside, and tmux",
    "limits": "the host from one that takes all",
    "system-calls": "the kernel's calls that are not needed inside",
    "foreign-calls": "the kernel, from numbers that the filter cannot know",
    "user-namespaces": "what root of a namespace may do",
    "host-sockets": "sockets of the host, by path",
    "abstract-sockets": "sockets of the host, by name",
    "host-loopback": "servers on the host's loopback",
    "host-addresses": "servers on the host's other addresses",
    "raw-sockets": "packets of others",
    "network-devices": "the host's networks",
    "routes": "other machines and the internet, beside the proxy",
    "private-networks": "networks beside the host, and what clouds keep there",
    "proxy": "what the proxy must refuse whatever the rules",
    "display-key": "the display from those without its key",
}


class InsideProber:
    """See :class:`~csb_mcp.ports.Prober`."""

    async def probe(self, sandbox: Sandbox, folders: Folders, helper: Helper) -> Verification:
        """See :class:`~csb_mcp.ports.Prober`."""
        started = time.monotonic()
        bash, python = find_tool("bash"), find_tool("python3")
        async with planted(_places(sandbox, folders), bash, sandbox.uid) as plants:
            resolver = RESOLVER if sandbox.spec.network == "full" else ""
            if resolver:
                await asyncio.sleep(_SEEN_SECONDS)
            attacks = [*_attacks(sandbox, plants), *network_attacks(sandbox, plants)]
            if python is None:
                why = "python3 is not installed"
                inside = [table.untested(n, ROWS[n], why) for n in {a.row: 0 for a in attacks}]
            else:
                inside, control = await asyncio.gather(
                    _inside(helper, python, attacks, resolver), _outside(python, attacks)
                )
                inside = table.judge(ROWS, attacks, inside, control)
        looked = await asyncio.to_thread(
            lambda: list(outside.look(sandbox, folders, helper.init_pid, FILES))
        )
        probes = tuple(sorted((*inside, *looked), key=_order))
        return Verification(
            sandbox=sandbox.id, probes=probes, seconds=round(time.monotonic() - started, 3)
        )


def _order(probe: Probe) -> int:
    return [*ROWS].index(probe.name) if probe.name in ROWS else len(ROWS)


def _places(sandbox: Sandbox, folders: Folders) -> list[Path]:
    """Folders of the host where a file is planted: common ones and the daemon's own."""
    common = [Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"), Path("/run")]
    found = [*common, folders.state.parent, folders.runtime.parent]
    inside = sandbox.spec.project_dir
    return [path for path in dict.fromkeys(found) if not path.is_relative_to(inside)]


async def _inside(
    helper: Helper, python: Path, attacks: Sequence[Attack], resolver: str
) -> Answers:
    nonce, data = table.request(attacks, resolver)
    # Without the variables that were asked for: they are the payload's.
    command = f"exec /usr/bin/env -i PATH=/usr/bin:/bin {shlex.quote(str(python))} -I -S {PROGRAM}"
    try:
        result = await helper.run(
            command, cwd=None, stdin=data, timeout=_SECONDS, max_output=table.ANSWER_BYTES
        )
    except HelperFailed:
        return Answers()  # it was killed: nothing is known
    answers = table.parse(nonce, result.stdout, result.stderr)
    answers.odd |= result.exit_code != 0 or result.truncated or bool(result.stderr)
    return answers


async def _outside(python: Path, attacks: Sequence[Attack]) -> Answers:
    """Those attacks that have to go through here, by the same program."""
    nonce, data = table.request([a if a.control else Attack(a.row, ("skip",)) for a in attacks])
    command = [python, "-I", "-S", sources() / "probes.py"]
    try:
        done = await asyncio.to_thread(
            lambda: subprocess.run(
                command, input=data, env={}, capture_output=True, timeout=_SECONDS, check=False
            )
        )
    except (OSError, subprocess.SubprocessError):
        return Answers()
    return table.parse(nonce, done.stdout.decode(errors="replace"))


def _attacks(sandbox: Sandbox, plants: Plants) -> Iterator[Attack]:
    yield from _file_attacks(sandbox, plants)
    yield from _own_attacks(sandbox)
    yield from _process_attacks(sandbox, plants)
    for path in protected(sandbox):
        yield Attack("protected-paths", ("writable", path))
    for path in links(sandbox):
        yield Attack("protected-paths", ("link", path))
    for path in folders_above(sandbox):
        yield Attack("protected-paths", ("movable", path))
    yield Attack("display-key", ("display", ""))
    yield Attack("display-key", ("display", os.urandom(16).hex()))


def _file_attacks(sandbox: Sandbox, plants: Plants) -> Iterator[Attack]:
    for path, token in plants.files:
        yield Attack("host-files", ("read", path), token, control=True)
        yield Attack("open-files", ("climb", path), token)
    yield Attack("open-files", ("descriptors",))
    for path in ("/etc/passwd", "/etc/machine-id", "/etc/hostname", "/etc/group"):
        try:
            digest = hashlib.sha256(Path(path).read_bytes()[: 1 << 20]).hexdigest()
        except OSError:
            continue
        yield Attack("host-identity", ("digest", path), digest, control=True)
    for path in _of_home(sandbox):
        yield Attack("home", ("inode", str(path)), f"inode {path.lstat().st_ino}", control=True)
    yield Attack("devices", ("devices",), control=True)
    for name in ("key-users", "keys", "latency_stats", "sched_debug"):
        if Path("/proc", name).exists():
            yield Attack("kernel-settings", ("content", f"/proc/{name}"), control=True)
    yield Attack("kernel-settings", ("writable", "/proc/sys/kernel/core_pattern"))
    yield Attack("kernel-settings", ("writable", "/proc/sys/vm/drop_caches"))


def _of_home(sandbox: Sandbox) -> list[Path]:
    """Some of what lies in the daemon's home, but not the way to the project."""
    try:
        found = sorted(Path.home().iterdir())
    except (OSError, RuntimeError):
        return []
    return [path for path in found if not sandbox.spec.project_dir.is_relative_to(path)][:8]


def _own_attacks(sandbox: Sandbox) -> Iterator[Attack]:
    system = ("/usr", "/usr/bin/env", "/", "/dev", "/etc", "/home")
    etc = ("ld.so.cache", "alternatives", "fonts", "localtime", "ssl/certs", "ssl/openssl.cnf")
    for path in (*system, *(f"/etc/{name}" for name in etc)):
        if Path(path).exists():
            yield Attack("system-files", ("writable", path))
    own = ("/opt/csb", "/opt/csb/helper.sh", "/run/csb", "/run/csb/exec", "/run/csb/environment")
    shown = ("/tmp/.X11-unix", "/run/csb/Xauthority", "/run/csb/egress")
    for path in (*own, *shown):
        yield Attack("own-files", ("writable", path))
    yield Attack("own-files", ("movable", "/run/csb"))
    yield Attack("own-files", ("movable", "/opt/csb"))
    mebibytes = sandbox.spec.memory >> 20
    tmp, shm = min(_TMP, (mebibytes // 4) << 20), min(_SHM, (mebibytes // 8) << 20)
    for path, size in (("/tmp", tmp), ("/dev/shm", shm), ("/run", _RUN), ("/run/csb", _OURS)):
        yield Attack("memory-folders", ("size", path, size))


def _process_attacks(sandbox: Sandbox, plants: Plants) -> Iterator[Attack]:
    if plants.process:
        pid, token = plants.process
        yield Attack("processes", ("processes", MARKER), token, control=True)
        yield Attack("processes", ("process", pid), token, control=True)
    if plants.segment:
        key, token = plants.segment
        yield Attack("shared-memory", ("shared_memory", key), token, control=True)
    yield Attack("terminal", ("terminal",))
    yield Attack("limits", ("limit", "NPROC", sandbox.spec.pids))
    yield Attack("limits", ("limit", "NOFILE", FILES))
    yield Attack("limits", ("limit", "CORE", 0))
    yield Attack("limits", ("protected_from_oom",))
    yield Attack("set-uid", ("set_uid",))
    wanted = calls()
    for i in range(0, len(wanted), _CALLS):
        yield Attack("system-calls", ("calls", wanted[i : i + _CALLS]), control=True)
    yield Attack("foreign-calls", ("foreign",))
    yield Attack("user-namespaces", ("user_namespace",), control=True)
    for name, token in plants.sockets:
        row = "abstract-sockets" if name.startswith("@") else "host-sockets"
        yield Attack(row, ("unix", name), token, control=True)
