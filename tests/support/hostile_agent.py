#!/usr/bin/python3 -IB
"""What runs in an agent's place: it draws what stands in the file ``screen`` of its folder.

It needs the standard library alone, for it runs in a sandbox, as a program of its own.
"""

import contextlib
import sys
import termios
import time
from pathlib import Path


def main() -> None:
    """Until it is killed."""
    quiet = termios.tcgetattr(0)
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(0, termios.TCSANOW, quiet)
    drawn = ""
    while True:
        with contextlib.suppress(OSError):
            if (wanted := Path("screen").read_text()) != drawn:
                drawn = wanted
                sys.stdout.write("\x1b[2J\x1b[3J\x1b[H" + drawn.rstrip("\n"))
                sys.stdout.flush()
        time.sleep(0.02)  # how often it looks what to draw; nothing inside could tell it


if __name__ == "__main__":
    main()
