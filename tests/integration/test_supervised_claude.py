"""The service supervises the real Claude Code: task, question, answer, end of the turn, cost."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Price
from csb_mcp.errors import Conflict
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    Match,
    QuestionAsked,
    SandboxSpec,
    Source,
    TerminalIdle,
    TokensOver,
    TurnFinished,
)
from csb_mcp.service.manager import Manager
from tests.support.claude_inside import KEY, PORT, PROGRAM, with_api
from tests.support.fake_api import Script
from tests.support.sandboxes import (
    mentions,
    project_in,
    running_app,
    settings_in,
    short_folder,
)

pytestmark = pytest.mark.once

TOKENS = 26  # of one message of the API's


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as path:
        yield path
        assert not mentions(str(path)), "processes are left"


async def until(service: Manager, sandbox: str, cursor: str, condition: Condition) -> Match:
    given = {sandbox: cursor} if cursor else {}
    found = await service.wait([sandbox], [condition], mode="any", timeout=40, cursor=given)
    seen = (await service.observe(sandbox, cursor=None)).terminal
    assert found.satisfied, "\n".join(text for _, text in seen.rows)
    return found.matches[0]


async def serve(service: Manager, sandbox: str) -> None:
    """The API, on the sandbox's own loopback."""
    line = f"exec python3 -I -B .api/fake_api.py .api {PORT}"
    await service.run_command(sandbox, line, timeout=10, cwd=None, stdin=None, background=True)


async def test_a_task_from_its_creation_to_its_cost(base: Path) -> None:
    assert PROGRAM.exists(), "Claude Code is not installed: run scripts/setup test"
    project = with_api(project_in(base))
    script = Script(project / ".api")
    script.say({"tools": [["Bash", {"command": "touch made"}]]}, {"text": "It is made."})
    price = Price(1.0, 10.0, 2.0, 0.1)
    settings = settings_in(base, claude=PROGRAM, prices={"claude": price})
    env = {"ANTHROPIC_BASE_URL": f"http://127.0.0.1:{PORT}", "ANTHROPIC_API_KEY": KEY}
    asked: dict[str, Any] = {"agent": "claude", "task": "Make a file", "env": env}
    async with running_app(settings) as app:
        service = app.service
        sandbox = (await service.create(SandboxSpec(project_dir=project, **asked))).id
        await serve(service, sandbox)

        await until(service, sandbox, "", QuestionAsked())
        question = (await service.observe(sandbox, cursor=None)).agent.question
        assert question is not None
        assert (question.kind, question.tool) == ("permission", "Bash")
        assert "touch made" in question.detail
        assert not (project / "made").exists()
        with pytest.raises(Conflict):
            await service.send_prompt(sandbox, "Too early", queue=False)
        with pytest.raises(Conflict):
            await service.answer(sandbox, "another", "1", text=None)
        done = await service.answer(sandbox, question.id, question.options[0].key, text=None)
        await until(service, sandbox, done.cursor, TurnFinished())
        assert (project / "made").exists()

        script.say({"text": "Again."})
        sent = await service.send_prompt(sandbox, "And\nonce more äöü", queue=False)
        assert (sent.proof, sent.retried) == ("hook", False)
        await until(service, sandbox, sent.cursor, TurnFinished())

        found = await service.observe(sandbox, cursor=sent.cursor)
        assert {one.source for one in found.agent.evidence} == {
            Source.HOOK,
            Source.TRANSCRIPT,
            Source.SCREEN,
        }
        watch = service.events(0)
        kinds: list[str] = []
        async for event in watch:
            kinds.append(event.kind)
            if kinds.count("turn_finished") == 2:
                break
        assert "question" in kinds
        await until(service, sandbox, "", TokensOver(3 * TOKENS - 1))
        used = (await service.observe(sandbox, cursor=None)).usage
        assert (used.turns, used.tool_calls, used.total.total) == (2, 1, 3 * TOKENS)
        assert used.cost == pytest.approx(3 * (11 * 1 + 7 * 10 + 3 * 2 + 5 * 0.1) / 1e6)

        typed: dict[str, Any] = {"target": "terminal", "paste": False}
        await service.send_keys(sandbox, text="/exit", keys=[], **typed)
        await until(service, sandbox, "", TerminalIdle(1))
        await service.send_keys(sandbox, text=None, keys=["Enter"], **typed)
        await until(service, sandbox, "", AgentStateIs(AgentState.EXITED))
        assert (await service.get(sandbox)).agent_state is AgentState.EXITED
