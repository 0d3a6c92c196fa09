"""The system call filter: what a payload may ask of the kernel, as classic BPF for bwrap --seccomp.

Run as a program it writes the filters that are shipped: ``python -m csb_mcp.lib.seccomp FOLDER``.

A deny-list on purpose: a payload is a developer's whole toolbox. It takes away what a sandbox never
needs and what kernel bugs are usually reached through: new namespaces, mounts, modules, keyrings,
BPF, io_uring, tracing, odd socket families. Calls newer than those reviewed here do not exist.

Arguments are compared by their low 32 bits where the kernel reads an ``int``: it ignores the high
half, so a filter that compared all 64 bits could be passed by setting one of them.
"""

import errno
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALLOW", "DENIED", "KILL", "MACHINES", "NEWEST", "NUMBERS", "error", "generate"]

ALLOW = 0x7FFF0000  # SECCOMP_RET_ALLOW
KILL = 0x80000000  # SECCOMP_RET_KILL_PROCESS

MACHINES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*

NEWEST = 469  # file_setattr, Linux 6.17; the number is the same on every architecture

# Name: number on x86_64, number on aarch64 (None: does not exist there).
NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    # keyrings are not namespaced; BPF, perf, userfaultfd and io_uring are where exploits live
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # reaching into other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    # the machine itself
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "memfd_secret": (447, 447),
    # long obsolete
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "vserver": (236, None),
    # those that are looked at more closely, see _rules
    "clone": (56, 220),
    "clone3": (435, 435),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "open": (2, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "creat": (85, None),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
}

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
# TIOCSTI and TIOCLINUX type into a terminal, TIOCSETD loads line disciplines (n_gsm and friends),
# TIOCCONS takes the console's output.
_TERMINAL_IOCTLS = (0x5412, 0x541C, 0x5423, 0x541D)
# PER_LINUX, ADDR_NO_RANDOMIZE, and the question what it is now.
_PERSONALITIES = (0x0, 0x0040000, 0xFFFFFFFF)
_SUID_SGID = 0o6000
_CREATES = 0o100 | 0o20000000  # O_CREAT | __O_TMPFILE: only then open(2) reads its mode argument
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_NETLINK_ROUTE = 0
_TYPE_MASK = 0xF  # SOCK_TYPE_MASK: without SOCK_CLOEXEC and SOCK_NONBLOCK
_INET_TYPES = (1, 2, 3)  # SOCK_STREAM, SOCK_DGRAM, SOCK_RAW (which needs a capability anyway)
_INET_PROTOCOLS = (0, 1, 6, 17, 58)  # default, ICMP, TCP, UDP, ICMPv6: not SCTP, DCCP, MPTCP ...

# Where argument number 0 lies in struct seccomp_data (little-endian: its low half).
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
# BPF opcodes, linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_GREATER, _IF_ANY = 0x15, 0x25, 0x45


def error(code: int) -> int:
    """SECCOMP_RET_ERRNO: the call fails with ``code``."""
    return 0x00050000 | code


@dataclass(frozen=True, slots=True)
class _Instruction:
    """``struct sock_filter``: jumps count from the next instruction."""

    code: int
    k: int
    jt: int = 0
    jf: int = 0

    def pack(self) -> bytes:
        return struct.pack("<HBBI", self.code, self.jt, self.jf, self.k)


_Block = list[_Instruction]
_PERMIT = _Instruction(_RETURN, ALLOW)
_REFUSE = _Instruction(_RETURN, error(errno.EPERM))


def _low(argument: int) -> _Instruction:
    return _Instruction(_LOAD, _ARGUMENTS + 8 * argument)


def _unless_one_of(values: Sequence[int], verdict: _Instruction) -> _Block:
    """Go on if the accumulator is one of ``values``, else give ``verdict``."""
    last = len(values)
    tests = [_Instruction(_IF_EQUAL, value, jt=last - i) for i, value in enumerate(values)]
    return [*tests, verdict]


def _refuse_one_of(argument: int, values: Iterable[int]) -> _Block:
    block = [_low(argument)]
    for value in values:
        block += [_Instruction(_IF_EQUAL, value, jf=1), _REFUSE]
    return [*block, _PERMIT]


def _refuse_bits(argument: int, bits: int) -> _Block:
    return [_low(argument), _Instruction(_IF_ANY, bits, jf=1), _REFUSE, _PERMIT]


