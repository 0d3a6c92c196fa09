"""Where there is no cgroup for us: what rlimits and signals can do, and an honest word about it.

Memory is bounded for each process of the payload by RLIMIT_DATA, which counts what is private and
writable (setrlimit(2)), not the address space that V8 and others merely reserve. Their number is
bounded by the launcher (``--pids``, RLIMIT_NPROC in a user namespace of the payload's own). Of the
memory of all together each look at it takes care (``uphold``), so it may be exceeded between two.
Nothing bounds processor time.
"""

import asyncio
from collections.abc import Mapping

from csb_mcp.host.limits.files import NAME, NICER
from csb_mcp.host.limits.tree import Stopper, relieve
from csb_mcp.host.metrics import tree_usage
from csb_mcp.model import Sandbox, SandboxUsage

ENFORCED_BY: Mapping[str, str] = {
    "memory": "rlimit per process; a look now and then at their sum",
    "cpus": "nothing",
    "pids": "rlimit of the payload",
}
# A limit that was inherited may be lower already: then it stays.
_LIMIT = 'ulimit -d "$1" 2>/dev/null; shift; ' + NICER
_NEARLY = 0.98  # of the processes: the limit does not count the few outside the payload


class UnboundedRung:
    """Makes enclosures that need nothing of the host."""

    enforced_by = ENFORCED_BY

    def make(self, sandbox: Sandbox) -> "UnboundedEnclosure":
        """See :class:`~csb_mcp.ports.Limiter`."""
        return UnboundedEnclosure(sandbox)

    def find(self, sandbox: Sandbox) -> "UnboundedEnclosure":
        """See :class:`~csb_mcp.ports.Limiter`."""
        return UnboundedEnclosure(sandbox)


class UnboundedEnclosure:
    """See :class:`~csb_mcp.ports.Enclosure`. There is nothing to remove or to close."""

    walks = True
    prefix: tuple[str, ...] = ()
    enforced_by = ENFORCED_BY

    def __init__(self, sandbox: Sandbox) -> None:
        self._spec = sandbox.spec
        self._stopper = Stopper()
        self._hits = {"memory": 0, "pids": 0}

    @property
    def payload_prefix(self) -> tuple[str, ...]:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        kibibytes = str(max(1, self._spec.memory // 1024))
        return ("/bin/sh", "-c", _LIMIT, f"{NAME}-limit", kibibytes)

    def usage(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`. Some 60 microseconds for each process."""
        return tree_usage(root_pid)

    async def uphold(self, root_pid: int) -> SandboxUsage:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        found = await asyncio.to_thread(tree_usage, root_pid)
        if found.memory > self._spec.memory:
            self._hits["memory"] += await asyncio.to_thread(relieve, root_pid, self._spec.memory)
        self._hits["pids"] += found.processes >= self._spec.pids * _NEARLY
        return found

    def hits(self) -> Mapping[str, int]:
        """See :class:`~csb_mcp.ports.Enclosure`. Only what looks at the usage have seen or done."""
        return dict(self._hits)

    async def freeze(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        await self._stopper.stop(pane_pid)

    async def thaw(self, pane_pid: int) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
        await self._stopper.go_on(pane_pid)

    async def remove(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""

    def close(self) -> None:
        """See :class:`~csb_mcp.ports.Enclosure`."""
