"""A lock file that the kernel lets go of with its owner, however that ends: flock(2)."""

import fcntl
import os
from pathlib import Path


def take_lock(path: Path, *, create: bool = True) -> int | None:
    """A descriptor that holds the lock file ``path`` until it is closed; None: somebody has it.

    The lock goes with the open file: children that inherit the descriptor hold it too, and the last
    copy that is closed frees it. Raises OSError.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd
