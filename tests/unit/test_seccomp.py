"""The filters, run by a machine of our own, over every rule; tests/security has the live ones."""

import errno
import platform
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csb_mcp.host.launchers import sources
from csb_mcp.lib.seccomp import ALLOW, DENIED, KILL, MACHINES, NEWEST, NUMBERS, error, generate
from tests.unit.bpf import Call, check, run

FILTERS = {machine: generate(machine) for machine in MACHINES}
EPERM, ENOSYS = error(errno.EPERM), error(errno.ENOSYS)
NO_FAMILY, NO_PROTOCOL = error(errno.EAFNOSUPPORT), error(errno.EPROTONOSUPPORT)
HIGH = st.integers(0, 2**32 - 1).map(lambda bits: bits << 32)
machines = pytest.mark.parametrize("machine", MACHINES)

CLONE_THREAD_FLAGS = 0x3D0F00  # what pthread_create asks for
O_CREAT, O_TMPFILE = 0o100, 0o20000000 | 0o200000
AT_FDCWD = 2**64 - 100

TABLE: list[tuple[str, tuple[int, ...], int]] = [
    ("clone", (CLONE_THREAD_FLAGS,), ALLOW),
    ("clone", (17,), ALLOW),
    *(("clone", (17 | 1 << bit,), EPERM) for bit in (17, 25, 26, 27, 28, 29, 30)),
    ("clone3", (), ENOSYS),
    ("openat2", (), ENOSYS),
    ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
    ("ioctl", (0, 0x541C), EPERM),  # TIOCLINUX
    ("ioctl", (0, 0x5423), EPERM),  # TIOCSETD
    ("ioctl", (0, 0x541D), EPERM),  # TIOCCONS
    ("ioctl", (0, 0x5401), ALLOW),  # TCGETS
    ("ioctl", (0x5412, 0x5413), ALLOW),  # a descriptor is no request
    ("personality", (0,), ALLOW),
    ("personality", (0xFFFFFFFF,), ALLOW),
    ("personality", (0x40000,), ALLOW),
    ("personality", (0x8,), EPERM),
    ("personality", (0x400000,), EPERM),  # READ_IMPLIES_EXEC
    ("socket", (1, 1, 0), ALLOW),  # AF_UNIX
    ("socket", (2, 1, 0), ALLOW),
    ("socket", (2, 1 | 0o2000000 | 0o4000, 6), ALLOW),  # SOCK_CLOEXEC | SOCK_NONBLOCK
    ("socket", (10, 2, 17), ALLOW),
    ("socket", (2, 5, 0), NO_PROTOCOL),  # SOCK_SEQPACKET is SCTP
    ("socket", (2, 6, 0), NO_PROTOCOL),  # SOCK_DCCP
    ("socket", (2, 1, 132), NO_PROTOCOL),  # IPPROTO_SCTP
    ("socket", (2, 1, 262), NO_PROTOCOL),  # IPPROTO_MPTCP
    ("socket", (16, 3, 0), ALLOW),  # NETLINK_ROUTE
    ("socket", (16, 3, 9), NO_PROTOCOL),  # NETLINK_AUDIT
    ("socket", (16, 3, 12), NO_PROTOCOL),  # NETLINK_NETFILTER
    *(("socket", (family, 2, 0), NO_FAMILY) for family in (0, 3, 4, 9, 17, 29, 30, 31, 38, 40, 44)),
    ("socketpair", (1, 1, 0), ALLOW),
    *(("socketpair", (family, 1, 0), NO_FAMILY) for family in (2, 10, 16, 30, 40)),
    ("open", (0, 0, 0o4755), ALLOW),  # nothing is created: the mode is not read
    ("open", (0, O_CREAT, 0o755), ALLOW),
    ("open", (0, O_CREAT, 0o4755), EPERM),
    ("open", (0, O_TMPFILE, 0o2755), EPERM),
    ("openat", (AT_FDCWD, 0, 0, 0o6777), ALLOW),
    ("openat", (AT_FDCWD, 0, O_CREAT, 0o1777), ALLOW),
    ("openat", (AT_FDCWD, 0, O_CREAT, 0o2600), EPERM),
    ("openat", (AT_FDCWD, 0, O_TMPFILE, 0o4600), EPERM),
    ("creat", (0, 0o644), ALLOW),
    ("creat", (0, 0o4644), EPERM),
    ("mkdir", (0, 0o1777), ALLOW),
    ("mkdir", (0, 0o2755), EPERM),
    ("mkdirat", (AT_FDCWD, 0, 0o755), ALLOW),
    ("mkdirat", (AT_FDCWD, 0, 0o2755), EPERM),
    ("mknod", (0, 0o100644), ALLOW),
    ("mknod", (0, 0o104755), EPERM),
    ("mknodat", (AT_FDCWD, 0, 0o10600), ALLOW),
    ("mknodat", (AT_FDCWD, 0, 0o102755), EPERM),
    ("chmod", (0, 0o1777), ALLOW),
    ("chmod", (0, 0o4755), EPERM),
    ("fchmod", (0o6755, 0o755), ALLOW),
    ("fchmod", (3, 0o2755), EPERM),
    ("fchmodat", (AT_FDCWD, 0, 0o777), ALLOW),
    ("fchmodat", (AT_FDCWD, 0, 0o6755), EPERM),
    ("fchmodat2", (AT_FDCWD, 0, 0o777, 0), ALLOW),
    ("fchmodat2", (AT_FDCWD, 0, 0o4755, 0), EPERM),
]


