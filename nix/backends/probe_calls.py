"""The part of ``probes.py`` that tries system calls: what gets past the filter."""

import ctypes
import errno
import mmap
import os
import platform
import select
import signal
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

PASSED = 200  # an error number that no kernel gives
MAGIC = 0x63736221

libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The attack failed."""


class Unable(Exception):
    """The attack could not be tried."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _listen() -> int:
    """Ask to be told of this thread's calls that end in MAGIC and that no other filter refuses.

    Those never get to the kernel itself, so nothing is done by trying them.
    """
    code = struct.pack("<HBBI", 0x20, 0, 0, 16 + 5 * 8)  # load the low half of the argument
    code += struct.pack("<HBBI", 0x15, 0, 1, MAGIC)
    code += struct.pack("<HBBI", 0x06, 0, 0, 0x7FC00000)  # SECCOMP_RET_USER_NOTIF
    code += struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    number = {"x86_64": 317, "aarch64": 277}[platform.machine()]
    listener = libc.syscall(number, 1, 8, ctypes.byref(program))  # SET_MODE_FILTER, NEW_LISTENER
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _answer(listener: int) -> None:
    while True:
        notice = ctypes.create_string_buffer(80)
        if libc.ioctl(listener, ctypes.c_ulong(0xC0502100), notice) < 0:  # NOTIF_RECV
            return
        answer = notice.raw[:8] + struct.pack("<qiI", 0, -PASSED, 0)
        libc.ioctl(listener, ctypes.c_ulong(0xC0182101), answer)  # NOTIF_SEND


def _call(number: int, *arguments: int) -> bool:
    padded = (*arguments, *([0] * (5 - len(arguments))), MAGIC)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(value) for value in padded])
    return result < 0 and ctypes.get_errno() == PASSED


def _try_calls(wanted: list[tuple[str, int, list[int]]]) -> str:
    ready = threading.Event()
    listener: list[int] = []

    def answer() -> None:
        ready.wait()
        if listener:
            _answer(listener[0])

    threading.Thread(target=answer, daemon=True).start()
    try:
        listener.append(_listen())
    finally:
        ready.set()
    return ",".join(name for name, number, arguments in wanted if _call(number, *arguments))


def calls(wanted: list[Any]) -> str:
    """Those of ``[name, number, argument...]`` that no filter refuses."""
    named = [(name, number, arguments) for name, number, *arguments in wanted]
    text = _in_child(lambda: _try_calls(named))
    if text.startswith("!"):
        raise Unable(text[1:])
    if text:
        return text
    raise Refused("all")


def foreign() -> str:
    """A system call as another machine (32 bit) makes it, whose numbers the filter cannot know."""
    if platform.machine() != "x86_64":
        raise Unable("only for x86_64")
    getpid = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    area = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(getpid)
    pid = os.fork()
    if pid == 0:
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        return "a 32-bit system call was done"
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSYS:
        raise Refused("SIGSYS")
    raise Unable(f"status {status}")


def user_namespace() -> str:
    """Become root of a user namespace, which opens many doors of the kernel."""
    text = _in_child(lambda: "" if libc.unshare(0x10000000) == 0 else f"!{ctypes.get_errno()}")
    if text.startswith("!"):
        raise Refused(errno.errorcode.get(int(text[1:]), text[1:]) if text[1:].isdigit() else text)
    return "a user namespace was made"


def _in_child(work: Callable[[], str]) -> str:
    """The text that ``work`` gives, in a process that is ended after two seconds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, work().encode()[:60000])
        except BaseException as error:  # noqa: BLE001  it must not go on as its parent
            os.write(writing, f"!{error!r}".encode())
        os._exit(0)
    os.close(writing)
    try:
        text = b""
        deadline = time.monotonic() + 2
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (more := os.read(reading, 65536)):
                return text.decode()
            text += more
        return "!no answer"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
