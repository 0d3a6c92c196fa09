"""System calls that must not get past a sandbox's filter, each as ``[name, number, argument...]``.

They are tried so that none of them is done, see ``probes.py``.
"""

import platform
from collections.abc import Iterator

from csb_mcp.lib.seccomp import DENIED, MACHINES, NEWEST, NUMBERS

_Call = list[str | int | None]
_SIGCHLD = 17
_NAMESPACES = {
    "mount": 0x20000,
    "cgroup": 0x2000000,
    "uts": 0x4000000,
    "ipc": 0x8000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
_TERMINAL = {"sti": 0x5412, "linux": 0x541C, "setd": 0x5423, "cons": 0x541D}
_FAMILIES = {*range(47)} - {1, 2, 10, 16}
_PROTOCOLS = (2, 33, 47, 132, 136, 255, 262)
_SET_ID = (0o4755, 0o2755)
_X32 = 0x40000000


def calls() -> list[_Call]:
    """For this machine."""
    column = list(MACHINES).index(platform.machine())
    numbers = {name: pair[column] for name, pair in NUMBERS.items()}
    plain = [(name, numbers[name]) for name in sorted(DENIED)]
    plain += [(f"number-{number}", number) for number in (NEWEST + 1, NEWEST + 31)]
    found: list[_Call] = [[*call] for call in plain]
    for name, *rest in _with_arguments():
        found.append([name, numbers[name.partition("-")[0]], *rest])
    if platform.machine() == "x86_64":
        found.append(["x32-ptrace", _X32 + 521])
    return [call for call in found if call[1] is not None]


def _with_arguments() -> Iterator[tuple[str, *tuple[int, ...]]]:
    yield from (("clone3",), ("openat2",))
    for name, flag in _NAMESPACES.items():
        yield f"clone-{name}", flag | _SIGCHLD
    for name, number in _TERMINAL.items():
        yield f"ioctl-{name}", 0, number
        yield f"ioctl-{name}-64", 0, number | 1 << 32
    yield "personality", 0x0400000
    for family in sorted(_FAMILIES):
        yield f"socket-family-{family}", family, 2
        yield f"socketpair-{family}", family, 1
    for kind in (4, 5, 6, 10):
        yield f"socket-inet-type-{kind}", 2, kind
        yield f"socket-inet6-type-{kind}", 10, kind
    for protocol in _PROTOCOLS:
        yield f"socket-inet-protocol-{protocol}", 2, 1, protocol
    for protocol in range(1, 23):
        yield f"socket-netlink-{protocol}", 16, 3, protocol
    for mode in _SET_ID:
        yield from _set_id(mode)


def _set_id(mode: int) -> Iterator[tuple[str, *tuple[int, ...]]]:
    creates, temporary, here = 0o101, 0o20200002, 2**64 - 100
    for flags in (creates, temporary):
        yield f"open-{mode:o}", 0, flags, mode
        yield f"openat-{mode:o}", here, 0, flags, mode
    for name in ("creat", "mkdir", "mknod", "chmod", "fchmod"):
        yield f"{name}-{mode:o}", 0, mode
    for name in ("mkdirat", "mknodat", "fchmodat", "fchmodat2"):
        yield f"{name}-{mode:o}", here, 0, mode
