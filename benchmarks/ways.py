"""Two ways to supervise Claude Code in a sandbox: our tools, and a screen with keys.

Each method fulfils one task of ``benchmarks/tasks.py`` and asserts that it learned what it must.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client
from mcp_types import CallToolResult

from benchmarks.costs import (
    Spent,
    json_tokens,
    picture_tokens,
    pictures,
    result_tokens,
    text_tokens,
    words,
)
from csb_mcp.agents.claude import Claude
from csb_mcp.model import AgentState, ScreenFact
from tests.support.claude_inside import KEY, PORT
from tests.support.fake_api import Script

POLL, RARELY, WORK, GLANCE = 5.0, 20.0, 20.0, 1.0  # seconds
PATIENCE = 90.0
COLOUR = (11, 61, 46)  # of the page that the agent made
TEST = "python3 -m unittest test_it"
PROMPT = "".join(f"{n:04}: a line of a long task, as one hands it over.\n" for n in range(400))
PASTED = re.compile(r"</?pasted_content[^>]*>")
CAUSE = re.compile(r"invalid x-api-key|Invalid API key")
HOST = "data.example.org"


@dataclass(slots=True)
class Stage:
    """One sandbox and the script of its model; what is done here nobody pays for."""

    client: Client
    project: Path
    others: "list[Stage]" = field(default_factory=list["Stage"])

    @property
    def name(self) -> str:
        """The sandbox's."""
        return self.project.name

    @property
    def script(self) -> Script:
        """What its model says."""
        return Script(self.project / ".api")

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Beside the count."""
        return checked(await self.client.call_tool(tool, {"sandbox": self.name, **arguments}))

    async def until(self, *conditions: Mapping[str, Any]) -> None:
        """One of them comes true."""
        result = await self.client.call_tool(
            "wait", {"sandboxes": self.name, "until": list(conditions), "timeout": 45}
        )
        assert "not satisfied" not in words(checked(result)), conditions

    async def serve(self) -> None:
        """Have its Messages API answer."""
        line = f"exec python3 -I -B .api/fake_api.py .api {PORT}"
        await self.call("run_command", command=line, background=True)

    async def begin(self, *turns: Mapping[str, Any]) -> None:
        """A prompt, to which the model says that."""
        await self.until({"agent_state": "ready"}, {"agent_state": "error"})
        self.script.say(*turns)
        await self.call("send_keys", text="Go on, please")
        await asyncio.sleep(GLANCE)
        before = len(self.script.asked())
        await self.call("send_keys", keys=["Enter"])
        async with asyncio.timeout(PATIENCE):
            while len(self.script.asked()) == before:
                await asyncio.sleep(0.1)

    def asked(self, text: str) -> bool:
        """Whether its model was; in how many pieces it was pasted is all one."""
        told = (PASTED.sub("", request["last"]) for request in self.script.asked())
        return any("".join(text.split()) in "".join(one.split()) for one in told)


class Supervisor:
    """Counts what it spends."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.spent = Spent()

    async def call(self, tool: str, **arguments: Any) -> CallToolResult:
        """Call and count."""
        result = checked(await self.stage.client.call_tool(tool, arguments))
        self.spent.add(tool, written(tool, arguments), result_tokens(result))
        return result

    async def create(self, **more: Any) -> None:
        """A sandbox; what points it to the stand-in for the API is not counted."""
        arguments = {"project_dir": str(self.stage.project), "agent": "claude", **more}
        arguments["name"] = self.stage.name
        result = await self.stage.client.call_tool("create_sandbox", arguments | environment())
        self.spent.add(
            "create_sandbox", written("create_sandbox", arguments), result_tokens(checked(result))
        )
        await self.stage.serve()


class ByTools(Supervisor):
    """With the tools for supervision."""

    question = cursor = ""

    async def wait(self, *until: Mapping[str, Any], on: Sequence[str] = (), **more: str) -> str:
        """Its evidence; waits in slices, as clients must."""
        sandboxes = list(on) or self.stage.name
        for _ in range(4):
            result = await self.call(
                "wait", sandboxes=sandboxes, until=list(until), timeout=45, **more
            )
            if "not satisfied" not in (told := words(result)):
                return told
        raise AssertionError(until)

    async def start(self) -> None:
        """An agent on a task."""
        await self.create(task="Make a file")

    async def asked(self) -> None:
        """What it asks for."""
        self.question = await self.wait({"question": True})
        assert "touch made" in self.question

    async def answer(self) -> None:
        """Yes."""
        found = re.search(r"question: (\S+): permission", self.question)
        assert found, self.question
        told = words(
            await self.call("answer", sandbox=self.stage.name, question=found[1], option="1")
        )
        self.cursor = told.rpartition("cursor: ")[2]

    async def done(self) -> None:
        """That it is done, and the cost."""
        await self.wait({"turn_finished": True}, cursor=self.cursor)
        told = words(await self.call("observe", sandbox=self.stage.name))
        assert re.search(r"agent: ready", told), told
        assert re.search(r"\$0\.0\d", told), told

    async def error(self) -> None:
        """What went wrong."""
        told = await self.wait({"agent_state": "error"}, {"turn_finished": True})
        if not CAUSE.search(told):
            told = words(await self.call("observe", sandbox=self.stage.name))
        assert CAUSE.search(told), told

    async def prompt(self) -> None:
        """A long one."""
        told = words(await self.call("send_prompt", sandbox=self.stage.name, text=PROMPT))
        assert "proved" in told

    async def five(self) -> None:
        """Who of them needs somebody."""
        names = [stage.name for stage in (self.stage, *self.stage.others)]
        told = await self.wait({"question": True}, on=names)
        assert "touch found" in told, told

    async def tests(self) -> None:
        """Beside its work."""
        told = words(await self.call("run_command", sandbox=self.stage.name, command=TEST))
        assert "\nOK" in told, told

    async def host(self) -> None:
        """Which it is, and let it."""
        told = await self.wait({"egress_request": True})
        assert HOST in told, told
        await self.call("allow_host", sandbox=self.stage.name, host=HOST)

    async def page(self) -> None:
        """As a browser shows it."""
        small = await self.call("screenshot", sandbox=self.stage.name, max_width=64)
        frame = re.search(r"frame ([^:]+):", words(small))
        assert frame
        command = 'chromium "file://$PWD/page.html"'
        await self.call("run_command", sandbox=self.stage.name, command=command, background=True)
        await self.wait({"screen_changed": frame[1]})
        await self.wait({"screen_stable": 2})
        shot = await self.call("screenshot", sandbox=self.stage.name)
        assert is_page(shot)


