"""Moves a file on a tmpfs into huge pages, which are copied from in half the time."""

import ctypes
import mmap
import os

_HUGE = 2 * 1024 * 1024
_SPARE = _HUGE // 8  # memory that huge pages may take and the file did not
_MADV_COLLAPSE = 25  # of Linux 6.1
_MAP_FIXED = 0x10
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,
)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def collapse(fd: int, size: int) -> bool:
    """Have the kernel move the first ``size`` bytes, if that takes hardly any more memory.

    So not if there are many holes. Takes some milliseconds. Gives False if all stayed as it was;
    with nobody at the file, another time it may succeed. The file is mapped for that, but never
    looked at there: whoever cuts it short meanwhile does no harm. Its memory is charged to us from
    then on.
    """
    pages = (size + _SPARE) // _HUGE
    try:
        few_holes = os.fstat(fd).st_blocks * 512 >= size - _SPARE
        return pages > 0 and few_holes and _collapse(fd, pages * _HUGE)
    except OSError:
        return False


def _collapse(fd: int, size: int) -> bool:
    # Twice: room in which there is a place that is aligned, then the file at that place.
    room = _map(None, size + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
    try:
        place = -(-room // _HUGE) * _HUGE
        _map(place, size, mmap.MAP_SHARED | _MAP_FIXED, fd)
        return _libc.madvise(place, size, _MADV_COLLAPSE) == 0
    finally:
        _libc.munmap(room, size + _HUGE)


def _map(place: int | None, size: int, flags: int, fd: int) -> int:
    found = _libc.mmap(place, size, mmap.PROT_READ, flags, fd, 0)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    return found
