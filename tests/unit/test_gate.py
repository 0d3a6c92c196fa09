"""The daemon's end of an egress proxy, against one that says what a hostile one would."""

import asyncio
import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Settings
from csb_mcp.errors import DeadlineExceeded, EgressFailed
from csb_mcp.host.backends import clients
from csb_mcp.host.network.gate import LINE_BYTES, ProxyGate, meet
from csb_mcp.host.network.gates import HostGates
from csb_mcp.host.network.log import last_connections, tried_hosts
from csb_mcp.model import Folders, ModelUsage, Sandbox, SandboxSpec, SandboxState, Verdict
from csb_mcp.ports import ClientOf

HELLO: dict[str, Any] = {"hello": 1, "asked": []}
ASKED = {"host": "a.test", "port": 443, "count": 2, "time": 5.0}
M = {"input": 1, "output": 2, "cache_creation": 3, "cache_read": 4}
USED: dict[str, Any] = {
    "used": {
        "run": "a",
        "models": {"m": M},
        "answers": 1,
        "uncounted": 2,
        "estimated": 5,
        "cut": 1,
        "open": 3,
    }
}
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


@asynccontextmanager
async def proxy(
    folder: Path, script: Script, seconds: float = 5, client_of: ClientOf = {4000: "curl"}.get
) -> AsyncGenerator[ProxyGate]:
    """A gate to a proxy that follows ``script``."""
    path, ended = folder / "control.sock", asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await script(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        ended.set()

    async with await asyncio.start_unix_server(serve, path):
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES)
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            gate = await meet(reader, writer, "box", client_of, deadline)
            yield gate
            gate.close()
        finally:
            writer.close()
            await asyncio.wait_for(ended.wait(), 5)
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def obedient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(line(HELLO | {"asked": [ASKED]}))
    while got := await reader.readline():
        request = json.loads(got)
        if request["do"] == "once":
            writer.write(line({"error": "no such host"}))
        elif request["do"] == "rules":
            writer.write(line({"asked": ASKED | {"id": 7, "count": 3, "peer": 4000}}))
            writer.write(line({"done": "rules"}))
        else:
            writer.write(line({"asked": {"host": request["do"], "port": 1, "count": 1, "time": 0}}))


async def test_requests_answers_and_asks(short_dir: Path) -> None:
    async with proxy(short_dir, obedient) as gate:
        (ask,) = await gate.asks()
        assert (ask.host, ask.port, ask.count, ask.program) == ("a.test", 443, 2, None)
        await gate.rule(["a.test"], [])
        (ask,) = await gate.asks()
        assert (ask.count, ask.program) == (3, "curl")
        (ask,) = await gate.asks()
        assert ask.host == "seen"  # what the proxy got back for it
        with pytest.raises(EgressFailed, match="no such host"):
            await gate.allow_once("a.test", 443)


async def test_what_was_counted_is_told_from_the_start_and_then_anew(short_dir: Path) -> None:
    go = asyncio.Event()

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line(HELLO | USED))
        await go.wait()
        writer.write(line({"used": USED["used"] | {"answers": 7}}))

    async with proxy(short_dir, script) as gate:
        told = await gate.counts()
        assert gate.counted == told
        assert (told.run, told.under_way, told.counted.answers) == ("a", 3, 1)
        assert told.counted.total == ModelUsage(input=1, output=2, cache_creation=3, cache_read=4)
        assert told.counted.tokens == 15
        waiting = asyncio.create_task(gate.counts())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        go.set()
        assert (await waiting).counted.answers == 7
        with contextlib.suppress(EgressFailed):  # its last word may be given once more
            await gate.counts()
        with pytest.raises(EgressFailed):
            await gate.counts()


@pytest.mark.parametrize(
    "said",
    [
        b"no json\n",
        b"[1]\n",
        b'{"hello":2}\n',
        b'{"hello":1,"asked":7}\n',
        b'{"hello":1,"asked":[],"used":7}\n',
        line(HELLO | {"used": USED["used"] | {"run": ""}}),
        line(HELLO | {"used": USED["used"] | {"answers": -1}}),
        line(HELLO | {"used": USED["used"] | {"models": {"m": {"input": 1}}}}),
        line(HELLO | {"used": USED["used"] | {"models": dict.fromkeys(map(str, range(99)), M)}}),
        b'{"hello":1,"asked":[{"host":"10.0.0.1","port":443,"count":1,"time":0}]}\n',
        b'{"hello":1,"asked":[{"host":"a.test","port":0,"count":1,"time":0}]}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (LINE_BYTES + 1),
        b"",
    ],
)
async def test_what_is_no_proxy_is_refused(short_dir: Path, said: bytes) -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    with pytest.raises(EgressFailed):
        async with proxy(short_dir, script):
            pass


