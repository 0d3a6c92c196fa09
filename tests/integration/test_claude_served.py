"""What the real Claude Code does, as the service tells it: states, evidence, usage, cost, exactly.

Several sandboxes at once, for one that thinks for half a minute is in nobody's way.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.app import App, build
from csb_mcp.config import Price
from csb_mcp.errors import CsbError
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    Event,
    Exited,
    Observation,
    Question,
    SandboxSpec,
    Source,
    TerminalIdle,
    TurnFinished,
)
from tests.support import fake_api
from tests.support.claude_inside import KEY, PORT, PROGRAM
from tests.support.fake_api import Script
from tests.support.fake_pieces import store
from tests.support.sandboxes import (
    mentions,
    project_in,
    running_app,
    settings_in,
    short_folder,
)

pytestmark = pytest.mark.once  # an agent in a sandbox is the same program whoever runs it

TOKENS = 11 + 7 + 3 + 5  # of one message of the API's
COST = (11 * 1 + 7 * 10 + 3 * 2 + 5 * 0.1) / 1e6
PRICES = {"claude": Price(1.0, 10.0, 2.0, 0.1)}
ALL = {Source.HOOK, Source.TRANSCRIPT, Source.SCREEN}


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as path:
        yield path
        assert not mentions(str(path)), "processes are left"


@dataclass(slots=True)
class Served:
    """One sandbox with the real agent, and the script of its model."""

    app: App
    id: str
    project: Path
    script: Script

    async def until(self, condition: Condition, cursor: str = "", seconds: float = 40) -> None:
        given = {self.id: cursor} if cursor else {}
        found = await self.app.service.wait(
            [self.id], [condition], mode="any", timeout=seconds, cursor=given
        )
        assert found.satisfied, await self.shown()

    async def shown(self) -> str:
        seen = await self.observed()
        return "\n".join([str(seen.agent), *(text for _, text in seen.terminal.rows)])

    async def observed(self) -> Observation:
        return await self.app.service.observe(self.id, cursor=None)

    async def prompt(self, text: str) -> str:
        """Submit it, with proof; gives the cursor from before it."""
        sent = await self.app.service.send_prompt(self.id, text, queue=False)
        assert sent.proof in ("hook", "transcript")
        return sent.cursor

    async def question(self, kind: str) -> Question:
        async with asyncio.timeout(30):
            while True:
                asked = (await self.observed()).agent.question
                if asked is not None and asked.kind == kind:
                    return asked
                await asyncio.sleep(0.05)

    async def answer(self, question: Question, label: str, text: str | None = None) -> str:
        key = next(one.key for one in question.options if one.label.startswith(label))
        done = await self.app.service.answer(self.id, question.id, key, text=text)
        return done.cursor

    async def events(self, kind: str) -> list[Event]:
        found = await store(self.app.service).events(0, self.id)
        return [event for event in found if event.kind == kind]

    async def so_many(self, kind: str, count: int) -> list[Event]:
        """Events, once there are so many; one may be on its way to the store."""
        async with asyncio.timeout(30):
            while len(found := await self.events(kind)) < count:
                await asyncio.sleep(0.05)
        assert len(found) == count
        return found

    async def story(self) -> str:
        """All that was told of it, for a failure."""
        found = await store(self.app.service).events(0, self.id)
        told = [f"{event.time % 1000:.2f} {event.kind} {dict(event.data)}" for event in found]
        return "\n".join([*told, await self.shown()])

    async def went(self, *states: str) -> None:
        """It had these states, one after another; the last may be on its way to the store."""
        async with asyncio.timeout(5):
            while (last := [e.data["state"] for e in await self.events("agent_state")]) != [
                *states
            ]:
                if len(last) >= len(states):
                    break
                await asyncio.sleep(0.05)
        assert last == [*states]

    async def used(self, messages: int, turns: int) -> None:
        """So many messages of the model, exactly; all sources agree."""
        async with asyncio.timeout(5):
            while (await self.observed()).usage.total.total != messages * TOKENS:
                await asyncio.sleep(0.05)
        found = await self.observed()
        assert found.usage.cost == pytest.approx(messages * COST)
        assert (found.usage.turns, found.usage.unpriced) == (turns, ())
        assert {one.source for one in found.agent.evidence} == ALL
        assert await self.events("stuck") == []


async def served(app: App, base: Path, name: str, **env: str) -> Served:
    """Started, ready, with its API on its own loopback."""
    project = project_in(base, name)
    (project / ".api").mkdir()
    shutil.copy(str(fake_api.__file__), project / ".api/fake_api.py")
    if os.getuid() == 0:
        for path in (project, project / ".api"):
            path.chmod(0o777)
    given = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{PORT}", "ANTHROPIC_API_KEY": KEY, **env}
    spec: dict[str, Any] = {"project_dir": project, "agent": "claude", "env": given}
    made = Served(
        app, (await app.service.create(SandboxSpec(**spec))).id, project, Script(project / ".api")
    )
    line = f"exec python3 -I -B .api/fake_api.py .api {PORT}"
    await app.service.run_command(made.id, line, timeout=10, cwd=None, stdin=None, background=True)
    await made.until(AgentStateIs(AgentState.READY))
    return made


async def thinks(one: Served) -> None:
    one.script.say({"think": 30, "text": "I have thought."})
    cursor = await one.prompt("Think")
    began = time.monotonic()
    await one.until(AgentStateIs(AgentState.WORKING))
    await one.until(TurnFinished(), cursor)
    assert time.monotonic() - began > 28
    await one.until(AgentStateIs(AgentState.READY))
    await one.went("ready", "working", "ready")
    await one.used(1, 1)
    (turn,) = await one.so_many("turn_finished", 1)
    assert (turn.data["said"], turn.data["tokens"]) == ("I have thought.", str(TOKENS))
    assert turn.data["cost"] == f"{COST:.4f}"


async def asks(one: Served) -> None:
    say = one.script.say
    say({"tools": [["Bash", {"command": "touch yes-made"}]]}, {"delay": 1, "text": "Made."})
    cursor = await one.prompt("Make it")
    question = await one.question("permission")
    assert (question.tool, "touch yes-made" in question.detail) == ("Bash", True)
    await one.answer(question, "Yes")
    await one.until(TurnFinished(), cursor)
    assert (one.project / "yes-made").exists()

    say({"tools": [["Bash", {"command": "touch no-made"}]]})
    cursor = await one.prompt("Make another")
    await one.answer(await one.question("permission"), "No")  # which ends the turn
    await one.until(TurnFinished(), cursor)
    assert not (one.project / "no-made").exists()

    colours = [{"label": name, "description": f"It is {name}"} for name in ("Red", "Blue")]
    asked = {"question": "Which?", "header": "Colour", "options": colours, "multiSelect": False}
    say(
        {"tools": [["AskUserQuestion", {"questions": [asked]}]]}, {"delay": 1, "text": "Thank you."}
    )
    cursor = await one.prompt("Ask me")
    question = await one.question("choice")
    assert (question.detail, question.free) == ("Which?", True)
    await one.answer(question, "Blue")
    await one.until(TurnFinished(), cursor)
    assert "Blue" in one.script.asked()[-1]["last"]

    yes, no = ["working", "question", "working", "ready"], ["working", "question", "ready"]
    await one.until(AgentStateIs(AgentState.READY))
    await one.went("ready", *yes, *no, *yes)
    await one.used(5, 3)
    kinds = [event.data["kind"] for event in await one.events("question")]
    assert kinds == ["permission", "permission", "choice"]


async def is_prompted(one: Served) -> None:
    long = "\n".join(f"line {n}: äöü 漢字 '\"$`\\ {'x' * 60}" for n in range(230))
    assert len(long.encode()) > 20_000
    one.script.say({"delay": 2, "text": "That was long."}, {"text": "The second."})
    cursor = await one.prompt(long)
    queued = await one.app.service.send_prompt(one.id, "And one more", queue=True)
    assert queued.queued
    await one.until(TurnFinished(), cursor)
    await one.so_many("turn_finished", 2)
    asked = [request["last"].replace("\r", "") for request in one.script.asked()]
    assert long in asked[-2]
    assert "And one more" in asked[-1]
    (submitted,) = await one.so_many("prompt_submitted", 1)
    assert submitted.data["proof"] in ("hook", "transcript")
    await one.until(AgentStateIs(AgentState.READY))
    await one.went("ready", "working", "ready", "working", "ready")
    await one.used(2, 2)


async def fails(one: Served) -> None:
    for status, kind in ((529, "overloaded"), (401, "login")):
        one.script.say({"status": status, "times": 2})
        await one.prompt(f"Try {status}")
        await one.until(AgentStateIs(AgentState.ERROR))
        async with asyncio.timeout(10):
            while (fault := (await one.observed()).agent.fault) is None or fault.kind != kind:
                await asyncio.sleep(0.05)
        assert fault.hint
    assert (await one.observed()).usage.total.total == 0
    one.script.say({"text": "Back again."})
    cursor = await one.prompt("And now?")
    await one.until(TurnFinished(), cursor)
    await one.until(AgentStateIs(AgentState.READY))
    await one.went("ready", *["working", "error"] * 2, "working", "ready")
    kinds = [event.data["kind"] for event in await one.events("agent_error")]
    assert kinds == ["overloaded", "login"]
    await one.used(1, 3)


async def ends(one: Served) -> None:
    one.script.say({"text": "I begin.", "tools": [["Bash", {"command": "ls"}]]})
    one.script.say({"delay": 60, "text": "never said"})
    cursor = await one.prompt("Go on")
    async with asyncio.timeout(20):
        while len(one.script.asked()) < 2:
            await asyncio.sleep(0.05)
    keys: dict[str, Any] = {"target": "terminal", "paste": False}
    await one.app.service.send_keys(one.id, text=None, keys=["Escape"], **keys)
    await one.until(TurnFinished(), cursor)
    await one.until(AgentStateIs(AgentState.READY))
    await one.went("ready", "working", "ready")
    await one.used(1, 1)
    await one.app.service.send_keys(one.id, text="/exit", keys=[], **keys)
    await one.until(TerminalIdle(1))
    await one.app.service.send_keys(one.id, text=None, keys=["Enter"], **keys)
    await one.until(Exited())
    found = await one.observed()
    assert (found.agent.state, found.usage.total.total) == (AgentState.EXITED, TOKENS)
    assert found.usage.cost == pytest.approx(COST)


async def told(run: Callable[[Served], Awaitable[None]], one: Served) -> None:
    try:
        await run(one)
    except (AssertionError, CsbError, TimeoutError) as error:
        error.add_note(await one.story())
        raise


async def test_all_that_it_does(base: Path) -> None:
    assert PROGRAM.exists(), "Claude Code is not installed: run scripts/setup test"
    runs = {
        thinks: {},
        asks: {},
        is_prompted: {},
        fails: {"CLAUDE_CODE_MAX_RETRIES": "1"},
        ends: {},
    }
    settings = settings_in(base, claude=PROGRAM, prices=PRICES)
    async with running_app(settings) as app, asyncio.TaskGroup() as group:
        for run, env in runs.items():  # one after another: a start takes both processors
            one = await served(app, base, run.__name__, **env)
            group.create_task(told(run, one))
        await outlives_its_daemon(base / "a")  # a daemon of its own, while the first one thinks


async def outlives_its_daemon(base: Path) -> None:
    base.mkdir()
    base.chmod(0o711)
    settings = settings_in(base, claude=PROGRAM, prices=PRICES)
    async with running_app(settings) as app:
        one = await served(app, base, "one")
        one.script.say({"delay": 4, "text": "The first."}, {"text": "The second."})
        cursor = await one.prompt("Work")
        await one.until(AgentStateIs(AgentState.WORKING))
        await app.service.send_prompt(one.id, "And more", queue=True)
        await app.close()

        one.app = await build(settings)
        try:
            began = time.monotonic()
            seen: list[Sequence[AgentState]] = []
            while time.monotonic() - began < 1:
                found = await one.observed()
                seen.append((found.agent.state, found.record.agent_state))
                await asyncio.sleep(0.05)
            assert {state for states in seen for state in states} == {AgentState.WORKING}
            assert (await one.observed()).queued == 1
            await one.until(TurnFinished(), cursor)
            ended = await one.so_many("turn_finished", 2)
            await one.until(AgentStateIs(AgentState.READY))
            await one.went("ready", "working", "ready", "working", "ready")
            turns = [event.data for event in ended]
            assert [turn["said"] for turn in turns] == ["The first.", "The second."]
            assert {turn["tokens"] for turn in turns} == {str(TOKENS)}
            await one.so_many("prompt_submitted", 1)
            await one.used(2, 2)
            await one.app.service.delete(one.id)
        finally:
            await one.app.close()
