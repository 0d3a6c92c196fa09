"""Ten everyday tasks of a supervisor, with our tools and with a screen and keys: calls and tokens.

    python benchmarks/tasks.py [--write]

Both ways are really carried out, by the SDK's client over ``csb-mcp stdio``, on a daemon of its
own, with the real Claude Code inside before a scripted Messages API: that takes some ten minutes.
``--write`` writes docs/supervision-costs.md.
"""

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client

from benchmarks.costs import (
    DOCUMENT,
    Facts,
    Row,
    Spent,
    cost,
    figures,
    json_tokens,
    page,
    total,
    upshot,
    words,
)
from benchmarks.ways import (
    HOST,
    POLL,
    PROMPT,
    RARELY,
    WORK,
    ByKeys,
    ByRareLooks,
    ByTools,
    Stage,
    Supervisor,
    checked,
    environment,
)
from csb_mcp import __version__
from tests.support import fake_api
from tests.support.claude_inside import PROGRAM
from tests.support.sandboxes import mentions, project_in, short_folder
from tests.support.station import end

TASKS = {
    "start": "start an agent on a task",
    "asked": "learn that it asks for permission, and for what",
    "answer": "answer it",
    "done": "learn that it is done, and what that cost",
    "error": "learn of an error and its cause",
    "prompt": f"hand it a prompt of {len(PROMPT) / 1000:.0f} KB",
    "five": "watch five agents, learn which one needs you",
    "tests": "run the tests while it works",
    "host": "allow a host that it asks for",
    "page": "look at the page that it made",
}
PAGE = "<!doctype html><body style='background: rgb(11, 61, 46); color: white'><h1>Made</h1>"
TESTS = "import unittest\nclass T(unittest.TestCase):\n    def test_it(self): pass\n"
SAID = "\n".join(f"{n}. What was done there, and why, in words for you." for n in range(1, 13))
PRICES = "[prices.claude]\ninput = 300\noutput = 1500\ncache_creation = 375\ncache_read = 30\n"
WAYS: dict[type[Supervisor], str] = {ByTools: "a", ByKeys: "k", ByRareLooks: "r"}
BY_KEYS = ("create_sandbox", "read_terminal", "send_keys", "screenshot", "allow_host", "delete")


class Before:
    """What leads up to a task."""

    @staticmethod
    async def start(stage: Stage) -> None:
        """The model will ask for a permission."""
        stage.script.say(
            {"think": WORK, "tools": [["Bash", {"command": "touch made"}]]},
            {"think": WORK, "text": SAID},
        )

    @staticmethod
    async def error(stage: Stage) -> None:
        """A prompt that fails."""
        await stage.begin({"delay": WORK / 2, "status": 401, "times": 2})

    @staticmethod
    async def prompt(stage: Stage) -> None:
        """It is ready."""
        await stage.begin({"text": SAID})
        await stage.until({"agent_state": "ready"})
        stage.script.say({"text": SAID})

    @staticmethod
    async def five(stage: Stage) -> None:
        """Five that work."""
        for name in "bcde":
            other = Stage(stage.client, made_project(stage.project.parent, stage.name[0] + name))
            arguments = {"project_dir": str(other.project), "agent": "claude", "name": other.name}
            checked(await stage.client.call_tool("create_sandbox", arguments | environment()))
            stage.others.append(other)
            await other.serve()
        for other in (stage, *stage.others[:-1]):
            await other.begin({"think": WORK * 2, "text": SAID})
        command = {"command": "touch found"}
        await stage.others[-1].begin({"think": WORK, "tools": [["Bash", command]]})

    @staticmethod
    async def tests(stage: Stage) -> None:
        """It works."""
        for other in stage.others:
            await other.call("delete")
        await stage.begin({"think": WORK, "text": SAID})

    @staticmethod
    async def host(stage: Stage) -> None:
        """It asks for a host that nobody has allowed."""
        record = str(await records(stage.client))
        for host in ("downloads.claude.ai", "github.com"):  # what Claude Code asks for by itself
            if host in record:
                await stage.call("deny_host", host=host)
        command = f"curl -sS --max-time 20 https://{HOST}/x"
        tools = [["Bash", {"command": command}]]
        await stage.begin({"tools": tools}, {"think": WORK, "text": f"{HOST} was refused.\n{SAID}"})
        await stage.until({"question": True})
        asked = words(await stage.call("observe"))
        question = re.search(r"question (\S+), permission", asked)
        assert question, asked
        await stage.call("answer", question=question[1], option="1")


