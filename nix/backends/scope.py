"""Run a program that reaches no abstract socket and signals no process outside (Landlock).

``python -I -S scope.py PROGRAM ARGUMENT...``. Where the kernel has no such scope (before Linux
6.12) the program runs without it; whoever starts this knows and says so.
"""

import ctypes
import os
import struct
import sys

# System calls of Linux 5.2 and later have the same numbers on every architecture.
CREATE_RULESET, RESTRICT_SELF = 444, 446
ABSTRACT_SOCKETS, SIGNALS = 0x1, 0x2
SET_NO_NEW_PRIVS = 38


def restrict() -> bool:
    """Whether it could be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("QQQ", 0, 0, ABSTRACT_SOCKETS | SIGNALS)
    size = ctypes.c_size_t(len(attributes))
    ruleset = libc.syscall(CREATE_RULESET, attributes, size, 0)
    if ruleset < 0 or libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    done = libc.syscall(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return done == 0


if __name__ == "__main__":
    restrict()
    os.execve(sys.argv[1], sys.argv[1:], {})  # noqa: S606  no shell is wanted