def _refuse_mode_if_creating(flags: int, mode: int) -> _Block:
    return [
        _low(flags),
        _Instruction(_IF_ANY, _CREATES, jt=1),
        _PERMIT,
        *_refuse_bits(mode, _SUID_SGID),
    ]


def _socket() -> _Block:
    no_family = _Instruction(_RETURN, error(errno.EAFNOSUPPORT))
    no_protocol = _Instruction(_RETURN, error(errno.EPROTONOSUPPORT))
    inet = [
        _low(1),
        _Instruction(_AND, _TYPE_MASK),
        *_unless_one_of(_INET_TYPES, no_protocol),
        _low(2),
        *_unless_one_of(_INET_PROTOCOLS, no_protocol),
        _PERMIT,
    ]
    netlink = [_low(2), *_unless_one_of([_NETLINK_ROUTE], no_protocol), _PERMIT]
    return [
        _low(0),
        _Instruction(_IF_EQUAL, _UNIX, jf=1),
        _PERMIT,
        _Instruction(_IF_EQUAL, _NETLINK, jf=len(netlink)),
        *netlink,
        *_unless_one_of([_INET, _INET6], no_family),
        *inet,
    ]


def _rules() -> Mapping[str, _Block]:
    """Calls that depend on their arguments; each block gives a verdict in the end."""
    absent = [_Instruction(_RETURN, error(errno.ENOSYS))]
    unix_only = _unless_one_of([_UNIX], _Instruction(_RETURN, error(errno.EAFNOSUPPORT)))
    return {
        "clone": _refuse_bits(0, _NEW_NAMESPACES),
        # Their flags and modes stand behind a pointer, which a filter cannot follow. libc falls
        # back to clone and openat.
        "clone3": absent,
        "openat2": absent,
        "ioctl": _refuse_one_of(1, _TERMINAL_IOCTLS),
        "personality": [_low(0), *_unless_one_of(_PERSONALITIES, _REFUSE), _PERMIT],
        "socket": _socket(),
        "socketpair": [_low(0), *unix_only, _PERMIT],
        # No setuid or setgid file: under a root daemon's id-mapped mount a payload's files may be
        # stored as root's, and such a program would be root's on the host.
        "open": _refuse_mode_if_creating(1, 2),
        "openat": _refuse_mode_if_creating(2, 3),
        "creat": _refuse_bits(1, _SUID_SGID),
        "mkdir": _refuse_bits(1, _SUID_SGID),
        "mkdirat": _refuse_bits(2, _SUID_SGID),
        "mknod": _refuse_bits(1, _SUID_SGID),
        "mknodat": _refuse_bits(2, _SUID_SGID),
        "chmod": _refuse_bits(1, _SUID_SGID),
        "fchmod": _refuse_bits(1, _SUID_SGID),
        "fchmodat": _refuse_bits(2, _SUID_SGID),
        "fchmodat2": _refuse_bits(2, _SUID_SGID),
    }


DENIED: frozenset[str] = frozenset(NUMBERS) - frozenset(_rules())
"""Calls that are refused whatever their arguments."""


def _number(name: str, machine: str) -> int | None:
    return NUMBERS[name][list(MACHINES).index(machine)]


def generate(machine: str) -> bytes:
    """The filter for ``x86_64`` or ``aarch64``: an array of ``struct sock_filter``."""
    program: _Block = [
        _Instruction(_LOAD, _ARCH),
        _Instruction(_IF_EQUAL, MACHINES[machine], jt=1),
        _Instruction(_RETURN, KILL),
        _Instruction(_LOAD, _NR),
        # Also x32, whose numbers start at 2**30.
        _Instruction(_IF_GREATER, NEWEST, jf=1),
        _Instruction(_RETURN, error(errno.ENOSYS)),
    ]
    blocks = {name: [_REFUSE] for name in sorted(DENIED)} | dict(_rules())
    for name, block in blocks.items():
        number = _number(name, machine)
        if number is not None:
            program += [_Instruction(_IF_EQUAL, number, jf=len(block)), *block]
    program.append(_PERMIT)
    return b"".join(instruction.pack() for instruction in program)


def main() -> None:
    """Write a filter for each machine into the folder named by the first argument."""
    folder = Path(sys.argv[1])
    for machine in MACHINES:
        (folder / f"{machine}.bpf").write_bytes(generate(machine))


if __name__ == "__main__":
    main()
