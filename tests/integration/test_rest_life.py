"""REST as its users have it: a real daemon, its real socket, and its end.

The first tests serve a service in memory (tests/contract/fake_service.py), the last a real one.
"""

import asyncio
import json
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.support.rest import DEADLINE, eventually, heard, live, rest_client
from tests.support.sandboxes import project_in

REPOSITORY = Path(__file__).parents[2]
COMMAND = [str(Path(sys.executable).parent / "csb-mcp")]
SCRIPT = """\
import sys
sys.path.insert(0, {repository!r})
from tests.support.in_memory import main
main()
"""
FAKE = [sys.executable, "-c", SCRIPT.format(repository=str(REPOSITORY))]
LONG = {"sandboxes": "0000", "until": [{"port": 80}], "timeout": 40}


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running one."""

    process: subprocess.Popen[bytes]
    base: Path

    @property
    def socket(self) -> Path:
        return self.base / "run/daemon/http.sock"

    def client(self) -> httpx2.AsyncClient:
        return rest_client(self.socket)

    def live(self, target: str) -> connect:
        return live(self.socket, target)

    async def end(self, signum: int = signal.SIGTERM) -> int:
        """Its exit status."""
        self.process.send_signal(signum)
        return await asyncio.to_thread(self.process.wait, DEADLINE)


@asynccontextmanager
async def daemon(
    base: Path, command: list[str], *arguments: str, **settings: str
) -> AsyncGenerator[Daemon]:
    """``csb-mcp serve`` in ``base``, from its first answer to its end."""
    (base / "config.toml").touch()
    env = {
        "HOME": str(base),
        "PATH": "/usr/bin:/bin",
        "CSB_MCP_STATE_DIR": str(base / "state"),
        "CSB_MCP_RUNTIME_DIR": str(base / "run"),
        "CSB_MCP_PROJECT_ROOTS": str(base / "projects"),
        "CSB_MCP_CONFIG": str(base / "config.toml"),
    }
    with (base / "stderr").open("wb") as log:
        process = subprocess.Popen(
            [*command, "serve", *arguments],
            env=env | settings,
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    started = Daemon(process, base)
    try:
        await eventually(lambda: (base / "run/daemon/mcp.sock").exists() or said(process, base))
        yield started
    finally:
        if process.poll() is None:
            await started.end()
    assert "Traceback" not in (base / "stderr").read_text()


def said(process: subprocess.Popen[bytes], base: Path) -> bool:
    """Fails with the daemon's words if it has ended."""
    assert process.poll() is None, (base / "stderr").read_text()
    return False


async def test_the_socket_is_for_its_user_and_goes_with_the_daemon(base: Path) -> None:
    async with daemon(base, FAKE) as running:
        status = running.socket.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert stat.S_IMODE(running.socket.parent.stat().st_mode) == 0o700
        async with running.client() as client:
            health = (await client.get("/healthz")).json()
            assert health["pid"] == running.process.pid
            assert (await client.get("/api/doctor")).json()["problems"]
        assert await running.end() == 0
        assert not running.socket.exists()
    log = (base / "stderr").read_text()
    assert f"{running.socket}" in log
    assert "healthz" not in log  # requests are their clients' matter


# What no uid changes: a daemon of a service in memory, and what goes over its socket.
@pytest.mark.once
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_daemon_ends_with_all_kinds_of_answers_open(base: Path, signum: int) -> None:
    async with (
        daemon(base, FAKE) as running,
        running.client() as client,
    ):
        await client.post("/api/sandboxes", json={"project_dir": "/p", "name": "web"})
        async with (
            client.stream("GET", "/api/events?after=0") as events,
            running.live("/ws/sandboxes/web/logs") as log,
        ):
            assert str(await log.recv()).startswith("one")
            wait = asyncio.create_task(client.post("/api/wait", json=LONG))
            assert (await client.get("/healthz")).status_code == 200
            assert await running.end(signum) == 0
            assert await events.aread() == b""
            assert (await heard(log))[1] == 1012
            assert (await wait).json()["code"] == "ending"


