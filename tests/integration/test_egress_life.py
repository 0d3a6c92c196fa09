"""A supervisor decides what gets out: asked, allowed, denied, over a daemon's end and a proxy's."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp_types import TextContent

from csb_mcp.app import App, build
from csb_mcp.config import Settings
from csb_mcp.lib.processes import descendants
from csb_mcp.transports.mcp.server import build_server
from tests.support.internet import Internet, internet
from tests.support.mcp_client import connection
from tests.support.networks import Inside, put_into
from tests.support.processes import command_line
from tests.support.rest import rest_client, serving
from tests.support.sandboxes import short_folder
from tests.support.servers import Server

COMMAND = Path(sys.executable).with_name("csb-mcp")
WEB = "198.51.100.7"
GET = "curl -sS --max-time 10 -w ' %{http_code}' http://a.test/"


@pytest.fixture(scope="module")
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer("a.test", WEB)
        made.names.answer("b.test", WEB)
        yield made


@pytest.fixture(scope="module")
def web(net: Internet) -> Server:
    return net.serve(WEB, 80)


@pytest.fixture
async def mcp(
    app: App, net: Internet, web: Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    put_into(net, monkeypatch)
    async with connection(build_server(app.service), "auto") as client:
        yield client


@pytest.fixture
async def rest(app: App, settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    settings.http_socket.parent.mkdir()
    async with (
        serving(app.service, settings.http_socket),
        rest_client(settings.http_socket) as client,
    ):
        yield client


async def called(client: Client, tool: str, **arguments: Any) -> tuple[dict[str, Any], str]:
    """What a program and what a reader gets of a call that goes well."""
    result = await client.call_tool(tool, arguments)
    text = "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    assert not result.is_error, text
    return result.structured_content or {}, text


async def listed(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def cli(settings: Settings, *words: str) -> str:
    """What the command prints, on the daemon's socket."""
    env = {"HOME": "/nonexistent", "CSB_MCP_RUNTIME_DIR": str(settings.runtime_dir)}
    run = await asyncio.create_subprocess_exec(
        COMMAND, *words, env=env, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        out, _ = await run.communicate()
    assert run.returncode == 0
    return out.decode()


async def test_a_host_is_asked_for_and_answered(
    app: App,
    project: Path,
    settings: Settings,
    mcp: Client,
    rest: httpx2.AsyncClient,
) -> None:
    made, _ = await called(
        mcp, "create_sandbox", project_dir=str(project), agent="shell", network="allowlist"
    )
    sandbox = made["id"]
    inside, one = Inside(app, sandbox), f"/api/sandboxes/{sandbox}"
    assert "allow_host" not in await listed(mcp)
    wait = {"sandboxes": sandbox, "until": [{"egress_request": True}], "timeout": 20}
    waiting = asyncio.create_task(called(mcp, "wait", **wait))
    assert (await inside.run(GET)).stdout.endswith(" 403")
    found, _ = await waiting
    assert found["satisfied"]
    assert found["matches"][0]["evidence"] == "a.test:80 (x1)"
    assert await listed(mcp) >= {"egress", "allow_host", "deny_host"}
    _, words = await called(mcp, "egress", sandbox=sandbox)
    assert "a.test:80 (x1) by curl" in words
    assert (await rest.get(one)).json()["pending_hosts"] == ["a.test:80 (x1)"]

    await called(mcp, "allow_host", sandbox=sandbox, host="a.test", once=True)
    assert (await inside.run(GET)).stdout.endswith(" 200")
    assert (await inside.run(GET)).stdout.endswith(" 403")
    allowed = (await rest.post(f"{one}/egress/allow", json={"host": "a.test"})).json()
    assert (allowed["open"], allowed["allowed"], allowed["pending"]) == (True, ["a.test"], [])
    assert (await inside.run(GET)).stdout.endswith(" 200")
    assert "allow_host" not in await listed(mcp)

    await called(mcp, "deny_host", sandbox=sandbox, host="a.test")
    refused = (await inside.run(GET)).stdout
    assert refused.endswith(" 403")
    assert "has been denied" in refused
    async with asyncio.timeout(10):  # what is added up comes a moment later
        while True:
            told = (await rest.get(f"{one}/egress")).json()
            if sum(host["allowed"] + host["refused"] for host in told["hosts"]) == 5:
                break
            await asyncio.sleep(0.02)
    assert told["pending"] == []
    (host,) = told["hosts"]
    counts = host["allowed"], host["refused"]
    assert (host["host"], host["port"], *counts) == ("a.test", 80, 2, 3)
    verdicts = [line["verdict"] for line in told["connections"]]
    assert verdicts == ["asked", "allowed", "asked", "allowed", "denied"]
    shown = await cli(settings, "egress", sandbox)
    assert re.search(r"^denied +a\.test$", shown, re.MULTILINE)
    assert re.search(r"^a\.test:80 +2 +3 +\d+B +\d+B ", shown, re.MULTILINE)
    await cli(settings, "allow-host", sandbox, "*.b.test")


async def test_the_way_out_survives_a_daemon_and_a_proxy(
    app: App, project: Path, settings: Settings, mcp: Client
) -> None:
    words = {"project_dir": str(project), "agent": "shell", "allow_hosts": ["a.test"]}
    made, _ = await called(mcp, "create_sandbox", **words)
    sandbox = made["id"]
    assert made["network"] == "allowlist"
    inside = Inside(app, sandbox)
    assert (await inside.run(GET)).stdout.endswith(" 200")
    await app.service.deny_host(sandbox, "b.test")
    await app.close()
    next_app = await build(settings)
    try:
        inside = Inside(next_app, sandbox)
        found = await next_app.service.egress(sandbox)
        assert (found.open, found.allowed, found.denied) == (True, ("a.test",), ("b.test",))
        assert (await inside.run(GET)).stdout.endswith(" 200")
        kill_proxy(next_app, sandbox)
        async with asyncio.timeout(20):
            while not (await inside.run(GET)).stdout.endswith(" 200"):
                await asyncio.sleep(0.02)
        assert "has been denied" in (await inside.run(GET.replace("a.test", "b.test"))).stdout
        kinds = [event.kind async for event in past_events(next_app, sandbox)]
        assert kinds[-3:] == ["egress_closed", "warning", "egress_opened"]
    finally:
        await next_app.service.delete(sandbox)
        await next_app.close()


def kill_proxy(app: App, sandbox: str) -> None:
    """Its proxy, the only one in the tree of that sandbox."""
    live = app.service._registry.live[sandbox]  # pyright: ignore[reportPrivateUsage]
    tree = descendants(live.terminal.server_pid)
    ours = [pid for pid in tree if b"/run/csb/program" in command_line(pid)]
    assert ours
    for pid in ours:
        with suppress(ProcessLookupError):  # each ends with the one above it
            os.kill(pid, 9)


async def past_events(app: App, sandbox: str) -> AsyncIterator[Any]:
    """Those that are there, and then no more."""
    last = app.service._events.last  # pyright: ignore[reportPrivateUsage]
    async for event in app.service.events(0):
        if event.sandbox == sandbox:
            yield event
        if event.sequence >= last:
            return


async def test_a_sandbox_that_is_attacked_first(
    app: App, project: Path, settings: Settings, rest: httpx2.AsyncClient
) -> None:
    body = {"project_dir": str(project), "agent": "shell", "network": "allowlist", "verify": True}
    made = await rest.post("/api/sandboxes", json=body)
    assert made.status_code == 201, made.text
    sandbox = made.json()["id"]
    table = await cli(settings, "verify", sandbox)
    assert re.search(r"^held +proxy ", table, re.MULTILINE)
    assert re.search(r"^it holds: \d+ held, 0 broken", table, re.MULTILINE)
    assert (await app.service.get(sandbox)).pending == ()  # no attack asks the supervisor


def test_the_doctor_attacks_and_leaves_nothing() -> None:
    before = set(Path("/dev/shm").glob("csb-attack-*"))
    with short_folder() as home:
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "CSB_MCP_MAX_NETWORK": "allowlist"}
        run = [COMMAND, "doctor", "--attack", "--json"]
        done = subprocess.run(run, env=env, check=True, capture_output=True, timeout=100)
    found = json.loads(done.stdout)
    by_name = {one["network"]: one for one in found["networks"]}
    assert found["held"]
    assert {probe["outcome"] for probe in by_name["none"]["probes"]} == {"held"}
    assert by_name["allowlist"]["held"]
    assert "max_network" in by_name["full"]["left_out"]
    assert set(Path("/dev/shm").glob("csb-attack-*")) <= before