class ByKeys(Supervisor):
    """With a screen and keys. ``poll``: seconds between two looks, when there is nothing to do."""

    poll = POLL

    async def look(self, name: str = "") -> tuple[str, ScreenFact]:
        """The whole terminal, and what a reader of it sees there."""
        arguments = {"sandbox": name or self.stage.name}
        result = checked(await self.stage.client.call_tool("read_terminal", arguments))
        shot = checked(await self.stage.client.call_tool("screenshot", arguments))
        lines = words(result).splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith("[terminal of"))
        rows = lines[first + 1 : -1]
        cost = text_tokens("\n".join(rows))
        self.spent.add(
            "read_terminal", written("read_terminal", arguments), cost, picture_tokens(shot)
        )
        return "\n".join(rows), Claude().screen(rows)

    async def until(self, *states: AgentState) -> str:
        """Look, now and then, until it is in one of them; gives the screen."""
        deadline = time.monotonic() + PATIENCE
        while True:
            text, fact = await self.look()
            if fact.state in states:
                return text
            assert time.monotonic() < deadline, text
            await asyncio.sleep(self.poll)

    async def keys(self, **what: Any) -> tuple[str, ScreenFact]:
        """Type, and see what became of it."""
        await self.call("send_keys", sandbox=self.stage.name, **what)
        await asyncio.sleep(GLANCE)
        return await self.look()

    async def submit(self, text: str) -> str:
        """Type and press Enter; again, if it stands there still."""
        shown, fact = await self.keys(text=text, keys=["Enter"])
        for _ in range(3):
            if fact.state is AgentState.WORKING or not fact.draft:
                return shown
            shown, fact = await self.keys(keys=["Enter"])
        raise AssertionError(shown)

    async def start(self) -> None:
        """An agent on a task."""
        await self.create()
        await self.until(AgentState.READY)
        await self.submit("Make a file")

    async def asked(self) -> None:
        """What it asks for."""
        assert "touch made" in await self.until(AgentState.QUESTION)

    async def answer(self) -> None:
        """Yes."""
        text, fact = await self.keys(text="1")
        assert fact.state is not AgentState.QUESTION, text

    async def done(self) -> None:
        """That it is done, and the cost."""
        await self.until(AgentState.READY)
        text = await self.submit("/cost")
        while "Estimated cost" not in text:
            await asyncio.sleep(self.poll)
            text, _ = await self.look()
        await self.call("send_keys", sandbox=self.stage.name, keys=["Escape"])
        await asyncio.sleep(GLANCE)  # what follows at once would make another key of it

    async def error(self) -> None:
        """What went wrong."""
        assert CAUSE.search(await self.until(AgentState.ERROR))

    async def prompt(self) -> None:
        """A long one."""
        await self.submit(PROMPT)

    async def five(self) -> None:
        """Who of them needs somebody."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for stage in (self.stage, *self.stage.others):
                text, fact = await self.look(stage.name)
                if fact.state is AgentState.QUESTION:
                    assert "touch found" in text
                    return
            await asyncio.sleep(self.poll)
        raise AssertionError("nobody asks")

    async def tests(self) -> None:
        """Beside its work."""
        await self.until(AgentState.READY)
        text, _ = await self.keys(text=f"!{TEST}", keys=["Enter"])
        while "\n     OK" not in text:
            await asyncio.sleep(self.poll)
            text, _ = await self.look()

    async def host(self) -> None:
        """Which it is, and let it."""
        assert HOST in await self.until(AgentState.READY)
        await self.call("allow_host", sandbox=self.stage.name, host=HOST)

    async def page(self) -> None:
        """As a browser shows it."""
        line = '!chromium "file://$PWD/page.html" >/dev/null 2>&1 &'
        await self.call("send_keys", sandbox=self.stage.name, text=line, keys=["Enter"])
        await asyncio.sleep(GLANCE)
        while not is_page(await self.call("screenshot", sandbox=self.stage.name)):
            await asyncio.sleep(self.poll)


class ByRareLooks(ByKeys):
    """Likewise, with more patience."""

    poll = RARELY


def written(tool: str, arguments: Mapping[str, Any]) -> float:
    """Tokens of a call as the model writes it."""
    return json_tokens({"name": tool, "arguments": arguments})


def checked(result: CallToolResult) -> CallToolResult:
    """No error."""
    assert not result.is_error, words(result)
    return result


def environment() -> dict[str, Any]:
    """Where the agent finds its API."""
    url = f"http://127.0.0.1:{PORT}"
    once = {"CLAUDE_CODE_MAX_RETRIES": "1"}
    return {"env": {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": KEY, **once}}


def is_page(shot: CallToolResult) -> bool:
    """Whether most of the picture is the page."""
    (picture,) = pictures(shot)
    found = picture.convert("RGB").getcolors(1 << 24) or []
    count = sum(number for number, colour in found if colour == COLOUR)
    return count > picture.width * picture.height / 3
