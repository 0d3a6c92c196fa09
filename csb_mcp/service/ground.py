"""What a sandbox stands on before its payload begins: made, shown its project, undone.

Folders, limits, the terminal with display and way out beside it, and a launcher that waits. All of
it can be made before anybody asks for a sandbox: then it is a spare.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import replace

from csb_mcp.errors import CsbError, TerminalFailed
from csb_mcp.model import Folders, Launch, Sandbox
from csb_mcp.ports import Enclosure, Terminal
from csb_mcp.service.pieces import Pieces

_log = logging.getLogger(__name__)
_UNDO_SECONDS = 10.0
_KILL_SECONDS = 0.5


class Ground:
    """One sandbox's. :meth:`undo` leaves nothing of it.

    ``terminal`` is the root of what runs, ``enclosure`` what bounds it, once they are made;
    ``beside`` names what runs beside the payload. ``stage``: what is being done, for an error.
    """

    def __init__(self, pieces: Pieces, sandbox: Sandbox) -> None:
        self._pieces = pieces
        self.sandbox = sandbox
        self.folders: Folders = pieces.keeper.folders(sandbox.id)
        self.stage = "folders"
        self.enclosure: Enclosure | None = None
        self.terminal: Terminal | None = None
        self.beside: Mapping[str, Launch] = {}
        self._launch: Launch | None = None
        self._shown = False
        self._outlook: object = None

    async def lay(self, project_fd: int | None) -> None:
        """Make folders and limits. ``project_fd``: the project, if it is known already."""
        pieces, sandbox, spec = self._pieces, self.sandbox, self.sandbox.spec
        await pieces.keeper.make(self.folders, sandbox.uid)
        self.stage = "prepare"
        self.enclosure = await pieces.limiter.make(sandbox)
        self._outlook = pieces.gates.outlook(spec.network)
        proxy = await pieces.gates.ground(sandbox, self.folders)
        backend = pieces.backends[spec.backend]
        launch = await backend.ground(sandbox, self.folders, project_fd)
        self._launch, self._shown = _enclosed(launch, self.enclosure), project_fd is not None
        screen = await pieces.displays.prepare(self.folders, spec.geometry, gl=spec.gl)
        # In this order they start: the proxy takes longest.
        self.beside = ({"egress": proxy} if proxy else {}) | {"display": screen}

    async def start(self, deadline: float) -> None:
        """Start what was laid. Raises TerminalFailed, DeadlineExceeded."""
        if self._launch is None:
            raise TerminalFailed("nothing was laid to be started")
        self.terminal = await self._pieces.terminals.start(
            self.folders, self._launch, self.beside, deadline
        )

    async def show_project(self, project_fd: int) -> None:
        """Show it the project, if it was started without one. Raises HostUnable, TerminalFailed."""
        if self._shown or self.terminal is None:
            return
        backend = self._pieces.backends[self.sandbox.spec.backend]
        namespace = self.terminal.mount_namespace()
        try:
            await backend.show_project(self.sandbox, self.folders, project_fd, namespace)
        finally:
            os.close(namespace)
        self._shown = True

    async def sound(self) -> bool:
        """Whether all that was started still runs, and the host's network is what it was."""
        if self.terminal is None or not self.terminal.running:
            return False
        if self._outlook != self._pieces.gates.outlook(self.sandbox.spec.network):
            return False
        try:
            ended = [await self.terminal.error_beside(name) for name in self.beside]
        except CsbError:
            return False
        return ended == [None] * len(ended)

    async def undo(self) -> bool:
        """End what runs and remove what was made. Every step is tried, whatever the others do.

        False if something of it still runs: then its folders stay, for who tries again finds it by
        them. Raises HostUnable if they cannot be removed.
        """
        ended = await self._end_tree(asyncio.get_running_loop().time() + _UNDO_SECONDS)
        removed = await self._remove_limits()
        if removed and not ended:  # with its limits goes what still ran below them
            ended = await self._end_tree(asyncio.get_running_loop().time() + _KILL_SECONDS)
        if ended:
            await self._pieces.keeper.remove(self.folders)
        return ended and removed

    async def _end_tree(self, deadline: float) -> bool:
        terminal = self.terminal
        try:
            if terminal is None:  # cancelled, perhaps, while tmux was starting: the lifeline tells
                terminal = await self._pieces.terminals.adopt(self.folders, deadline)
            if terminal is not None:
                await terminal.kill(asyncio.get_running_loop().time() + _KILL_SECONDS)
        except CsbError as error:
            _log.warning("sandbox %s: its tree was not ended: %s", self.sandbox.id, error)
            return False
        finally:
            self.terminal = None
            if terminal is not None:
                await terminal.close()
        return True

    async def _remove_limits(self) -> bool:
        try:
            if self.enclosure is not None:
                await self.enclosure.remove()
        except Exception:  # noqa: BLE001 - logged; every step is tried
            _log.exception("sandbox %s: its limits were not removed", self.sandbox.id)
            return False
        return True


def _enclosed(launch: Launch, enclosure: Enclosure) -> Launch:
    return replace(
        launch,
        argv=(*enclosure.payload_prefix, *launch.argv),
        prefix=(*enclosure.prefix, *launch.prefix),
    )
