"""The real Codex, in a sandbox without network, as the adapter sees and drives it."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.agents.codex.seed import PROVIDER
from csb_mcp.model import AgentState, ModelUsage
from tests.support.agent_inside import Inside
from tests.support.codex_inside import KEY, SOON, codex_inside
from tests.support.sandboxes import mentions, short_folder

pytestmark = pytest.mark.once  # an agent in a sandbox is the same program whoever runs it

AWKWARD = ("/not a command", "!ls", "It ends with \\", "? for shortcuts", "@file $skill")
ONE = ModelUsage(input=11, output=7, cache_read=5)


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as path:
        yield path
        assert not mentions(str(path)), "processes are left"


def times(count: int) -> ModelUsage:
    return sum((ONE for _ in range(count)), ModelUsage())


async def ready(inside: Inside) -> None:
    """From the start until it waits for a prompt; no dialog comes between."""
    await inside.until_state(AgentState.READY)
    assert AgentState.QUESTION not in inside.states
    assert AgentState.ERROR not in inside.states


async def test_prompts_work_and_end(base: Path) -> None:
    async with codex_inside(base) as inside:
        await ready(inside)

        inside.script.say({"text": "Hello there."})
        await inside.submit("Say hello")
        assert (await inside.finished()).text == "Hello there."
        assert inside.prompts == ["Say hello"]
        await inside.until(lambda _: inside.usage() == ONE, 2)
        await inside.until(lambda _: inside.messages[-1].turn_over, 2)
        assert [m.text for m in inside.messages if m.text] == ["Hello there."]
        assert inside.script.asked()[-1]["key"] == f"Bearer {KEY}"

        long = "\n".join(f"line {n}: äöü 漢字 '\"$`\\ {'x' * 60}" for n in range(1100))
        assert len(long.encode()) > 100_000
        inside.script.say({"text": "That was long."})
        await inside.submit(long)
        await inside.finished()
        assert inside.prompts[-1] == long
        assert long in inside.script.asked()[-1]["last"]

        for text in AWKWARD:
            inside.script.say({"text": "Understood."})
            await inside.submit(text)
            await inside.finished()
            assert inside.prompts[-1].strip() == text.strip()
        await inside.until(lambda _: inside.usage() == times(2 + len(AWKWARD)), 2)

        inside.states.clear()
        inside.script.say({"think": 3, "text": "I have thought."})
        await inside.submit("Think")
        await inside.until_state(AgentState.WORKING)
        await inside.finished()
        turn = [AgentState.READY, AgentState.WORKING, AgentState.READY]
        assert inside.states == turn[-len(inside.states) :]
        finished = inside.kinds().count("finished")

        tool = "text(await tools.exec_command({cmd: 'touch by-code'}));"  # called by code
        inside.script.say({"text": "I begin.", "tools": [["exec", tool]]})
        inside.script.say({"think": 20, "text": "never said"})
        await inside.submit("Go on")
        await inside.until(lambda _: "tool_done" in inside.kinds())
        assert (base / "app/by-code").exists()
        await inside.until_state(AgentState.WORKING)
        await inside.strike(tuple(inside.agent.interrupt()))
        await inside.until_state(AgentState.READY)
        await inside.until(lambda _: inside.kinds().count("finished") > finished)  # by Interrupt
        await inside.until(lambda _: inside.usage() == times(4 + len(AWKWARD)), 2)
        assert [m.tools for m in inside.messages if m.tools] == [(("exec", tool),)]

        await inside.terminal.send("/exit", [])
        await inside.until(lambda fact: fact.draft == "/exit")
        await inside.strike([inside.agent.retry()[0]])
        async with asyncio.timeout(10):
            assert await inside.terminal.wait_exit() == 0
        await inside.look()
        assert inside.kinds()[-1] == "ended"


async def test_questions(base: Path) -> None:
    async with codex_inside(base, "-m", "gpt-5.4") as inside:
        await ready(inside)
        project = base / "app"

        def call(command: str, **more: str) -> dict[str, Any]:
            return {"tools": [["exec_command", {"cmd": command, **more}]]}

        inside.script.say(call("touch unasked"), call("rm -rf unasked"), {"text": "Gone."})
        await inside.submit("Make and remove it")
        question = await inside.question("permission")
        assert (question.tool, question.marked) == ("Bash", "1")
        assert "$ rm -rf unasked" in question.detail
        assert "permission" in inside.kinds()
        assert (project / "unasked").exists()
        await inside.answer(question, "1")
        await inside.finished()
        assert not (project / "unasked").exists()

        (project / "kept").touch()
        inside.script.say(call("rm -rf kept"))
        await inside.submit("Remove another")
        question = await inside.question("permission")
        no = next(option.key for option in question.options if option.label.startswith("No"))
        await inside.answer(question, no)
        await inside.until_state(AgentState.READY)
        assert (project / "kept").exists()

        tall = "rm -rf " + " ".join(f"file-{n}" for n in range(1500))
        inside.script.say(call(tall), {"text": "All gone."})
        await inside.submit("Remove many")
        question = await inside.question("permission")
        assert question.options[-1].key == "esc"  # the last did not fit
        await inside.answer(question, "esc")
        await inside.until_state(AgentState.READY)
        await inside.until(lambda _: inside.usage() == times(5), 2)


async def plan_mode(inside: Inside) -> None:
    """A change of its mode is lost while it still begins, or ends a turn."""
    for _ in range(5):
        await inside.terminal.send(None, ["BTab"])
        with suppress(AssertionError):
            await inside.until(lambda fact: "Plan mode" in fact.detail, 2)
            return
    raise AssertionError("it does not go into plan mode")


async def test_questions_of_a_plan(base: Path) -> None:
    async with codex_inside(base, "-m", "gpt-5.4") as inside:
        await ready(inside)
        inside.script.say({"text": "Hello."})
        await inside.submit("Hello")
        await inside.finished()
        await plan_mode(inside)
        colours = [{"label": name, "description": f"It is {name}"} for name in ("Red", "Blue")]
        asks = [
            {"id": "a", "header": "Colour", "question": "Which colour?", "options": colours},
            {"id": "b", "header": "Size", "question": "Which size?", "options": colours},
        ]
        plan = "<proposed_plan>\n# A plan\n\n- do it\n</proposed_plan>"
        inside.script.say({"tools": [["request_user_input", {"questions": asks}]]}, {"text": plan})
        await inside.submit("Ask me")
        question = await inside.question("choice")
        assert (question.detail, question.free) == ("Which colour?", True)
        await inside.answer(question, "2")
        question = await inside.question("choice")
        assert question.detail == "Which size?"
        await inside.answer(question, "3", "Rather huge")
        question = await inside.question("plan")
        answered = inside.script.asked()[-1]["last"]
        assert "Blue" in answered
        assert "Rather huge" in answered
        inside.script.say({"text": "Done so."})
        await inside.answer(question, "1")
        await inside.until(lambda _: inside.hooks[-1].text == "Done so.")
        assert inside.prompts[-1] == "Implement the plan."


async def test_errors(base: Path) -> None:
    async with codex_inside(base, *SOON) as inside:
        await ready(inside)
        for status, kind in ((500, "overloaded"), (429, "rate_limit"), (401, "login")):
            inside.states.clear()
            inside.script.say({"status": status, "times": 1 if status == 429 else 2})
            await inside.submit(f"Try {status}")
            await inside.until(
                lambda fact, kind=kind: (
                    fact.state is AgentState.ERROR
                    and fact.fault
                    and (fact.fault.kind, fact.draft) == (kind, "")
                )
            )
            await inside.until(lambda _, kind=kind: kind in inside.faults)
            assert AgentState.QUESTION not in inside.states
        assert inside.usage() == ModelUsage()
        inside.script.say({"failed": "insufficient_quota"})
        await inside.submit("Try once more")
        await inside.until(lambda _: "billing" in inside.faults)
        inside.script.say({"text": "Back again."})
        await inside.submit("And now?")
        assert (await inside.finished()).text == "Back again."
        await inside.until(lambda _: inside.usage() == ONE, 2)


async def test_no_network_is_said_while_it_tries(base: Path) -> None:
    async with codex_inside(
        base, "-c", f"model_providers.{PROVIDER}.base_url=http://[::1]:9"
    ) as one:
        await ready(one)
        await one.submit("Anybody there?")
        fact = await one.until(lambda fact: fact.fault)
        assert fact.fault
        assert (fact.state, fact.fault.kind) == (AgentState.WORKING, "network")
        await one.strike(tuple(one.agent.interrupt()))
        fact = await one.until_state(AgentState.READY)
        assert one.usage() == ModelUsage()
