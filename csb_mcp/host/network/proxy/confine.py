"""What this program takes from itself, before anybody inside may speak to it."""

import ctypes
import os
import resource
import struct

_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # alike on all architectures
_VERSION = 1
_SCOPES = 1 | 2  # abstract Unix sockets, signals: to processes outside of this domain
_SCOPES_SINCE = 6  # the ABI of Linux 6.12
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


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
