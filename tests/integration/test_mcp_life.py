"""The product as its users have it: the SDK's own client, over stdio, to a daemon, to a sandbox."""

import asyncio
import base64
import contextlib
import io
import os
import random
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from mcp_types import CallToolResult, ImageContent, TextContent
from PIL import Image

from csb_mcp.lib.processes import ProcessHandle
from tests.support.sandboxes import mentions, project_in

COMMAND = str(Path(sys.executable).parent / "csb-mcp")
BEFORE, AFTER = (200, 30, 30), (20, 160, 90)  # background of the page, and what its script makes it
PAGE = f"""<!doctype html><body style="margin:0;background:rgb{BEFORE}">
<script>document.body.style.background = "rgb{AFTER}"; document.title = "ran"</script>"""


@dataclass(frozen=True, slots=True)
class Station:
    """One daemon's folders."""

    base: Path

    @property
    def server(self) -> StdioServerParameters:
        """How a client starts the bridge."""
        env = {
            "HOME": str(self.base),
            "PATH": "/usr/bin:/bin",
            "CSB_MCP_STATE_DIR": str(self.base / "state"),
            "CSB_MCP_RUNTIME_DIR": str(self.base / "run"),
            "CSB_MCP_PROJECT_ROOTS": str(self.base / "projects"),
            "CSB_MCP_CONFIG": str(self.base / "config.toml"),
            "CSB_MCP_IDLE_EXIT": "20s",
        }
        (self.base / "config.toml").touch()
        return StdioServerParameters(command=COMMAND, args=["stdio"], env=env)

    @asynccontextmanager
    async def client(self, mode: Any = "auto") -> AsyncGenerator[Client]:
        """A connected client."""
        async with Client(stdio_client(self.server), mode=mode) as client:
            yield client

    def daemon(self) -> int | None:
        """Pid of the daemon."""
        with contextlib.suppress(OSError, ValueError):
            return int((self.base / "state/daemon.lock").read_text().split()[0])
        return None

    async def end_daemon(self, signum: int = signal.SIGTERM) -> None:
        """End it and wait for that."""
        if (pid := self.daemon()) is None:
            return
        try:
            handle = ProcessHandle(pid)
        except ProcessLookupError:
            return
        handle.kill(signum)
        async with asyncio.timeout(20):
            await handle.wait()
        handle.close()


@pytest.fixture
async def station(base: Path) -> AsyncGenerator[Station]:
    made = Station(base)
    yield made
    async with made.client() as client:
        listed = await call(client, "list_sandboxes")
        for sandbox in listed["sandboxes"]:
            await call(client, "delete", sandbox=sandbox["id"])
    await made.end_daemon()


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool, or its text; an error fails the test."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, text(result)
    return result.structured_content or {"text": text(result), "result": result}


async def create(client: Client, project: Path, **more: Any) -> dict[str, Any]:
    """A sandbox with a shell, as it is told."""
    given = {"project_dir": str(project), "agent": "shell"}
    return await call(client, "create_sandbox", **given, **more)


def text(result: CallToolResult) -> str:
    """All text blocks."""
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


async def picture(client: Client, **arguments: Any) -> Image.Image:
    """A screenshot, decoded."""
    result = await client.call_tool("screenshot", arguments)
    assert not result.is_error, text(result)
    block = next(block for block in result.content if isinstance(block, ImageContent))
    assert block.mime_type == "image/png"
    return Image.open(io.BytesIO(base64.b64decode(block.data))).convert("RGB")


