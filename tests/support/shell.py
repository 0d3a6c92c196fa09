"""The command line as a person has it: in a terminal of some width."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path


class Terminal:
    """A program that runs in a terminal of its own."""

    def __init__(
        self, argv: list[str], env: Mapping[str, str], cwd: Path, *, columns: int = 80
    ) -> None:
        self._main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            argv,
            env={**env, "TERM": "xterm"},
            cwd=cwd,
            stdin=side,
            stdout=side,
            stderr=side,
            start_new_session=True,
        )
        os.close(side)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def press(self, *keys: str) -> None:
        """One after the other at a person's pace: tmux takes what is quicker for a paste."""
        for key in keys:
            time.sleep(0.1)
            self.type(key)

    def until(self, condition: Callable[[str], bool], seconds: float = 20) -> None:
        """Read until what was shown so far meets ``condition``."""
        deadline = time.monotonic() + seconds
        while not condition(self.shown):
            assert time.monotonic() < deadline, f"not shown in time:\n{self.shown}"
            assert self._read(0.2) or condition(self.shown), f"it ended:\n{self.shown}"

    def end(self, seconds: float = 20) -> int:
        """Read until it has ended; gives its status."""
        deadline = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < deadline, f"it did not end:\n{self.shown}"
        status = self.process.wait(seconds)
        os.close(self._main)
        return status

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _read(self, seconds: float) -> bool:
        """Read what comes; whether more may come."""
        if not select.select([self._main], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._main, 65536)
        except OSError:  # EIO: the last one that had the terminal is gone
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)
