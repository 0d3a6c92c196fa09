"""Each rule of the system call filter is missed by the attacks when it is taken away.

The attacking program runs under an altered filter alone here, for that is quick; and under the
whole one, where it must find nothing.
"""

import os
import platform
import struct
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from csb_mcp.host.attack import table
from csb_mcp.host.attack.calls import calls
from csb_mcp.host.attack.table import Attack
from csb_mcp.lib import seccomp
from tests.support.attacked import SHIPPED

pytestmark = pytest.mark.once

MACHINE = platform.machine()
ARGUMENTS = {  # a constant of the filter: what is put in its place, and a call that passes then
    "_NEW_NAMESPACES": {
        f"clone-{name}": 0x7E020000 & ~flag
        for name, flag in {
            "mount": 0x20000,
            "cgroup": 0x2000000,
            "uts": 0x4000000,
            "ipc": 0x8000000,
            "user": 0x10000000,
            "pid": 0x20000000,
            "net": 0x40000000,
        }.items()
    },
    "_TERMINAL_IOCTLS": {
        "ioctl-sti": (0x541C, 0x5423, 0x541D),
        "ioctl-linux": (0x5412, 0x5423, 0x541D),
        "ioctl-setd": (0x5412, 0x541C, 0x541D),
        "ioctl-cons": (0x5412, 0x541C, 0x5423),
    },
    "_PERSONALITIES": {"personality": (0x0, 0x0040000, 0xFFFFFFFF, 0x0400000)},
    "_SUID_SGID": {"chmod-4755": 0o2000, "chmod-2755": 0o4000},
    "_CREATES": {"openat-4755": 0o100},
    "_INET_TYPES": {"socket-inet-type-5": (1, 2, 3, 5), "socket-inet6-type-6": (1, 2, 3, 6)},
    "_INET_PROTOCOLS": {
        f"socket-inet-protocol-{n}": (0, 1, 6, 17, 58, n) for n in (33, 132, 136, 255, 262)
    },
    "_NETLINK_ROUTE": {"socket-netlink-12": 12},
    "_INET6": {"socket-family-40": 40, "socket-family-38": 38, "socket-family-17": 17},
    "NEWEST": {f"number-{seccomp.NEWEST + 1}": seccomp.NEWEST + 1, "x32-ptrace": 2**31},
}


def passes(program: bytes, attacks: list[Attack]) -> str:
    """What the attacks say that got past a filter, run under it."""
    nonce, data = table.request(attacks)
    with tempfile.TemporaryFile() as file:
        file.write(program)
        file.seek(0)
        os.set_inheritable(file.fileno(), True)
        done = subprocess.run(
            [
                *("/usr/bin/bwrap", "--unshare-user", "--dev-bind", "/", "/"),
                *("--seccomp", str(file.fileno()), "--", "/usr/bin/python3", "-I", "-S"),
                str(SHIPPED / "probes.py"),
            ],
            input=data,
            capture_output=True,
            pass_fds=[file.fileno()],
            timeout=30,
            check=True,
        )
    answers = table.parse(nonce, done.stdout.decode())
    assert len(answers.by_number) == len(attacks)
    return ",".join(a.text for a in answers.by_number.values() if a.word == "done")


def chunks(wanted: list[Any]) -> list[Attack]:
    return [Attack("calls", ("calls", wanted[i : i + 80])) for i in range(0, len(wanted), 80)]


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> bytes:
    """The filter with no rule for one call."""
    rules: Callable[[], dict[str, Any]] = vars(seccomp)["_rules"]
    left = {key: block for key, block in rules().items() if key != name}
    monkeypatch.setattr(seccomp, "_rules", lambda: left)
    monkeypatch.setattr(seccomp, "DENIED", seccomp.DENIED - {name})
    return seccomp.generate(MACHINE)


def test_nothing_passes_the_whole_filter() -> None:
    shipped = (SHIPPED / "seccomp" / f"{MACHINE}.bpf").read_bytes()
    assert passes(shipped, [*chunks(calls()), Attack("", ("foreign",))]) == ""


def test_everything_passes_no_filter() -> None:
    nothing = struct.pack("<HBBI", 0x06, 0, 0, seccomp.ALLOW)
    said = passes(nothing, [*chunks(calls()), Attack("", ("foreign",))]).split(",")
    assert {call[0] for call in calls()} <= set(said)
    assert MACHINE != "x86_64" or "a 32-bit system call was done" in said


@pytest.mark.parametrize("part", range(4))
def test_each_denied_call_is_missed(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    column = list(seccomp.MACHINES).index(MACHINE)
    names = [n for n in sorted(seccomp.DENIED)[part::4] if seccomp.NUMBERS[n][column] is not None]
    for name in names:
        with monkeypatch.context() as patch:
            program = without(patch, name)
        assert passes(program, chunks(calls())) == name


@pytest.mark.parametrize(
    "name", ["clone", "clone3", "openat2", "ioctl", "personality", "socket", "socketpair"]
)
def test_each_rule_for_arguments_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = passes(without(monkeypatch, name), chunks(calls())).split(",")
    assert said != [""]
    assert all(word.partition("-")[0] == name for word in said)


@pytest.mark.parametrize(
    "name",
    [
        *("open", "openat", "creat", "mkdir", "mkdirat", "mknod", "mknodat"),
        *("chmod", "fchmod", "fchmodat", "fchmodat2"),
    ],
)
def test_each_way_to_a_set_uid_file_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if seccomp.NUMBERS[name][list(seccomp.MACHINES).index(MACHINE)] is None:
        return  # it does not exist on this machine
    said = passes(without(monkeypatch, name), chunks(calls())).split(",")
    assert {f"{name}-4755", f"{name}-2755"} <= set(said)


@pytest.mark.parametrize(
    ("constant", "call"), [(name, call) for name, cases in ARGUMENTS.items() for call in cases]
)
def test_each_value_is_missed(constant: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, constant, ARGUMENTS[constant][call])
    assert call in passes(seccomp.generate(MACHINE), chunks(calls())).split(",")


@pytest.mark.skipif(MACHINE != "x86_64", reason="other machines have no second way to call")
def test_the_look_at_the_machine_is_missed() -> None:
    program = seccomp.generate("x86_64")
    kill = struct.pack("<HBBI", 0x06, 0, 0, seccomp.KILL)
    allow = struct.pack("<HBBI", 0x06, 0, 0, seccomp.ALLOW)
    altered = program.replace(kill, allow, 1)
    assert passes(altered, [Attack("", ("foreign",))]) == "a 32-bit system call was done"
