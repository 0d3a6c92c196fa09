"""What this kernel's Landlock can do (landlock(7))."""

import ctypes

_SYS_CREATE_RULESET = 444  # the same number on every architecture
_VERSION = 1  # the flag that asks for it
_SCOPES = 6  # the first that keeps abstract sockets and signals apart (Linux 6.12)


def version() -> int:
    """Its version; below 1: none."""
    return ctypes.CDLL(None).syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)


def scopes() -> bool:
    """Whether it can keep abstract sockets and signals apart."""
    return version() >= _SCOPES
