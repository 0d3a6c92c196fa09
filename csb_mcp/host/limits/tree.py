"""One process tree, relieved and held still without a cgroup: by /proc and signals."""

import contextlib
import re
import signal
import time
from pathlib import Path

from csb_mcp.errors import DeadlineExceeded
from csb_mcp.host.limits.files import poll
from csb_mcp.lib.processes import descendants, hold, stat_fields

_STOP_SECONDS = 5.0
_QUIET_SECONDS = 0.1
# A process whose child of vfork is stopped waits for it in D, and runs no line of its own.
_STILL = "TtZXD"


def relieve(root_pid: int, limit: int) -> bool:
    """Kill the greatest of a tree that takes more than ``limit`` bytes; whether one was killed.

    Counted are proportional sets: what processes share counts once. Terminal, display and helper
    are spared: those that are not inside, in a pid namespace of their own, or are its PID 1.
    """
    sizes = {pid: _proportional(pid) for pid in (root_pid, *descendants(root_pid))}
    hogs = {pid: size for pid, size in sizes.items() if _is_payload(pid)}
    if sum(sizes.values()) <= limit or not hogs:
        return False
    _signal([max(hogs, key=lambda pid: hogs[pid])], signal.SIGKILL)
    return True


def _proportional(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended, or is of another user
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024


def _is_payload(pid: int) -> bool:
    """By where it is (proc(5), NSpid), not by what it may say of itself (oom_score_adj)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
    numbers = re.search(r"^NSpid:\t(.*)$", status, re.MULTILINE)
    return bool(numbers) and len(numbers[1].split()) > 1 and numbers[1].split()[-1] != "1"


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
            await poll(still, _STOP_SECONDS, "the payload was not stopped", in_thread=True)
        except DeadlineExceeded:
            await self.go_on(pane_pid)
            raise

    def _moving(self, pane_pid: int, signalled: set[int]) -> tuple[set[int], list[int]]:
        """What is not still yet; and of that, what may be stopped now: its parent is still.

        A shell must not see its child stop: it would take it for ^Z and prompt for the next line.
        """
        found = {pid: stat_fields(pid) for pid in descendants(pane_pid)}
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
            await poll(running, _STOP_SECONDS, "the payload did not go on", in_thread=True)
        self._had_stopped.clear()


def _state(pid: int) -> str:
    fields = stat_fields(pid)
    return fields[0] if fields else "X"


def _signal(pids: list[int], signum: int) -> None:
    """In this order."""
    for handle in hold(pids):
        handle.kill(signum)
        handle.close()
