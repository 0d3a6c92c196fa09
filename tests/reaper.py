"""Runs a command and answers for every process that it leaves behind, detached ones included.

It is the subreaper (PR_SET_CHILD_SUBREAPER, prctl(2)) of all below it: an orphan becomes its child,
not init's, so ``tests/conftest.py`` can see it (``CSB_TEST_REAPER`` is our pid). What still runs
after the command has ended and a short grace is named and killed, and the exit status is 1.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from csb_mcp.lib.processes import descendants, hold

PR_SET_CHILD_SUBREAPER = 36
GRACE = float(os.environ.get("CSB_TEST_GRACE", "5"))  # seconds that what was told to end may need


def main() -> int:
    """Run ``argv[1:]``; its exit status, or 1 if it left a process behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    command = subprocess.Popen(
        sys.argv[1:], env={**os.environ, "CSB_TEST_REAPER": str(os.getpid())}
    )
    status = reap_until(command.pid)
    left = reap_rest(time.monotonic() + GRACE)
    sys.stderr.writelines(f"left behind: {line}\n" for line in left)
    return status or bool(left)


def reap_until(pid: int) -> int:
    """Wait for ``pid`` and meanwhile for every orphan; a person's ^C goes to the command alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ended, status = os.wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def reap_rest(deadline: float) -> list[str]:
    """Command lines of what does not end by itself; it is killed."""
    while time.monotonic() < deadline:
        if not reap_ended():
            return []
        time.sleep(0.05)
    left = descendants(os.getpid())
    lines = [f"{pid} {command_line(pid)}" for pid in left]
    for handle in hold(left):
        handle.kill()
        handle.close()
    return lines


def reap_ended() -> bool:
    """Reap what has ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def command_line(pid: int) -> str:
    """What it was started as, in one short line; empty for a zombie and for what is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return " ".join(" ".join(words).split())[:200]


if __name__ == "__main__":
    sys.exit(main())
