"""The composition root: the one place that knows every piece by its class."""

import os
from dataclasses import dataclass

from csb_mcp.agents.claude import Claude
from csb_mcp.agents.codex import Codex
from csb_mcp.config import Settings
from csb_mcp.host.attack.prober import InsideProber
from csb_mcp.host.backends.bubblewrap import BubblewrapBackend
from csb_mcp.host.display.xvfb import XvfbDisplays
from csb_mcp.host.keeper import DiskKeeper
from csb_mcp.host.launchers import Launchers, find_tool
from csb_mcp.host.limits.ladder import HostLimiter
from csb_mcp.host.metrics import PsutilMeter
from csb_mcp.host.network.gates import HostGates
from csb_mcp.host.spool import InotifySpools
from csb_mcp.host.store import SqliteStore
from csb_mcp.host.terminal.tmux import TmuxTerminals
from csb_mcp.host.watcher import InotifyWatcher
from csb_mcp.service.agents.needs import with_own_keys
from csb_mcp.service.manager import Manager
from csb_mcp.service.pieces import Pieces


@dataclass(frozen=True, slots=True)
class App:
    """A built and restored service with its pieces. The caller closes it."""

    service: Manager
    pieces: Pieces

    async def close(self) -> None:
        """Let go of everything; sandboxes go on."""
        await self.service.close()


async def build(settings: Settings) -> App:
    """Put the pieces together and take up what an earlier daemon left.

    The folders of ``settings`` must exist. Raises StoreUnusable, HostUnable; nothing was changed
    then.
    """
    agents = {agent.name: agent for agent in (Claude(), Codex())}
    settings = with_own_keys(settings, agents.values(), os.environ)
    launchers = Launchers(settings.runtime_dir / "launchers", settings)
    launchers.install()
    bubblewrap = BubblewrapBackend(settings, launchers)
    pieces = Pieces(
        backends={bubblewrap.name: bubblewrap},
        displays=XvfbDisplays(launchers.path, find_tool("Xvfb", settings.xvfb), find_tool("lwm")),
        terminals=TmuxTerminals(settings.tmux),
        limiter=HostLimiter(settings),
        keeper=DiskKeeper(settings.runtime_dir, settings.state_dir),
        watcher=InotifyWatcher(),
        gates=HostGates(settings, launchers.path, agents.values()),
        prober=InsideProber(),
        spools=InotifySpools(),
        agents=agents,
    )
    store = await SqliteStore.open(settings.state_dir / "store.db")
    service = Manager(settings, pieces, store, PsutilMeter(settings.state_dir))
    try:
        await service.restore()
    except BaseException:
        await service.close()
        raise
    return App(service, pieces)
