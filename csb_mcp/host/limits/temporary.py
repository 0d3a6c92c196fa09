"""Stand-in until the real one lands."""

import os
import signal
from collections.abc import Mapping, Sequence

from csb_mcp.host.metrics import PsutilMeter
from csb_mcp.lib.processes import descendants
from csb_mcp.model import Problem, Sandbox, SandboxUsage


class Nothing:
    prefix: tuple[str, ...] = ()
    payload_prefix: tuple[str, ...] = ()
    enforced_by: Mapping[str, str] = {"memory": "nothing", "pids": "rlimit", "cpus": "nothing"}

    def __init__(self, meter: PsutilMeter) -> None:
        self._meter = meter

    def usage(self, root_pid: int) -> SandboxUsage:
        return self._meter.tree(root_pid)

    def hits(self) -> Mapping[str, int]:
        return {}

    async def freeze(self, root_pid: int) -> None:
        for pid in [root_pid, *descendants(root_pid)]:
            os.kill(pid, signal.SIGSTOP)

    async def thaw(self, root_pid: int) -> None:
        for pid in [root_pid, *descendants(root_pid)]:
            os.kill(pid, signal.SIGCONT)

    async def remove(self) -> None: ...

    def close(self) -> None: ...


class Limits:
    def __init__(self, meter: PsutilMeter) -> None:
        self._meter = meter

    def problems(self) -> Sequence[Problem]:
        return ()

    async def make(self, sandbox: Sandbox) -> Nothing:
        return Nothing(self._meter)

    def adopt(self, sandbox: Sandbox) -> Nothing:
        return Nothing(self._meter)
