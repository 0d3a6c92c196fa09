"""The service supervises the real Codex as it does Claude Code: the same calls, other programs."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Price
from csb_mcp.model import (
    AgentState,
    AgentStateIs,
    Condition,
    Match,
    QuestionAsked,
    SandboxSpec,
    Source,
    TokensOver,
    TurnFinished,
)
from csb_mcp.service.manager import Manager
from tests.support import fake_responses
from tests.support.codex_inside import ENV, PORT, PROGRAM
from tests.support.fake_responses import Script
from tests.support.sandboxes import mentions, project_in, running_app, settings_in, short_folder

pytestmark = pytest.mark.once  # an agent in a sandbox is the same program whoever runs it

TOKENS = 23  # of one response of the API's
NEWS = "raw.githubusercontent.com"  # it has them from there, and that cannot be turned off


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


def with_api(project: Path) -> Script:
    (project / ".api").mkdir()
    shutil.copy(str(fake_responses.__file__), project / ".api/fake_responses.py")
    if os.getuid() == 0:
        for path in (project, project / ".api"):
            path.chmod(0o777)
    return Script(project / ".api")


async def serve(service: Manager, sandbox: str) -> None:
    """The API, on the sandbox's own loopback."""
    line = f"exec python3 -I -B .api/fake_responses.py .api {PORT}"
    await service.run_command(sandbox, line, timeout=10, cwd=None, stdin=None, background=True)


async def test_a_task_from_its_creation_to_its_cost(base: Path) -> None:
    assert PROGRAM.exists(), "Codex is not installed: run scripts/setup test"
    project = project_in(base)
    (project / "old").touch()
    script = with_api(project)
    tool = "text(await tools.exec_command({cmd: 'rm -rf old'}));"
    script.say({"tools": [["exec", tool]]}, {"text": "It is gone."})
    price = Price(1.0, 10.0, 2.0, 0.1)
    settings = settings_in(base, codex=PROGRAM, prices={"gpt": price})
    asked: dict[str, Any] = {"agent": "codex", "task": "Remove a file", "env": ENV}
    asked["network"] = "allowlist"
    async with running_app(settings) as app:
        service = app.service
        sandbox = (await service.create(SandboxSpec(project_dir=project, **asked))).id
        await serve(service, sandbox)

        await until(service, sandbox, "", QuestionAsked())
        question = (await service.observe(sandbox, cursor=None)).agent.question
        assert question is not None
        assert (question.kind, question.tool) == ("permission", "Bash")
        assert "rm -rf old" in question.detail
        assert (project / "old").exists()
        done = await service.answer(sandbox, question.id, question.options[0].key, text=None)
        await until(service, sandbox, done.cursor, TurnFinished())
        assert not (project / "old").exists()

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
        await until(service, sandbox, "", TokensOver(3 * TOKENS - 1))
        used = (await service.observe(sandbox, cursor=None)).usage
        assert (used.turns, used.tool_calls, used.total.total) == (2, 1, 3 * TOKENS)
        assert used.cost == pytest.approx(3 * (11 * 1 + 7 * 10 + 5 * 0.1) / 1e6)

        sought = await service.egress(sandbox)
        assert sought.allowed == ("openai",)
        assert {one.host for one in sought.hosts} <= {NEWS}  # nor does it ask for more

        script.say({"status": 429})
        sent = await service.send_prompt(sandbox, "Too much", queue=False)
        await until(service, sandbox, sent.cursor, AgentStateIs(AgentState.ERROR))
        fault = (await service.observe(sandbox, cursor=None)).agent.fault
        assert fault is not None
        assert fault.kind == "rate_limit"

        typed: dict[str, Any] = {"target": "terminal", "paste": False}
        await service.send_keys(sandbox, text=None, keys=["C-c"], **typed)
        await until(service, sandbox, "", AgentStateIs(AgentState.EXITED))
        assert (await service.get(sandbox)).agent_state is AgentState.EXITED
