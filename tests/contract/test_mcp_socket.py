"""MCP over a Unix socket: the preface, the framing, and ends of all kinds."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp import __version__
from csb_mcp.model import CommandResult, Problem
from csb_mcp.transports.mcp import connections as under_test
from csb_mcp.transports.mcp.connections import Connections
from csb_mcp.transports.mcp.lines import MAX_LINE
from tests.contract.fake_service import FakeService
from tests.support.mcp_peer import HELLO, META, PREFACE, connected, eventually, greeted

LONG_WAIT = {"sandboxes": "0000", "until": [{"port": 80}], "timeout": 30}


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
async def connections(service: FakeService, short_dir: Path) -> AsyncIterator[Connections]:
    connections = Connections(service, lambda: [Problem("bwrap", "is missing", "install it")])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short_dir / "s"))
    server = await connections.listen(listener)
    yield connections
    server.close()
    await connections.close()


@pytest.fixture
def path(connections: Connections, short_dir: Path) -> Path:
    return short_dir / "s"


@pytest.mark.parametrize(
    ("preface", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "preface: is not JSON"),
        ([], "is not an object"),
        ({"toolsets": None}, "Restart the daemon: kill "),
        ({**PREFACE, "version": "0.0.1"}, "this csb-mcp is 0.0.1"),
        ({**PREFACE, "shell": True}, "unknown key"),
        ({**PREFACE, "read_only": "yes"}, "wrong value"),
        ({**PREFACE, "toolsets": ["x"]}, "valid: core, desktop"),
        ({**PREFACE, "toolsets": []}, "not a list of names"),
        (b'{"a": "' + b"x" * 5000 + b'"}\n', "longer than 4096"),
    ],
)
async def test_a_bad_preface_is_answered_and_the_connection_ends(
    path: Path, preface: object, words: str
) -> None:
    async with connected(path, preface) as peer:
        answer = await peer.hear()
        assert words in answer["error"]
        assert await peer.hear() is None


async def test_a_preface_has_a_deadline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "_PREFACE_SECONDS", 0.05)
    async with connected(path, b'{"version"') as peer:
        assert "nothing came" in (await peer.hear())["error"]


async def test_another_uid_is_turned_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def somebody(_: asyncio.StreamWriter) -> int:
        return 4_000_000

    monkeypatch.setattr(under_test, "_peer_uid", somebody)
    async with connected(path) as peer:
        assert await peer.hear() is None


async def test_the_doctor_gets_problems_and_no_mcp(path: Path) -> None:
    async with connected(path, {"version": __version__, "doctor": True}) as peer:
        answer = await peer.hear()
        assert answer["problems"] == [
            {"what": "bwrap", "why": "is missing", "repair": "install it", "fatal": True}
        ]
        assert await peer.hear() is None


async def test_each_connection_has_the_tools_it_asked_for(path: Path) -> None:
    async with greeted(path, read_only=True) as small, greeted(path, toolsets=["core"]) as big:
        for peer, count in ((small, 6), (big, 15)):
            await peer.ask("tools/list")
            assert len((await peer.hear())["result"]["tools"]) == count


async def test_both_eras_on_one_socket(path: Path) -> None:
    async with greeted(path) as old, greeted(path) as new:
        await old.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO})
        assert (await old.hear())["result"]["protocolVersion"] == "2025-11-25"
        await old.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        await old.say({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
        assert (await old.hear())["result"]["tools"]
        await new.ask("server/discover")
        assert "2026-07-28" in (await new.hear())["result"]["supportedVersions"]


async def test_garbage_is_answered_and_the_connection_goes_on(path: Path) -> None:
    async with greeted(path) as peer:
        for line, code in ((b"{\n", -32700), (b"[1]\n", -32600), (b'{"id": 1}\n', -32600)):
            await peer.say(line)
            answer = await peer.hear()
            assert (answer["error"]["code"], answer["id"]) == (code, None)
        await peer.say(b"\n  \n")
        assert "result" in await peer.call("metrics")


async def test_a_line_that_is_too_long_is_refused_and_skipped(path: Path) -> None:
    async with greeted(path) as peer:
        await peer.say(b'{"a": "' + b"x" * (2 * MAX_LINE + 12345) + b'"}\n')
        assert f"{MAX_LINE} bytes" in (await peer.hear())["error"]["message"]
        assert "result" in await peer.call("metrics")


async def test_megabytes_both_ways(path: Path, service: FakeService) -> None:
    async with greeted(path) as peer:
        await peer.call("create_sandbox", project_dir="/p")
        too_much = await peer.call("send_keys", sandbox="0000", text="x" * 10_000_000)
        assert "10000000 bytes are too many" in too_much["result"]["content"][0]["text"]
        service.result = CommandResult(0, "é" * 20_000, "")
        answer = await peer.call("run_command", sandbox="0000", command="x")
        assert answer["result"]["structuredContent"]["stdout"] == "é" * 20_000


async def test_many_calls_at_once_are_all_answered(path: Path) -> None:
    async with greeted(path) as peer:
        asked = {await peer.ask("tools/call", name="metrics", arguments={}) for _ in range(200)}
        assert {(await peer.hear())["id"] for _ in range(200)} == asked


async def test_a_half_closed_client_still_gets_its_answers(path: Path) -> None:
    async with greeted(path) as peer:
        await peer.call("create_sandbox", project_dir="/p")
        arguments = {**LONG_WAIT, "timeout": 0.3}
        asked = await peer.ask("tools/call", name="wait", arguments=arguments)
        await peer.ask("subscriptions/listen", notifications={"toolsListChanged": True})
        peer.writer.write_eof()
        heard: list[Any] = []
        while (message := await peer.hear()) is not None:
            heard.append(message.get("id"))
        assert asked in heard


async def test_a_client_that_is_gone_cancels_its_calls(
    path: Path, service: FakeService, connections: Connections
) -> None:
    async with greeted(path) as peer:
        await peer.call("create_sandbox", project_dir="/p")
        await peer.ask("tools/call", name="wait", arguments=LONG_WAIT)
        await service.waiting.wait()
    await eventually(lambda: service.waits_cancelled == 1 and connections.count == 0)
    assert len(service.sandboxes) == 1


async def test_a_cancelled_call_does_not_keep_a_closed_connection(
    path: Path, service: FakeService, connections: Connections
) -> None:
    async with greeted(path) as peer:
        await peer.call("create_sandbox", project_dir="/p")
        asked = await peer.ask("tools/call", name="wait", arguments=LONG_WAIT)
        await service.waiting.wait()
        await peer.say(
            {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"requestId": asked, "_meta": META},
            }
        )
        peer.writer.write_eof()
        await eventually(lambda: connections.count == 0)
    assert service.waits_cancelled == 1


async def test_closing_drops_connections_and_cancels_calls(
    path: Path, service: FakeService, connections: Connections
) -> None:
    async with greeted(path) as peer, greeted(path) as idle:
        await peer.call("create_sandbox", project_dir="/p")
        await peer.ask("tools/call", name="wait", arguments=LONG_WAIT)
        await service.waiting.wait()
        await connections.close()
        assert connections.count == 0
        while await peer.hear() is not None:
            pass
        assert await idle.hear() is None
    assert service.waits_cancelled == 1
    assert service.sandboxes


@pytest.mark.parametrize("turns", range(12))
async def test_a_call_that_comes_while_closing_is_no_defect(
    connections: Connections, path: Path, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """Whatever the SDK is about to do with it: the moment moves on by a turn of the loop each."""
    async with greeted(path) as peer:
        await peer.call("create_sandbox", project_dir="/p")
        await peer.ask("tools/call", name="wait", arguments=LONG_WAIT)
        for _ in range(turns):
            await asyncio.sleep(0)
        await connections.close()
        while await peer.hear() is not None:
            pass
    assert not [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]


async def test_a_client_that_does_not_read_holds_up_nobody_else(
    path: Path, service: FakeService
) -> None:
    async with greeted(path) as deaf, greeted(path) as other:
        for _ in range(300):
            await deaf.ask("tools/list")
        assert "result" in await other.call("metrics")
        for _ in range(300):
            assert "result" in await deaf.hear()