@pytest.mark.once
async def test_http_clients_keep_a_daemon_that_started_by_itself(base: Path) -> None:
    async with daemon(base, FAKE, "--auto", CSB_MCP_IDLE_EXIT="400ms") as running:
        async with running.client() as client, client.stream("GET", "/api/events"):
            await asyncio.sleep(1.5)
            assert running.process.poll() is None
        await asyncio.to_thread(running.process.wait, DEADLINE)


@pytest.mark.once
async def test_mcp_over_http_on_the_same_socket(base: Path) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "a", "version": "1"},
        },
    }
    accept = {"accept": "application/json, text/event-stream"}
    async with daemon(base, FAKE) as running, running.client() as client:
        answer = await client.post("/mcp", json=hello, headers=accept)
        assert answer.status_code == 200
        data = next(line for line in answer.text.splitlines() if line.startswith("data: {"))
        assert json.loads(data.removeprefix("data: "))["result"]["serverInfo"]["name"] == "csb-mcp"


async def ok(response: httpx2.Response, status: int) -> Any:
    assert response.status_code == status, response.text
    return response.json() if response.content else None


async def test_the_earlier_managers_life_of_a_sandbox(base: Path) -> None:
    """List empty, system metrics, create, list, logs, stop, get, delete, list empty."""
    project = project_in(base)
    async with daemon(base, COMMAND) as running, running.client() as client:
        assert await ok(await client.get("/api/sandboxes"), 200) == []
        system = await ok(await client.get("/api/metrics/system"), 200)
        assert system["host"]["memory_total"] > 0
        body = {
            "name": "one",
            "backend": "bubblewrap",
            "project_dir": str(project),
            "network": False,
            "command": ["bash", "-c", "echo 'it ran'; exec sleep 1000"],
        }
        made = await ok(await client.post("/api/sandboxes", json=body), 201)
        try:
            (listed,) = await ok(await client.get("/api/sandboxes"), 200)
            assert (listed["id"], listed["state"]) == (made["id"], "running")
            one = f"/api/sandboxes/{made['id']}"
            await logged(client, one, "it ran")
            await ok(await client.post(f"{one}/stop"), 204)
            ended = await ok(await client.get(one), 200)
            assert ended["state"] == "stopped"
            await logged(client, one, "it ran")
        finally:
            await ok(await client.delete(f"/api/sandboxes/{made['id']}"), 204)
        assert await ok(await client.get("/api/sandboxes"), 200) == []
        assert await running.end() == 0


async def test_a_live_log_of_a_real_sandbox(base: Path) -> None:
    project = project_in(base)
    async with daemon(base, COMMAND) as running, running.client() as client:
        made = await ok(
            await client.post(
                "/api/sandboxes", json={"project_dir": str(project), "agent": "shell"}
            ),
            201,
        )
        one = f"/api/sandboxes/{made['id']}"
        try:
            async with running.live(f"/ws/sandboxes/{made['id']}/logs") as log:
                keys = {"text": "echo $((6 * 7))-é", "keys": "Enter"}
                await ok(await client.post(f"{one}/keys", json=keys), 200)
                text = ""
                async with asyncio.timeout(DEADLINE):
                    while "42-é" not in text:
                        text += str(await log.recv())
                await ok(await client.post(f"{one}/stop"), 204)
                assert (await heard(log))[1] == 1000
        finally:
            await ok(await client.delete(one), 204)
        assert await running.end() == 0


async def logged(client: httpx2.AsyncClient, one: str, words: str) -> None:
    """Wait until the log holds them."""
    async with asyncio.timeout(DEADLINE):
        while True:
            response = await client.get(f"{one}/logs")
            assert response.status_code == 200, response.text
            if words in response.text:
                return
            await asyncio.sleep(0.05)
