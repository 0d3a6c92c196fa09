"""Ways out of sandboxes by an egress proxy each."""

from collections.abc import Callable, Sequence
from pathlib import Path

from csb_mcp.config import Settings
from csb_mcp.errors import EgressFailed
from csb_mcp.model import Connection, Folders, Problem, Sandbox
from csb_mcp.ports import ClientOf, Gate, WayOut


class HostGates:
    """See :class:`~csb_mcp.ports.Gates`. ``launcher``: absolute path of a launcher by its name."""

    def __init__(self, settings: Settings, launcher: Callable[[str], Path]) -> None:
        self._settings = settings
        self._launcher = launcher

    def problems(self) -> Sequence[Problem]:
        """See :class:`~csb_mcp.ports.Gates`."""
        return ()

    async def prepare(self, sandbox: Sandbox, folders: Folders) -> WayOut:
        """See :class:`~csb_mcp.ports.Gates`."""
        return WayOut()

    async def connect(
        self, sandbox: Sandbox, folders: Folders, client_of: ClientOf, deadline: float
    ) -> Gate:
        """See :class:`~csb_mcp.ports.Gates`."""
        raise EgressFailed("this network has no proxy", sandbox=sandbox.id)

    def connections(self, folders: Folders, limit: int) -> Sequence[Connection]:
        """See :class:`~csb_mcp.ports.Gates`."""
        return ()