class After:
    """That a task was fulfilled, whoever did it."""

    @staticmethod
    async def start(stage: Stage) -> None:
        """The model was asked."""
        assert await soon(lambda: stage.asked("Make a file"))

    @staticmethod
    async def answer(stage: Stage) -> None:
        """It could do it."""
        assert await soon((stage.project / "made").exists)

    @staticmethod
    async def prompt(stage: Stage) -> None:
        """The model got all of it."""
        assert await soon(lambda: stage.asked(PROMPT))
        await stage.until({"agent_state": "ready"})

    @staticmethod
    async def host(stage: Stage) -> None:
        """The rule is there."""
        (record,) = [one for one in await records(stage.client) if one["name"] == stage.name]
        assert HOST in record["allowed_hosts"], record
        await stage.until({"agent_state": "ready"})


async def records(client: Client) -> list[dict[str, Any]]:
    """Of all sandboxes."""
    found = checked(await client.call_tool("list_sandboxes", {})).structured_content
    assert found
    return found["sandboxes"]


async def soon(holds: Callable[[], bool]) -> bool:
    """Within some seconds."""
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return holds()


def made_project(projects: Path, name: str) -> Path:
    """A project with an API, a test and a page."""
    project = project_in(projects.parent, name)
    (project / ".api").mkdir()
    shutil.copy(str(fake_api.__file__), project / ".api/fake_api.py")
    (project / "test_it.py").write_text(TESTS)
    (project / "page.html").write_text(PAGE)
    for path in (project, project / ".api"):
        path.chmod(0o777)  # a root daemon's sandboxes have uids of their own
    return project


@asynccontextmanager
async def connected(base: Path) -> AsyncGenerator[Client]:
    """A client of a daemon that lives in ``base``, and ends with it."""
    (base / "projects").mkdir()
    (base / "config.toml").write_text(PRICES)
    env = {
        "HOME": str(base),
        "CSB_MCP_CONFIG": str(base / "config.toml"),
        "PATH": "/usr/bin:/bin",
        "CSB_MCP_STATE_DIR": str(base / "state"),
        "CSB_MCP_RUNTIME_DIR": str(base / "run"),
        "CSB_MCP_PROJECT_ROOTS": str(base / "projects"),
        "CSB_MCP_CLAUDE": str(PROGRAM),
    }
    command = str(Path(sys.executable).with_name("csb-mcp"))
    server = StdioServerParameters(command=command, args=["stdio"], env=env)
    try:
        async with Client(stdio_client(server)) as client:
            try:
                yield client
            finally:
                for record in await records(client):
                    await client.call_tool("delete", {"sandbox": record["id"]})
    finally:
        with contextlib.suppress(OSError, ValueError):
            end(int((base / "state/daemon.lock").read_text()), signal.SIGTERM)


async def story(client: Client, base: Path, way: type[Supervisor]) -> list[Spent]:
    """All tasks in one way, one after another with one agent."""
    stage = Stage(client, made_project(base / "projects", WAYS[way]))
    supervisor, found = way(stage), list[Spent]()
    for task in TASKS:
        if prepare := getattr(Before, task, None):
            await prepare(stage)
        supervisor.spent = Spent()
        await getattr(supervisor, task)()
        found.append(supervisor.spent)
        print(f"  {way.__name__} {task}: {supervisor.spent.told()}", flush=True)
        if check := getattr(After, task, None):
            await check(stage)
    await stage.call("delete")
    return found


async def list_tokens(client: Client) -> tuple[int, int]:
    """Of the lists of tools: all that are offered, and those that keys need."""
    listed = (await client.list_tools()).tools
    dumped = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed]
    few = [tool for tool in dumped if tool["name"] in BY_KEYS]
    return round(json_tokens({"tools": dumped})), round(json_tokens({"tools": few}))


def agent_version() -> str:
    """Of Claude Code."""
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[0]


async def main(*, write: bool) -> int:
    """Carry out both stories, print the table."""
    assert PROGRAM.exists(), "Claude Code is not installed: run scripts/setup test"
    with short_folder() as base:
        async with connected(base) as client:
            lists = await list_tokens(client)
            *both, seldom = [await story(client, base, way) for way in WAYS]
        assert not mentions(str(base)), "processes are left"
    facts = Facts(
        version=__version__,
        agent=agent_version(),
        day=time.strftime("%Y-%m-%d"),
        poll=f"{POLL:g}",
        rarely=f"{RARELY:g}",
        work=f"{WORK:g}",
        seldom=total(map(cost, seldom)),
        lists=lists,
    )
    rows = [
        Row(told, cost(tools), cost(keys))
        for told, tools, keys in zip(TASKS.values(), *both, strict=True)
    ]
    print(figures(rows))
    print(upshot(rows))
    print(f"with a look every {RARELY:g} s: {facts.seldom}")
    if write:
        DOCUMENT.write_text(page(rows, facts))
        print(f"{DOCUMENT} written")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(write="--write" in sys.argv[1:])))
