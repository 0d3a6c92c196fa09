"""The real Claude Code, in a sandbox without network, as the adapter sees and drives it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from csb_mcp.model import AgentState, ModelUsage
from tests.support.claude_inside import KEY, Inside, claude_inside
from tests.support.sandboxes import mentions, short_folder

pytestmark = pytest.mark.once  # an agent in a sandbox is the same program whoever runs it

# What would be a command, one for a shell, or not be submitted.
AWKWARD = ("/not a command", "!ls", "It ends with \\")
ONE = ModelUsage(input=11, output=7, cache_creation=3, cache_read=5)


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
    await inside.until(lambda _: "started" in inside.kinds())
    assert AgentState.QUESTION not in inside.states
    assert AgentState.ERROR not in inside.states


async def test_prompts_work_and_end(base: Path) -> None:
    async with claude_inside(base) as inside:
        await ready(inside)

        inside.script.say({"text": "Hello there."})
        await inside.submit("Say hello")
        assert (await inside.finished()).text == "Hello there."
        assert inside.prompts == ["Say hello"]
        await inside.until(lambda _: inside.usage() == ONE, 2)
        assert [m.turn_over for m in inside.messages] == [True]
        assert inside.script.asked()[-1]["key"] == KEY

        long = "\n".join(f"line {n}: äöü 漢字 '\"$`\\ {'x' * 60}" for n in range(1100))
        assert len(long.encode()) > 100_000
        inside.script.say({"text": "That was long."})
        await inside.submit(long)
        await inside.finished()
        assert inside.prompts[-1] == long
        assert long in inside.script.asked()[-1]["last"].replace("\r", "")

        for text in AWKWARD:
            inside.script.say({"text": "Understood."})
            await inside.submit(text)
            await inside.finished()
            assert inside.agent.is_prompt(text, inside.prompts[-1])
            assert text in inside.script.asked()[-1]["last"]

        inside.states.clear()
        inside.script.say({"think": 5, "text": "I have thought."})
        await inside.submit("Think")
        await inside.until_state(AgentState.WORKING)
        await inside.finished()
        assert (
            inside.states
            == [AgentState.READY, AgentState.WORKING, AgentState.READY][-len(inside.states) :]
        )
        await inside.until(lambda _: inside.usage() == times(3 + len(AWKWARD)), 2)

        asked = {"description": "Look", "prompt": "Look around", "subagent_type": "general-purpose"}
        inside.script.say({"tools": [["Agent", asked]]}, {"text": "I wait."})
        inside.script.say({"side": True, "delay": 2, "text": "Seen."})
        inside.script.say({"text": "It has looked."})
        await inside.submit("Use another agent")
        await inside.until(lambda _: inside.usage() == times(7 + len(AWKWARD)))
        await inside.until(lambda _: inside.kinds()[-1] == "finished")
        finished = inside.kinds().count("finished")

        inside.script.say({"text": "I begin.", "tools": [["Bash", {"command": "ls"}]]})
        inside.script.say({"delay": 20, "text": "never said"})
        await inside.submit("Go on")
        await inside.until(lambda _: "tool_done" in inside.kinds())
        await inside.until_state(AgentState.WORKING)
        await inside.strike(tuple(inside.agent.interrupt()))
        await inside.until_state(AgentState.READY)
        assert inside.kinds().count("finished") == finished
        await inside.until(lambda _: inside.usage() == times(8 + len(AWKWARD)), 2)
        assert inside.messages[-1].tools == (("Bash", '{"command": "ls"}'),)

        await inside.terminal.send("/exit", ["Enter"])
        assert await inside.terminal.wait_exit() == 0
        await inside.look()
        assert inside.kinds()[-1] == "ended"


async def test_questions(base: Path) -> None:
    async with claude_inside(base, {"ENABLE_TOOL_SEARCH": "false"}) as inside:
        await ready(inside)
        project = base / "app"

        inside.script.say({"tools": [["Bash", {"command": "touch yes-made"}]]}, {"text": "Made."})
        await inside.submit("Make it")
        question = await inside.question("permission")
        assert question.tool == "Bash"
        assert "touch yes-made" in question.detail
        assert "permission" in inside.kinds()
        await inside.answer(question, "1")
        await inside.finished()
        assert (project / "yes-made").exists()

        inside.script.say({"tools": [["Bash", {"command": "touch no-made"}]]}, {"text": "Well."})
        await inside.submit("Make another")
        question = await inside.question("permission")
        no = next(option.key for option in question.options if option.label == "No")
        await inside.answer(question, no, "use another name")
        await inside.finished()
        assert not (project / "no-made").exists()
        assert "use another name" in inside.script.asked()[-1]["last"]

        inside.script.say({"tools": [["Bash", {"command": "touch no-made"}]]})
        await inside.submit("Make it all the same")
        question = await inside.question("permission")
        no = next(option.key for option in question.options if option.label == "No")
        await inside.answer(question, no)
        await inside.until_state(AgentState.READY)
        assert not (project / "no-made").exists()

        colours = [{"label": name, "description": f"It is {name}"} for name in ("Red", "Blue")]
        one = {"question": "Which colour?", "header": "Colour", "options": colours}
        several = {"question": "Which ones?", "header": "Some", "options": colours}
        asks = {"questions": [one | {"multiSelect": False}, several | {"multiSelect": True}]}
        inside.script.say({"tools": [["AskUserQuestion", asks]]}, {"text": "Thank you."})
        await inside.submit("Ask me")
        question = await inside.question("choice")
        assert (question.detail, question.free) == ("Which colour?", True)
        own = next(o.key for o in question.options if o.label.startswith("Type something"))
        await inside.answer(question, own, "Violet")
        question = await inside.question("choice")
        assert question.detail == "Which ones?"
        await inside.answer(question, "1,2")
        question = await inside.question("choice")
        assert question.options[0].label == "Submit answers"
        await inside.answer(question, "1")
        await inside.finished()
        answered = inside.script.asked()[-1]["last"]
        assert "Violet" in answered
        assert "Red" in answered
        assert "Blue" in answered
        await inside.until(lambda _: inside.usage() == times(7), 2)


async def test_errors(base: Path) -> None:
    async with claude_inside(base, {"CLAUDE_CODE_MAX_RETRIES": "1"}) as inside:
        await ready(inside)
        for status, kind in ((529, "overloaded"), (429, "rate_limit"), (401, "login")):
            inside.states.clear()
            failed = inside.kinds().count("failed")
            inside.script.say({"status": status, "times": 2})
            await inside.submit(f"Try {status}")
            await inside.until(
                lambda fact, kind=kind: (
                    fact.state is AgentState.ERROR
                    and fact.fault
                    and (fact.fault.kind, fact.draft) == (kind, "")
                )
            )
            await inside.until(lambda _, seen=failed: inside.kinds().count("failed") > seen)
            await inside.until(lambda _, kind=kind: kind in inside.faults)
            assert AgentState.QUESTION not in inside.states
        assert inside.usage() == ModelUsage()
        inside.script.say({"text": "Back again."})
        await inside.submit("And now?")
        assert (await inside.finished()).text == "Back again."
        await inside.until(lambda _: inside.usage() == ONE, 2)


async def test_a_spool_that_is_gone_or_full_of_lies_stops_nothing(base: Path) -> None:
    async with claude_inside(base) as inside:
        await ready(inside)
        os.rename(inside.spool, inside.spool.parent / "elsewhere")
        inside.script.say({"text": "Still here."})
        await inside.strike(tuple(inside.agent.submit("Go on")))
        inside.spool.mkdir()  # where the look looks; not the sandbox's to write
        await inside.until(lambda _: inside.prompts)
        await inside.until(lambda _: inside.messages and inside.messages[-1].turn_over)
        fact = await inside.until_state(AgentState.READY)
        assert fact.draft == ""
        assert inside.usage() == ONE
