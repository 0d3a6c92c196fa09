"""One process tree, measured and held still without a cgroup: by /proc and signals."""

import contextlib
import os
import signal
import time
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded
from csb_mcp.host.limits.files import poll
from csb_mcp.lib.processes import descendants, hold
from csb_mcp.model import SandboxUsage

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_STOP_SECONDS = 5.0
_QUIET_SECONDS = 0.1
# A process whose child of vfork is stopped waits for it in D, and runs no line of its own.
_STILL = "TtZXD"


def tree_usage(root_pid: int) -> SandboxUsage:
    """Sums over a tree. Walks the tree itself, not all of /proc.

    Threads count, as they do for the limit. What a process waited for is in its own times and io,
    so the sums go on growing when children end; a process that ends takes nothing with it.
    """
    tasks = memory = 0
    cpu = 0.0
    read, written = 0, 0
    told = True
    for pid in (root_pid, *descendants(root_pid)):
        fields = _stat(pid)
        if fields is None:
            continue
        cpu += sum(map(int, fields[11:15])) / _TICKS  # utime, stime, cutime, cstime
        tasks += int(fields[17])
        memory += int(fields[21]) * _PAGE
        io = _io(pid)
        told = told and io is not None
        read, written = read + (io or (0, 0))[0], written + (io or (0, 0))[1]
    return SandboxUsage(tasks, memory, cpu, read if told else None, written if told else None)


def _stat(pid: int) -> list[str] | None:
    """Fields of proc(5), stat, from the third on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _io(pid: int) -> tuple[int, int] | None:
    try:
        text = Path(f"/proc/{pid}/io").read_text()
    except FileNotFoundError:
        return 0, 0  # it has just ended
    except OSError:
        return None  # of another user
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields["read_bytes"]), int(fields["write_bytes"])


class Stopper:
    """Holds the payload below ``pane_pid`` still by SIGSTOP.

    The pane's own process, bwrap's outer one, is left alone: it only waits, and tmux sends SIGCONT
    to the group of a child of its own that stops. What the payload itself had stopped (^Z) stays so
    after the thaw, if the same daemon froze it.
    """

    def __init__(self) -> None:
        self._had_stopped: set[int] = set()

    async def stop(self, pane_pid: int) -> None:
        """Raises DeadlineExceeded; then it goes on."""
        self._had_stopped |= {pid for pid in descendants(pane_pid) if _state(pid) in "Tt"}
        signalled: set[int] = set()
        quiet = 0

        def still() -> bool:
            nonlocal quiet
            moving, ready = self._moving(pane_pid, signalled)
            _signal(ready, signal.SIGSTOP)
            signalled.update(ready)
            quiet = 0 if moving else quiet + 1  # twice: one look may miss what was just forked
            return quiet > 1

        try:
            await poll(still, _STOP_SECONDS, "the payload was not stopped")
        except DeadlineExceeded:
            await self.go_on(pane_pid)
            raise

    def _moving(self, pane_pid: int, signalled: set[int]) -> tuple[set[int], list[int]]:
        """What is not still yet; and of that, what may be stopped now: its parent is still.

        A shell must not see its child stop: it would take it for ^Z and prompt for the next line.
        """
        found = {pid: _stat(pid) for pid in descendants(pane_pid)}
        asked = signalled | self._had_stopped
        moving = {
            pid
            for pid, fields in found.items()
            if fields and fields[0] not in "ZX" and not (fields[0] in _STILL and pid in asked)
        }
        ready = [
            pid for pid in found if pid in moving and int((found[pid] or "00")[1]) not in moving
        ]
        return moving, ready

    async def go_on(self, pane_pid: int) -> None:
        """Children first, so that no parent finds its child stopped.

        script(1) stops itself when it learns, too late, that its child was stopped: hence looks
        until for a while none is.
        """
        last_stopped = time.monotonic()

        def running() -> bool:
            nonlocal last_stopped
            stopped = [
                pid
                for pid in reversed(descendants(pane_pid))
                if _state(pid) == "T" and pid not in self._had_stopped
            ]
            _signal(stopped, signal.SIGCONT)
            if stopped:
                last_stopped = time.monotonic()
            return time.monotonic() - last_stopped > _QUIET_SECONDS

        # A payload that goes on stopping processes of its own is not waited for.
        with contextlib.suppress(DeadlineExceeded):
            await poll(running, _STOP_SECONDS, "the payload did not go on")
        self._had_stopped.clear()


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else "X"


def _signal(pids: list[int], signum: int) -> None:
    """In this order."""
    for handle in hold(pids):
        handle.kill(signum)
        handle.close()
