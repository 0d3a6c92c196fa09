"""Notices of change over the Unix socket, in both protocol eras, and what they cost."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from csb_mcp.errors import DisplayFailed, SandboxEnded
from csb_mcp.model import Event
from csb_mcp.transports.mcp import updates as under_test
from csb_mcp.transports.mcp import watching
from csb_mcp.transports.mcp.connections import Connections
from csb_mcp.transports.mcp.updates import Updates
from tests.contract.fake_service import FakeService
from tests.support.mcp_peer import HELLO, eventually, greeted
from tests.support.mcp_subscriber import LISTED, TOOLS, UPDATED, Subscriber

ERAS = ("legacy", "modern")
WEB = "csb://sandbox/web"
WAY_OUT = {"egress", "allow_host", "deny_host"}
WANTED = {"project_dir": "/p", "name": "web"}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def updates(service: FakeService) -> Updates:
    return Updates(service)


@pytest.fixture
async def path(service: FakeService, updates: Updates, short_dir: Path) -> AsyncIterator[Path]:
    connections = Connections(service, list, updates)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_dir / "s"))
    server = await connections.listen(listener)
    yield short_dir / "s"
    server.close()
    await connections.close()
    assert (updates.tasks, service.followers, service.watched) == (0, 0, 0)


@asynccontextmanager
async def subscriber(path: Path, era: str, uris: Sequence[str] = ()) -> AsyncGenerator[Subscriber]:
    async with greeted(path) as peer:
        client = Subscriber(era, peer)
        await client.begin()
        await client.said("tools/call", name="create_sandbox", arguments=WANTED)
        await client.subscribe(*uris)
        yield client


async def test_what_is_promised_is_announced(path: Path) -> None:
    async with greeted(path) as old, greeted(path) as new:
        await old.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
        capabilities = (await old.hear())["result"]["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
        assert capabilities["tools"] == {"listChanged": True}
        await new.ask("server/discover")
        capabilities = (await new.hear())["result"]["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": True}


@pytest.mark.parametrize("era", ERAS)
async def test_events_are_told_to_those_who_asked(
    path: Path, service: FakeService, era: str
) -> None:
    async with subscriber(path, era, ["csb://sandboxes", WEB]) as client:
        await eventually(lambda: service.followers == 1)
        service.happen("created", "00000000")
        await client.told((LISTED, ""), (UPDATED, "csb://sandboxes"), (UPDATED, WEB))
        client.notices.clear()
        service.happen("warning", "elsewhere")
        await client.told((UPDATED, "csb://sandboxes"))
        await client.quiet()
        assert (UPDATED, WEB) not in client.notices


async def test_a_session_that_chose_its_tools_is_told_of_no_others(path: Path) -> None:
    async with greeted(path, toolsets=["core"]) as old:
        await old.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
        capabilities = (await old.hear())["result"]["capabilities"]
        assert capabilities["tools"] == {"listChanged": False}


@pytest.mark.parametrize("era", ERAS)
async def test_tools_for_a_host_that_is_asked_for_come_and_go(
    path: Path, service: FakeService, era: str
) -> None:
    async with subscriber(path, era) as client:
        await eventually(lambda: service.followers == 1)
        assert not WAY_OUT & await names(client)
        service.ask("web", "h.example")
        await client.told((TOOLS, ""))
        assert await names(client) >= WAY_OUT
        client.notices.clear()
        service.ask("web", "other.example")  # the list is as it was
        await client.quiet()
        assert (TOOLS, "") not in client.notices
        answer = {"name": "deny_host", "arguments": {"sandbox": "web", "host": "other.example"}}
        assert "result" in await client.said("tools/call", **answer)
        await client.told((TOOLS, ""))
        assert not WAY_OUT & await names(client)


@pytest.mark.parametrize("era", ERAS)
async def test_tools_of_the_way_out_are_listed_no_more_when_who_asked_is_gone(
    path: Path, service: FakeService, era: str
) -> None:
    async with subscriber(path, era) as client:
        await eventually(lambda: service.followers == 1)
        service.ask("web", "h.example")
        await client.told((TOOLS, ""))
        client.notices.clear()
        await service.delete("web")
        service.happen("deleted", "00000000")
        await client.told((TOOLS, ""))


async def names(client: Subscriber) -> set[str]:
    """What is listed now."""
    return {tool["name"] for tool in (await client.said("tools/list"))["result"]["tools"]}


@pytest.mark.parametrize("era", ERAS)
async def test_output_and_drawing_are_told_by_their_own_names(
    path: Path, service: FakeService, era: str
) -> None:
    watched = [f"{WEB}/terminal", "csb://sandbox/0000/log", f"{WEB}/screen"]
    async with subscriber(path, era, watched) as client:
        await eventually(lambda: service.watched == 2)  # terminal and log by one task
        service.printed.beat()
        await client.told((UPDATED, watched[0]), (UPDATED, watched[1]))
        assert (UPDATED, watched[2]) not in client.notices
        service.drawn.beat()
        await client.told((UPDATED, watched[2]))


@pytest.mark.parametrize("era", ERAS)
async def test_what_the_agent_does_and_uses_is_told(
    path: Path, service: FakeService, era: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Eight notices of one resource; that they come seldom is another test's.
    monkeypatch.setattr(under_test, "_APART", 0.05)
    async with subscriber(path, era, [f"{WEB}/agent", f"{WEB}/terminal"]) as client:
        await eventually(lambda: (service.followers, service.watched) == (1, 2))
        for kind in ("agent_state", "agent_error", "question", "turn_finished", "budget", "stuck"):
            client.notices.clear()
            service.happen(kind, "00000000")
            await client.told((UPDATED, f"{WEB}/agent"))
            assert (UPDATED, f"{WEB}/terminal") not in client.notices
        client.notices.clear()
        service.spend(5)
        await client.told((UPDATED, f"{WEB}/agent"))
        client.notices.clear()
        service.happen("warning", "00000000")
        service.happen("question", "elsewhere")
        await client.hear_for(0.2)
        assert (UPDATED, f"{WEB}/agent") not in client.notices


@pytest.mark.parametrize("era", ERAS)
async def test_an_end_is_told_for_every_view(path: Path, service: FakeService, era: str) -> None:
    watched = [WEB, *(f"{WEB}/{part}" for part in ("agent", "terminal", "screen", "log"))]
    async with subscriber(path, era, watched) as client:
        await eventually(lambda: service.followers == 1)
        service.happen("stopped", "00000000")
        await client.told(*((UPDATED, uri) for uri in watched))


@pytest.mark.parametrize("era", ERAS)
async def test_many_changes_are_few_notices(path: Path, service: FakeService, era: str) -> None:
    watched = [WEB, f"{WEB}/terminal"]
    async with subscriber(path, era, watched) as client:
        await eventually(lambda: service.followers == service.watched == 1)
        began = time.monotonic()
        for _ in range(100):
            service.happen("warning", "00000000")
            service.printed.beat()
            await asyncio.sleep(0.01)
        await eventually(lambda: time.monotonic() > began + 1.7)
        await client.said("tools/list")
        seconds = time.monotonic() - began
        for uri in watched:
            count = client.notices.count((UPDATED, uri))
            assert 2 <= count <= seconds / 0.5 + 1


@pytest.mark.parametrize("era", ERAS)
async def test_who_left_off_is_told_no_more(
    path: Path, service: FakeService, updates: Updates, era: str
) -> None:
    watched = [WEB, f"{WEB}/terminal", f"{WEB}/screen"]
    async with subscriber(path, era, watched) as client:
        await eventually(lambda: service.watched == 2)
        await client.unsubscribe(*watched)
        await eventually(lambda: service.watched == 0)
        service.happen("stopped", "00000000")
        await client.quiet()
        # A client of the handshake era hears of lists as long as it is there.
        assert updates.tasks == (era == "legacy")


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_is_gone_leaves_no_task(
    path: Path, service: FakeService, updates: Updates, era: str
) -> None:
    watched = [WEB, f"{WEB}/terminal", f"{WEB}/screen"]
    async with subscriber(path, era, watched):
        await eventually(lambda: service.watched == 2)
        service.happen("warning", "00000000")
        service.happen("warning", "00000000")
    await eventually(lambda: updates.tasks == service.watched == service.followers == 0)


async def test_one_source_serves_all(path: Path, service: FakeService, updates: Updates) -> None:
    watched = [WEB, f"{WEB}/terminal"]
    async with subscriber(path, "legacy", watched) as old:
        async with subscriber(path, "modern", watched) as new:
            await eventually(lambda: service.watched == 1)
            assert (service.followers, updates.tasks) == (1, 2)
            service.printed.beat()
            for client in (old, new):
                await client.told((UPDATED, watched[1]))
        await eventually(lambda: (updates.tasks, service.watched) == (2, 1))


async def test_nobody_there_costs_nothing(path: Path, service: FakeService) -> None:
    async with greeted(path) as peer:
        await peer.ask("tools/list")
        await peer.hear()
        assert (service.followers, service.watched) == (0, 0)


@pytest.mark.parametrize("era", ERAS)
async def test_what_does_not_exist_is_never_told_of(
    path: Path, service: FakeService, updates: Updates, era: str
) -> None:
    async with subscriber(path, era, ["test://else", "csb://sandbox/zz/terminal"]) as client:
        await eventually(lambda: service.followers == 1)
        service.happen("warning", "zz")
        await client.quiet()
        assert updates.tasks == 1


async def test_a_slow_client_is_told_each_thing_once(
    path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_APART", 0.1)
    async with subscriber(path, "legacy", [WEB]) as client:
        await eventually(lambda: service.followers == 1)
        for _ in range(400):  # more answers than buffers hold, and none is read
            await client.peer.ask("tools/list")
        for _ in range(5):
            service.happen("warning", "00000000")
            await asyncio.sleep(0.15)
        answers = 0
        while answers < 400:
            heard = await client.peer.hear()
            answers += "id" in heard
            if "id" not in heard:
                client.keep(heard)
        assert 1 <= client.notices.count((UPDATED, WEB)) <= 2


async def test_too_many_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_MAX_WATCHED", 3)
    async with greeted(path) as peer:
        wanted = {"resourceSubscriptions": [f"test://{number}" for number in range(4)]}
        await peer.ask("subscriptions/listen", notifications=wanted)
        assert "too many" in (await peer.hear())["error"]["message"]


async def test_a_watch_survives_a_failure_and_ends_with_its_sandbox(
    path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_AGAIN", 0.01)
    monkeypatch.setattr(watching, "_AFTER_DEFECT", 0.01)
    async with subscriber(path, "modern") as client:
        service.error = DisplayFailed("is dark")
        await client.subscribe(f"{WEB}/screen")
        await eventually(lambda: service.calls.count("screenshot") > 3)
        calls, service.error = service.calls.count("screenshot"), ValueError("a defect of ours")
        await eventually(lambda: service.calls.count("screenshot") > calls + 3)
        service.error = None
        await eventually(lambda: service.watched == 1)
        service.error = SandboxEnded("has ended")
        service.drawn.beat()
        await eventually(lambda: service.watched == 0)
        calls = service.calls.count("screenshot")
        await client.quiet()
        assert service.calls.count("screenshot") == calls


async def test_events_are_followed_again_after_a_defect(
    path: Path, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "_AGAIN", 0.01)
    events, tries = service.events, 0

    def broken_once(after: int | None = None) -> AsyncIterator[Event]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ValueError("a defect of ours")
        return events(after)

    monkeypatch.setattr(service, "events", broken_once)
    async with subscriber(path, "modern", [WEB]) as client:
        await eventually(lambda: service.followers == 1)
        service.happen("warning", "00000000")
        await client.told((UPDATED, WEB))
    assert tries > 1