def number(name: str, machine: str) -> int | None:
    return NUMBERS[name][list(MACHINES).index(machine)]


def verdict(machine: str, name: str, *arguments: int) -> int | None:
    found = number(name, machine)
    if found is None:
        return None
    return run(FILTERS[machine], Call(found, MACHINES[machine], arguments))


@machines
def test_shipped_filters_are_the_generated_ones(machine: str) -> None:
    assert (sources() / "seccomp" / f"{machine}.bpf").read_bytes() == FILTERS[machine]


@machines
def test_the_kernel_would_take_it(machine: str) -> None:
    check(FILTERS[machine])


@machines
def test_each_argument_rule(machine: str) -> None:
    for name, arguments, expected in TABLE:
        assert verdict(machine, name, *arguments) in (expected, None), (name, arguments)


def test_the_table_speaks_of_every_rule() -> None:
    assert {name for name, _, _ in TABLE} == set(NUMBERS) - DENIED


@machines
def test_denied_calls(machine: str) -> None:
    for name in DENIED:
        assert verdict(machine, name) in (EPERM, None), name


@machines
def test_only_known_calls_are_touched(machine: str) -> None:
    ours = {number(name, machine) for name in NUMBERS}
    for nr in range(NEWEST + 1):
        if nr not in ours:
            assert run(FILTERS[machine], Call(nr, MACHINES[machine], (2**64 - 1,) * 6)) == ALLOW, nr


@machines
@given(st.integers(NEWEST + 1, 2**32 - 1))
def test_unknown_and_x32_numbers_do_not_exist(machine: str, nr: int) -> None:
    assert run(FILTERS[machine], Call(nr, MACHINES[machine])) == ENOSYS


@machines
@given(st.integers(0, 2**32 - 1), st.integers(0, 500))
def test_another_architecture_is_killed(machine: str, arch: int, nr: int) -> None:
    expected = KILL if arch != MACHINES[machine] else run(FILTERS[machine], Call(nr, arch))
    assert run(FILTERS[machine], Call(nr, arch)) == expected


@machines
@given(st.data())
def test_high_bits_change_nothing(machine: str, data: st.DataObject) -> None:
    """The kernel ignores them where it takes an int, so they must not slip a value past."""
    name, arguments, expected = data.draw(st.sampled_from(TABLE))
    odd = tuple((value & 0xFFFFFFFF) | data.draw(HIGH) for value in arguments)
    assert verdict(machine, name, *odd) in (expected, None)


@machines
@given(flags=st.integers(0, 2**32 - 1))
def test_clone_never_makes_a_namespace(machine: str, flags: int) -> None:
    assert (verdict(machine, "clone", flags) == EPERM) == bool(flags & 0x7E020000)


@machines
@given(mode=st.integers(0, 2**32 - 1))
def test_no_mode_with_setuid_or_setgid_passes(machine: str, mode: int) -> None:
    expected = EPERM if mode & 0o6000 else ALLOW
    assert verdict(machine, "fchmodat", AT_FDCWD, 0, mode) == expected
    assert verdict(machine, "openat", AT_FDCWD, 0, O_CREAT, mode) == expected


HEADERS = {
    "x86_64": Path(f"/usr/include/{platform.machine()}-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@machines
def test_numbers_are_the_kernel_headers(machine: str) -> None:
    """Those the installed headers know; they may be older than we are."""
    header = HEADERS[machine]
    if not header.is_file():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    known = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    numbers = {name: int(value) for name, value in known}
    for name in NUMBERS:
        found = number(name, machine)
        newer = found is None or found > max(numbers.values())
        assert found == numbers[name] if name in numbers else newer, name