# As a normal user one era is enough: they differ in bytes.
@pytest.mark.parametrize("era", [pytest.param("legacy", marks=pytest.mark.once), "2026-07-28"])
async def test_a_whole_life_in_both_eras(
    station: Station, era: Literal["legacy", "2026-07-28"]
) -> None:
    project = project_in(station.base)
    async with station.client(era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"create_sandbox", "send_keys", "wait", "screenshot", "stop", "metrics"} <= names
        made = await create(client, project, name="web")
        assert made["state"] == "running"
        sent = await call(client, "send_keys", sandbox="web", text="echo $((6*7))", keys="Enter")
        cursor = re.search(rf"{made['id']}\.\S+", str(sent["text"]))
        assert cursor is not None
        waited = await call(
            client,
            "wait",
            sandboxes=["web"],
            until=[{"terminal_regex": "^42$"}],
            cursor=cursor[0],
            timeout=20,
        )
        assert waited["satisfied"]
        read = await call(client, "read_terminal", sandbox="web", cursor=cursor[0])
        assert "\n42\n" in read["text"]
        (project / "page.html").write_text(PAGE)
        await call(
            client,
            "run_command",
            sandbox="web",
            command='chromium --window-size=1280,800 "file://$PWD/page.html"',
            background=True,
        )
        async with asyncio.timeout(60):
            while (await picture(client, sandbox="web")).getpixel((640, 500)) != AFTER:
                await call(
                    client,
                    "wait",
                    sandboxes=["web"],
                    until=[{"screen_stable": 0.5}],
                    timeout=5,
                )
        ran = await call(client, "run_command", sandbox="web", command="cat; exit 4", stdin="in")
        assert (ran["exit_code"], ran["stdout"]) == (4, "in")
        usage = await call(client, "metrics", sandbox="web")
        assert usage["sandbox"]["processes"] > 5
        assert (await call(client, "stop", sandbox="web"))["state"] == "stopped"
        assert (await picture(client, sandbox="web")).getpixel((640, 500)) == AFTER
        await call(client, "delete", sandbox="web")
        assert (await call(client, "list_sandboxes"))["sandboxes"] == []


@pytest.mark.timeout(300)
async def test_a_daemon_killed_at_any_moment_loses_and_leaves_nothing(station: Station) -> None:
    """kill -9 while creates, commands, stops and deletes are under way; then another one comes."""
    randomness = random.Random(11)
    project = project_in(station.base)
    async with station.client() as client:
        keeper = await create(client, project, name="keeper")
        await call(client, "run_command", sandbox="keeper", command="echo kept > ~/kept")
    for moment in range(0, 10, 1 if os.getuid() == 0 else 2):
        work = asyncio.create_task(_busy(station, project))
        await asyncio.wait({work}, timeout=0.35 + 0.04 * moment + randomness.uniform(0, 0.04))
        await station.end_daemon(signal.SIGKILL)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        async with station.client() as client:
            listed = (await call(client, "list_sandboxes"))["sandboxes"]
            states = {sandbox["id"]: sandbox["state"] for sandbox in listed}
            assert states[keeper["id"]] == "running"
            assert "creating" not in states.values()
            kept = await call(client, "run_command", sandbox="keeper", command="cat ~/kept")
            assert kept["stdout"] == "kept\n"
            for made, state in states.items():
                if state == "running":
                    await _answers_or_ends(client, made)
                if made != keeper["id"]:
                    await call(client, "delete", sandbox=made)
            left = {path.name for path in (station.base / "run").iterdir()}
            assert left <= {"daemon", "launchers", keeper["id"]}
            kept_state = {path.name for path in (station.base / "state/sandboxes").iterdir()}
            assert kept_state == {keeper["id"]}
            trees = mentions(str(station.base / "run"))
            assert all(_belongs(pid, keeper["id"], station) for pid in trees)


async def _answers_or_ends(client: Client, made: str) -> None:
    """Its stop may have been under way; then it ends in a moment, and says so."""
    arguments = {"sandbox": made, "command": "echo ok"}
    result = await client.call_tool("run_command", arguments)
    if result.is_error:
        told = text(result)
        assert made in told
        assert "is dead" in told or "helper did not answer" in told or "ended" in told
    else:
        assert (result.structured_content or {})["stdout"] == "ok\n"


async def _busy(station: Station, project: Path) -> None:
    async with station.client() as client:

        async def live() -> None:
            while True:
                made = (await create(client, project))["id"]
                await call(client, "run_command", sandbox=made, command="true")
                await call(client, "stop", sandbox=made)
                await call(client, "delete", sandbox=made)

        await asyncio.gather(live(), live())


def _belongs(pid: int, keeper: str, station: Station) -> bool:
    """A process of the keeper's tree, of the daemon, or gone by now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return True
    inside = Path(f"/proc/{pid}/environ")
    with contextlib.suppress(OSError):
        words += inside.read_bytes().decode(errors="replace")
    return keeper in words or pid in (station.daemon(), os.getpid()) or "CSB_MCP_" in words
