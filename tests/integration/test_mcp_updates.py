"""Notices of what a real sandbox prints, draws and becomes, over the daemon's socket."""

import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from csb_mcp.app import App
from csb_mcp.transports.mcp.connections import Connections
from csb_mcp.transports.mcp.updates import Updates
from tests.support.mcp_peer import eventually, greeted
from tests.support.mcp_subscriber import LISTED, UPDATED, Subscriber
from tests.support.sandboxes import create, type_line

pytestmark = pytest.mark.once


@pytest.fixture
def updates(app: App) -> Updates:
    return Updates(app.service)


@pytest.fixture
async def path(app: App, updates: Updates, base: Path) -> AsyncIterator[Path]:
    connections = Connections(app.service, list, updates)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(base / "s"))
    server = await connections.listen(listener)
    yield base / "s"
    server.close()
    await connections.close()


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_whole_life_is_told(
    app: App, path: Path, updates: Updates, project: Path, era: str
) -> None:
    sandbox = (await create(app, project, name="web")).id
    record = f"csb://sandbox/{sandbox}"
    views = [record, *(f"{record}/{part}" for part in ("terminal", "screen", "log"))]
    async with greeted(path) as peer:
        client = Subscriber(era, peer)
        await client.begin()
        await client.subscribe(*views, "csb://sandboxes")
        await type_line(app.service, sandbox, "echo seen")
        await client.told((UPDATED, f"{record}/terminal"), (UPDATED, f"{record}/log"))
        await client.hear_for(1.0)  # the prompt, and on the screen what comes up after the start
        client.notices.clear()
        await client.hear_for(1.5)
        assert (UPDATED, f"{record}/terminal") not in client.notices, "told again and again"
        await type_line(app.service, sandbox, "xterm -e 'sleep 30' &")
        await client.told((UPDATED, f"{record}/screen"))
        client.notices.clear()
        await app.service.stop(sandbox)
        await client.told(*((UPDATED, uri) for uri in (*views, "csb://sandboxes")))
        await app.service.delete(sandbox)
        await client.told((LISTED, ""))
        # Both watches have ended with the sandbox; who follows events stays with the client.
        await eventually(lambda: updates.tasks == 1)
    await eventually(lambda: updates.tasks == 0)


async def test_watching_what_is_quiet_costs_next_to_nothing(
    app: App, path: Path, project: Path
) -> None:
    sandbox = (await create(app, project)).id
    async with greeted(path) as peer:
        client = Subscriber("modern", peer)
        await client.subscribe(*(f"csb://sandbox/{sandbox}/{part}" for part in ("log", "screen")))
        await app.service.read_terminal(sandbox, cursor=None, lines=None)
        await client.hear_for(2.0)
        client.notices.clear()
        shares = [await _share(client) for _ in range(2)]
    # The lesser: once there may be something else to do, as to look through other tests' garbage.
    assert min(shares) < 0.02, f"{shares} of a core while nothing happens; {client.notices}"


async def _share(client: Subscriber) -> float:
    used, began = time.process_time(), time.monotonic()
    await client.hear_for(2.0)
    return (time.process_time() - used) / (time.monotonic() - began)
