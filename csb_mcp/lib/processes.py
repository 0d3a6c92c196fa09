"""Hold, watch and end processes by pidfd: never by name, never a recycled pid."""

import asyncio
import errno
import os
import select
import signal
import socket
import struct
from pathlib import Path


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state, parent, ...) on; None if it is gone.

    The second, the name, may hold anything: the rest begins after the last bracket.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return stat.rpartition(b")")[2].decode().split()


def default_signals() -> None:
    """Let signals that somebody before us ignored (nohup, a shell's ``&``) act as usual again.

    What we start would inherit that, and a shell among it cannot undo it (bash(1), trap): ^C would
    do nothing in a sandbox. Only SIGPIPE and SIGXFSZ stay: Python ignores those for itself.
    """
    ours = {signal.SIGPIPE, signal.SIGXFSZ}
    for signum in signal.valid_signals() - ours:
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def children(pid: int) -> list[int]:
    """Direct children of ``pid``, all threads' (CONFIG_PROC_CHILDREN); empty if it is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    except OSError:
        pass
    return found


def descendants(pid: int) -> list[int]:
    """All processes below ``pid``, parents before their children."""
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children(queue.pop())
        found += below
        queue += below
    return found


def peer_pid(path: Path) -> int:
    """Pid of the process that listens on the Unix socket ``path`` (SO_PEERCRED, unix(7)).

    Raises OSError if nobody does, and if that is another user than the owner of the socket's
    folder, who may have put there what he likes: a link to the socket of init, say.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        connection.connect(str(path))
        pid, uid, _ = struct.unpack(
            "3I", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
    if uid != path.parent.stat().st_uid:
        raise PermissionError(errno.EPERM, f"uid {uid} listens there", str(path))
    return pid


class ProcessHandle:
    """A pidfd. It names this process and no other, also after the pid was given to somebody else.

    The owner closes it. Raises ProcessLookupError on creation if ``pid`` is gone.
    """

    __slots__ = ("_fd", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def alive(self) -> bool:
        """It has not ended (a zombie has)."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Signal it; nothing happens if it has ended."""
        try:
            signal.pidfd_send_signal(self._fd, signum)
        except ProcessLookupError:
            pass

    async def wait(self) -> None:
        """Wait until it has ended."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        fd = os.dup(self._fd)  # two waiters may wait on one handle; a loop knows a number once
        loop.add_reader(fd, lambda: ended.done() or ended.set_result(None))
        try:
            await ended
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def hold(pids: list[int]) -> list[ProcessHandle]:
    """Handles of those of ``pids`` that still live. Raises OSError (EMFILE); holds none then."""
    handles: list[ProcessHandle] = []
    for pid in pids:
        try:
            handles.append(ProcessHandle(pid))
        except ProcessLookupError:
            continue
        except OSError:
            for handle in handles:
                handle.close()
            raise
    return handles


async def end_all(handles: list[ProcessHandle], deadline: float) -> None:
    """Wait for all to end; at ``deadline`` (loop time) SIGKILL those left and wait for them.

    A process in uninterruptible sleep may outlast even that; after five more seconds it is left.
    """
    loop = asyncio.get_running_loop()
    waiting = {loop.create_task(handle.wait()) for handle in handles}
    if not waiting:
        return
    _, waiting = await asyncio.wait(waiting, timeout=max(0.0, deadline - loop.time()))
    if waiting:
        for handle in handles:
            handle.kill()
        _, waiting = await asyncio.wait(waiting, timeout=5.0)
    for task in waiting:
        task.cancel()
