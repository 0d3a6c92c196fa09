"""What the program settles for itself once it listens, before it hears anybody."""

import ctypes
import os
import resource
import struct

from csb_mcp.host.network.proxy.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # signal brings enum, and takes as long as half of this program

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # alike on all architectures
_VERSION = 1
_SCOPES = 1 | 2  # abstract Unix sockets, signals: to processes outside of this domain
_SCOPES_SINCE = 6  # the ABI of Linux 6.12
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 32 << 10


def confine() -> bool:
    """Whether the kernel knows scopes; all else has to work. Raises OSError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"prctl({option})")
    if libc.syscall(_LANDLOCK_CREATE, None, 0, _VERSION) < _SCOPES_SINCE:
        return False
    attributes = struct.pack("QQQ", 0, 0, _SCOPES)
    rules = libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0 or libc.syscall(_LANDLOCK_RESTRICT, rules, 0):
        raise OSError(ctypes.get_errno(), "landlock")
    os.close(rules)
    return True


def give_memory_back() -> None:
    """Have what large buffers took go back to the system once they are freed (mallopt(3)).

    Else 500 connections with slow readers would leave holes of the size of all they had.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_ARENA_MAX, 2)


def end_by_signals(loop: Loop) -> None:
    """Of those that ask for it; the log gets its last lines."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, loop.end)
    signal.set_wakeup_fd(loop.ring, warn_on_full_buffer=False)
