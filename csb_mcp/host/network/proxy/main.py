"""The program: ``--door DIR --control DIR --log DIR [--allow PATTERN]... [--parent PID]``.

It lets nothing out until there are rules: from the daemon over the control socket, or, with
``--allow``, once and for all (an empty pattern: nothing). It ends by SIGTERM or SIGHUP, and with
the parent that it is given.
"""

import _thread
import os
import sys

from csb_mcp.host.network.proxy.control import Control
from csb_mcp.host.network.proxy.door import Door
from csb_mcp.host.network.proxy.journal import Journal
from csb_mcp.host.network.proxy.loop import READ, Loop
from csb_mcp.host.network.proxy.proxy import Proxy
from csb_mcp.host.network.proxy.rules import Rules
from csb_mcp.host.network.proxy.shared import Shared

_STACK = 512 << 10  # bytes for each thread


class _Options:
    """Of the command line. Raises ValueError."""

    def __init__(self, words: list[str]) -> None:
        self.allow: list[str] = []
        self.folders: dict[str, str] = {}
        self.parent = 0
        names = iter(words)
        for name in names:
            value = next(names, None)
            if value is None:
                raise ValueError(f"{name} needs a value")
            self._take(name, value)
        for wanted in ("--door", "--control", "--log"):
            if wanted not in self.folders:
                raise ValueError(f"{wanted} is missing")

    def _take(self, name: str, value: str) -> None:
        if name == "--allow":
            self.allow.append(value)
        elif name == "--parent":
            self.parent = int(value)
        elif name in ("--door", "--control", "--log"):
            self.folders[name] = value
        else:
            raise ValueError(f"there is no option {name}")


def main(words: list[str] | None = None) -> int:
    """Serve until told to end; 2 if it could not start."""
    try:
        options = _Options(sys.argv[1:] if words is None else words)
        rules = Rules(filter(None, options.allow), fixed=bool(options.allow))
        _serve(options, rules)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"csb egress: {error}\n")
        return 2
    return 0


def _serve(options: _Options, rules: Rules) -> None:
    loop = Loop()
    journal = Journal(options.folders["--log"], loop.later)
    shared = Shared(loop, rules, journal)
    proxy = Proxy(shared)
    Control(os.path.join(options.folders["--control"], "control.sock"), shared, proxy)
    Door(os.path.join(options.folders["--door"], "door.sock"), loop, proxy.add)
    _settle(loop, options.parent)
    loop.run()
    proxy.end()


def _settle(loop: Loop, parent: int) -> None:
    """After it listens, for what this imports takes a moment; before it hears anybody."""
    from csb_mcp.host.network.proxy.confine import (  # noqa: PLC0415
        confine,
        end_by_signals,
        give_memory_back,
    )

    _thread.stack_size(_STACK)
    give_memory_back()
    end_by_signals(loop)
    if parent:
        fd = os.pidfd_open(parent)
        loop.watch(fd, READ, loop.end)
    if not confine():
        sys.stderr.write("csb egress: this kernel cannot scope abstract sockets\n")
