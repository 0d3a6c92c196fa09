"""What goes on over HTTP: events, live logs; and the ends of all of it."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from websockets.exceptions import InvalidStatus

from csb_mcp.errors import HelperFailed, StoreUnusable
from csb_mcp.lib.text import plain_text
from csb_mcp.transports.http import guard, server, streams
from csb_mcp.transports.http.plain import PlainText, whole
from csb_mcp.transports.mcp.http import StreamableHttp
from tests.contract.fake_service import FakeService
from tests.support.rest import DEADLINE, Station, eventually, heard, serving

LOG = "/ws/sandboxes/web/logs"
LONG = {"sandboxes": "web", "until": [{"port": 80}], "timeout": 40}


@pytest.fixture
async def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def station(service: FakeService, short_dir: Path) -> AsyncIterator[Station]:
    async with serving(service, short_dir / "s") as station, station.client() as client:
        await client.post("/api/sandboxes", json={"project_dir": "/p", "name": "web"})
        yield station
    assert service.readers + service.followers == 0


class EventReader:
    """Reads server-sent events."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.aiter_lines()

    async def block(self) -> list[str]:
        """Lines up to the next empty one; none at the end."""
        found: list[str] = []
        async with asyncio.timeout(DEADLINE):
            async for line in self._lines:
                if not line:
                    return found
                found.append(line)
        return found

    async def event(self) -> tuple[str, dict[str, Any]]:
        """Id and data of the next event."""
        name, data = await self.block()
        return name.removeprefix("id: "), json.loads(data.removeprefix("data: "))


async def test_events_as_they_happen(station: Station, service: FakeService) -> None:
    service.happen("created")
    async with station.client() as client, client.stream("GET", "/api/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        reader = EventReader(response)
        service.happen("stopped", "web", why="a\nb\x1b[31m")
        name, data = await reader.event()
        assert name == "2"
        assert data == {
            "sequence": 2,
            "time": "2023-11-14T22:13:20.500Z",
            "sandbox": "web",
            "kind": "stopped",
            "data": {"why": "a\nb"},
        }
    await eventually(lambda: service.readers + service.followers == 0)


@pytest.mark.parametrize(
    ("query", "headers", "after"),
    [
        ("?after=0", {}, 0),
        ("", {"last-event-id": "1"}, 1),
        ("?after=0", {"last-event-id": "1"}, 0),
        ("", {"last-event-id": "rubbish"}, None),
    ],
)
async def test_events_from_a_place_on(
    station: Station, service: FakeService, query: str, headers: dict[str, str], after: int | None
) -> None:
    service.happen("created")
    service.happen("ready")
    async with (
        station.client() as client,
        client.stream("GET", f"/api/events{query}", headers=headers) as response,
    ):
        assert service.arguments == {"after": after}
        if after is not None:
            name, _ = await EventReader(response).event()
            assert name == str(after + 1)


async def test_a_quiet_stream_is_kept_alive(
    station: Station, monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE", 0.05)
    async with station.client() as client, client.stream("GET", "/api/events") as response:
        reader = EventReader(response)
        for _ in range(3):
            assert (await reader.block())[0].startswith(":")
        service.happen("created")
        while (block := await reader.block())[0].startswith(":"):
            pass
        assert block[0] == "id: 1"


async def test_a_stream_that_breaks_says_why(station: Station, service: FakeService) -> None:
    service.error = StoreUnusable("it is full", hint="make room")
    async with station.client() as client, client.stream("GET", "/api/events") as response:
        reader = EventReader(response)
        event, data = await reader.block()
        assert event == "event: problem"
        assert json.loads(data.removeprefix("data: "))["hint"] == "make room"
        assert await reader.block() == []


async def test_a_live_log_from_backlog_to_end(station: Station, service: FakeService) -> None:
    async with station.live(LOG) as log:
        await eventually(lambda: service.readers + service.followers == 1)
        service.print("é\x1b[1".encode())
        service.print(b"mbold\r")
        await log.send("nobody listens")
        service.print(b"\nlast")
        await service.stop("web")
        assert await heard(log) == ("one\ntwo\nébold\nlast", 1000, "the sandbox has ended")


async def test_a_live_log_raw_and_from_a_place_on(station: Station, service: FakeService) -> None:
    await service.stop("web")
    async with station.live(f"{LOG}?raw=true&offset=5") as log:
        assert (await heard(log))[0] == service.log[5:]
    async with station.live(f"{LOG}?offset=5") as log:
        assert (await heard(log))[0] == "two\n"


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/ws/sandboxes/none/logs", 404, "not_found"),
        (f"{LOG}?offset=-1", 400, "invalid_input"),
        (f"{LOG}?colour=1", 400, "invalid_input"),
    ],
)
async def test_a_live_log_is_refused_before_it_opens(
    station: Station, target: str, status: int, code: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await station.live(target)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"")["code"] == code


async def test_a_live_log_that_breaks_says_why(station: Station, service: FakeService) -> None:
    service.error = HelperFailed("x" * 500)
    async with station.live(LOG) as log:
        _, code, reason = await heard(log)
        assert code == 1011
        assert (reason or "").startswith("xxx")