async def test_a_proxy_that_says_nothing_has_a_deadline(short_dir: Path) -> None:
    async def script(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(DeadlineExceeded):
        async with proxy(short_dir, script, seconds=0.05):
            pass


async def test_who_is_cancelled_while_it_meets_one_lets_go_of_it(short_dir: Path) -> None:
    left = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        left.set()
        writer.close()

    path = short_dir / "control.sock"
    async with await asyncio.start_unix_server(script, path):
        reader, writer = await asyncio.open_unix_connection(path)
        deadline = asyncio.get_running_loop().time() + 5
        meeting = asyncio.create_task(meet(reader, writer, "box", {1: "curl"}.get, deadline))
        await asyncio.sleep(0)
        meeting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await meeting
        await asyncio.wait_for(left.wait(), 5)


@pytest.mark.parametrize("last", [b"", b"no json\n", b'{"asked":{"host":"\\n"}}\n', b"[]\n"])
async def test_one_that_goes_away_or_mad_fails_all_that_wait(short_dir: Path, last: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line(HELLO))
        await reader.readline()
        writer.write(last)

    async with proxy(short_dir, script) as gate:
        asking = asyncio.ensure_future(gate.asks())
        with pytest.raises(EgressFailed):
            await gate.rule([], [])
        with pytest.raises(EgressFailed):
            await asking
        with pytest.raises(EgressFailed):
            await gate.rule([], [])


async def test_one_that_asks_and_never_reads_is_left(short_dir: Path) -> None:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line(HELLO))
        while True:
            writer.write(line({"asked": ASKED | {"id": 10**60}}) * 100)
            await writer.drain()

    async with proxy(short_dir, script) as gate:
        async with asyncio.timeout(5):
            with pytest.raises(EgressFailed):
                while await gate.asks():
                    pass


async def test_who_asks_is_not_looked_for_all_the_time(short_dir: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(line(HELLO))
        for port in range(4000, 4010):
            writer.write(line({"asked": ASKED | {"id": port, "peer": port}}))
        writer.write(line({"asked": ASKED | {"host": "last.test"}}))
        await reader.read()

    looked: list[int] = []

    def slow(port: int) -> str:
        looked.append(port)
        time.sleep(0.05)  # as where there are many processes
        return "curl"

    async with proxy(short_dir, script, client_of=slow) as gate:
        asks = list(await gate.asks())
        while asks[-1].host != "last.test":
            asks += await gate.asks()
    assert looked == [4000]
    assert [ask.program for ask in asks] == ["curl", *[None] * 10]


def test_few_of_a_payloads_open_files_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def scandir(path: str) -> object:
        opened.append(path)
        return real(path)

    def inode(init: int, port: int) -> int:
        return init + port

    def below(_: int) -> list[int]:
        return [os.getpid()] * 50

    real = os.scandir
    monkeypatch.setattr(clients, "_FILES", 3)
    monkeypatch.setattr(clients, "_inode", inode)
    monkeypatch.setattr(clients, "descendants", below)
    monkeypatch.setattr(os, "scandir", scandir)
    assert clients.client_of(1, 4000) is None
    assert len(opened) == 1


async def test_a_daemon_with_too_many_files_open_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    folders = Folders(tmp_path / "run", tmp_path / "state")
    spec = SandboxSpec(project_dir=tmp_path, network="allowlist")
    record = Sandbox(id="box", spec=spec, state=SandboxState.RUNNING, uid=1, created_at=0.0)
    settings = Settings(
        state_dir=tmp_path, runtime_dir=tmp_path, config_file=tmp_path, project_roots=(tmp_path,)
    )
    gates = HostGates(settings, lambda name: tmp_path / name)
    monkeypatch.setattr(socket, "socket", none)
    with pytest.raises(EgressFailed, match="Too many open files"):
        await gates.connect(record, folders, {4000: "curl"}.get, 0.0)


COUNTS = ("allowed", "refused", "sent", "received")


def test_the_log_is_read_from_its_end_and_by_form(tmp_path: Path) -> None:
    good = {"time": 1.5, "host": "a.test", "port": 443, "verdict": "allowed", "sent": 3}
    bad: list[object] = [7, {}, good | {"verdict": "maybe"}, good | {"port": "443"}]
    bad += [good | {"time": float("inf")}, good | {"sent": -1}, good | {"host": None}]
    (tmp_path / "log.1").write_bytes(line(good | {"host": "old.test"}) * 2)
    text = b"".join(map(line, bad)) + line(good | {"why": "a\x1b[2Jb"}) + b'{"time":1'
    (tmp_path / "log").write_bytes(text)
    found = last_connections(tmp_path, 2)
    assert [(each.host, each.verdict) for each in found] == [
        ("old.test", Verdict.ALLOWED),
        ("a.test", Verdict.ALLOWED),
    ]
    assert found[1].why == "a?[2Jb"
    (tmp_path / "log").unlink()
    (tmp_path / "log").symlink_to(tmp_path / "log.1")
    assert len(last_connections(tmp_path, 9)) == 2
    assert last_connections(tmp_path / "none", 9) == []


def test_the_totals_are_read_by_form(tmp_path: Path) -> None:
    good = {"host": "a\x1bb.test", "port": 443, "last": 1.5} | dict.fromkeys(COUNTS, 3)
    bad: list[object] = [7, {}, good | {"sent": -1}, good | {"last": None}, good | {"host": 1}]
    later = good | {"host": "b.test", "last": 2.5, "received": 4}
    (tmp_path / "totals").write_bytes(b"".join(map(line, [good, *bad, later])) + b'{"host":"c')
    first, second = tried_hosts(tmp_path)
    assert (first.host, first.allowed, first.received) == ("b.test", 3, 4)
    assert second.host == "a?b.test"
    assert tried_hosts(tmp_path / "none") == []