async def test_a_defect_in_a_live_log_tells_a_mark(
    station: Station, service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service.error = RuntimeError("secret")
    async with station.live(LOG) as log:
        _, code, reason = await heard(log)
    assert (code, "secret" in (reason or "")) == (1011, False)
    mark = (reason or "").split()[-1]
    assert [record for record in caplog.records if mark in record.getMessage()]


async def test_a_reader_that_leaves_is_let_go(station: Station, service: FakeService) -> None:
    async with station.live(LOG):
        await eventually(lambda: service.readers + service.followers == 1)
    await eventually(lambda: service.readers + service.followers == 0)


async def test_a_slow_reader_is_cut_off_and_holds_up_nobody(
    station: Station, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SLOW", 0.3)
    before = station.server.count
    request = f"GET {LOG} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    request += "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    for target in (request, "GET /api/events?after=0 HTTP/1.1\r\nhost: x\r\n\r\n"):
        service.log = b"x" * 2_000_000
        if "events" in target:
            for _ in range(2000):
                service.happen("noise", "web", text="x" * 1000)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.setblocking(False)
            deaf.connect(str(station.path))
            deaf.send(target.encode())
            await eventually(lambda: service.readers + service.followers == 1)
            async with station.client() as client:
                assert (await client.get("/healthz")).status_code == 200
            await eventually(
                lambda: service.readers + service.followers == 0 and station.server.count <= before
            )


async def test_closing_ends_calls_streams_and_logs(station: Station, service: FakeService) -> None:
    async with (
        station.client() as client,
        client.stream("GET", "/api/events") as events,
        station.live(LOG) as log,
    ):
        wait = asyncio.create_task(client.post("/api/wait", json=LONG))
        await service.waiting.wait()
        await eventually(lambda: service.readers + service.followers == 2)
        await station.server.close()
        assert await EventReader(events).block() == []
        assert (await heard(log))[1:] == (1012, "the daemon is ending")
        answer = await wait
    assert (answer.status_code, answer.json()["code"]) == (503, "ending")
    assert service.waits_cancelled == 1
    assert station.server.count == 0
    assert service.sandboxes


async def test_closing_does_not_wait_for_the_deaf(
    station: Station, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DRAIN", 0.2)
    service.log = b"x" * 2_000_000
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.setblocking(False)
        deaf.connect(str(station.path))
        for _ in range(3):
            deaf.send(b"GET /api/sandboxes/web/logs?limit=1048576 HTTP/1.1\r\nhost: x\r\n\r\n")
        await eventually(lambda: "read_log" in service.calls)
        async with asyncio.timeout(DEADLINE):
            await station.server.close()
        assert station.server.count == 0


async def test_strangers_are_turned_away(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    def somebody(_: object) -> int:
        return 4_000_000

    monkeypatch.setattr(server, "peer_uid", somebody)
    answer = b""
    with contextlib.suppress(ConnectionError):  # it may be gone before we said anything
        answer = await station.raw(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer == b""
    assert station.server.count <= 1  # the fixture's own


async def test_a_crowd_is_told_to_come_later(
    station: Station, monkeypatch: pytest.MonkeyPatch, service: FakeService
) -> None:
    monkeypatch.setattr(guard, "MAX_AT_ONCE", 1)
    async with station.client() as client:
        async with client.stream("GET", "/api/events"):
            busy = await client.get("/healthz")
            assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        await eventually(lambda: service.readers + service.followers == 0)
        assert (await client.get("/healthz")).status_code == 200
        monkeypatch.setattr(server, "MAX_CONNECTIONS", 0)
    async with station.client() as client:
        with pytest.raises(httpx2.TransportError):
            await client.get("/healthz")


async def test_many_at_once(station: Station) -> None:
    async with station.client() as client:
        answers = await asyncio.gather(*(client.get("/api/sandboxes") for _ in range(200)))
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_mcp_is_served_beside_rest(
    service: FakeService, short_dir: Path, era: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mcp = StreamableHttp(service)
    async with serving(
        service, short_dir / "s", mounts=mcp.routes, lifespan=mcp.lifespan
    ) as station:
        transport = httpx2.AsyncHTTPTransport(uds=str(station.path))
        async with (
            httpx2.AsyncClient(transport=transport, timeout=60) as http,
            Client(streamable_http_client("http://csb/mcp", http_client=http), mode=era) as client,
        ):
            assert (await client.call_tool("metrics", {})).structured_content
            await client.call_tool("create_sandbox", {"project_dir": "/p", "name": "web"})
            async with station.client() as rest:
                assert len((await rest.get("/api/sandboxes")).json()) == 1
            call = asyncio.create_task(client.call_tool("wait", LONG))
            await service.waiting.wait()
            await station.server.close()
            assert service.waits_cancelled == 1
            call.cancel()
            await asyncio.wait({call})
    assert not [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


PIECES = st.lists(
    st.sampled_from(["a", "é", "😀", "\r", "\n", "\x1b[31m", "\x1b]0;t\x07", "\x1b(B", " "]),
    max_size=20,
)


@given(pieces=PIECES, cuts=st.lists(st.integers(1, 9), min_size=1))
def test_parts_of_a_log_make_the_whole_text(pieces: list[str], cuts: list[int]) -> None:
    data = "".join(pieces).encode()
    reader, text, position = PlainText(), "", 0
    for index in range(len(data)):
        size = cuts[index % len(cuts)]
        text += reader.feed(data[position : position + size])
        position += size
    assert text + reader.rest() == plain_text("".join(pieces))


@given(data=st.binary(max_size=40))
def test_a_part_is_never_cut_to_nothing(data: bytes) -> None:
    first, last = whole(data)
    assert 0 <= first <= last <= len(data)
    assert first < last or not data
