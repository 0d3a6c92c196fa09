"""What is known of an agent outlives the daemon, whatever became of the transcripts meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.config import Price
from csb_mcp.model import (
    AgentFault,
    AgentState,
    Budget,
    Event,
    ModelUsage,
    SandboxState,
    Source,
    Transcript,
    TurnFinished,
)
from csb_mcp.service.agents import fusion, prompts, stuck
from csb_mcp.service.agents.memory import Memory, as_text, from_text
from csb_mcp.service.agents.queue import MAX_QUEUED, Queue
from csb_mcp.service.manager import Manager
from tests.support.fake_agent import FakeAgent
from tests.support.fake_pieces import World, events, eventually, happened, registry, store
from tests.unit.test_supervision import Inside, made, message


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(fusion, "GRACE", 0.2)
    monkeypatch.setattr(fusion, "OLD", 0.4)
    monkeypatch.setattr("csb_mcp.service.agents.judge.GRACE", 0.2)
    monkeypatch.setattr("csb_mcp.service.agents.watch._TICK", 0.05)
    monkeypatch.setattr("csb_mcp.service.agents.chronicle._PAUSE", 0.0)
    monkeypatch.setattr("csb_mcp.service.agents.speaker.RETRY_SECONDS", 0.3)
    monkeypatch.setattr(prompts, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(prompts, "PROVED_SECONDS", 0.8)
    made = World(tmp_path, prices={"model-a": Price(1.0, 10.0, 2.0, 0.1)})
    made.agents["fake"] = FakeAgent()
    return made


@asynccontextmanager
async def again(world: World, inside: Inside) -> AsyncGenerator[Inside]:
    """The same sandbox, with the next daemon; that has read what there is."""
    async with world.service() as service:
        later = Inside(service, world, inside.id)
        await asyncio.wait_for(later.watch.caught_up.wait(), 5)
        yield later


async def told(inside: Inside, kind: str) -> list[Event]:
    return [event for event in await happened(inside.service, inside.id) if event.kind == kind]


async def kept(inside: Inside) -> None:
    """Until the store has what its watch knows."""

    async def same() -> bool:
        text = await store(inside.service).memory(inside.id)
        return text is not None and from_text(text) == inside.watch.memory

    async with asyncio.timeout(5):
        while not await same():
            await asyncio.sleep(0.01)


def test_a_memory_comes_back_as_it_went() -> None:
    memory = Memory(
        state=AgentState.QUESTION,
        stuck=frozenset({"still", "error"}),
        budgets=frozenset({("max_cost", 2.5, True), ("max_turns", 3, False)}),
    )
    assert from_text(as_text(memory)) == memory
    for text in ("", "[]", "{}", '{"state": "x"}', as_text(memory).replace("question", "new")):
        assert from_text(text) is None


# --- state


async def test_a_state_is_right_from_the_first_moment(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        inside.hook("prompt", text="go")
        await inside.shows("working")
        await inside.state(AgentState.WORKING)
        since = inside.watch.view.since
        await kept(inside)
        changes = len(await told(inside, "agent_state"))
    async with world.service() as service:
        view = registry(service).live[inside.id].agent
        assert view is not None
        assert (view.view.state, view.view.since) == (AgentState.WORKING, since)
        later = Inside(service, world, inside.id)
        await eventually(lambda: later.watch.screen.state is AgentState.WORKING)
        await asyncio.sleep(0.3)
        assert later.watch.view.since == since
        assert len(await told(later, "agent_state")) == changes
        hook = next(e for e in later.watch.view.evidence if e.source is Source.HOOK)
        assert hook.says is AgentState.WORKING


async def test_what_changed_without_a_daemon_is_seen_within_a_second(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("working")
        await inside.state(AgentState.WORKING)
        await kept(inside)
    inside.terminal.show("question q1 permission", "1 Yes")
    async with world.service() as service:
        later = Inside(service, world, inside.id)
        async with asyncio.timeout(1):
            await later.state(AgentState.QUESTION)
        await eventually(lambda: registry(service).find(inside.id).agent_state == "question")
        await kept(later)
    async with again(world, inside) as later:
        await later.state(AgentState.QUESTION)
        await asyncio.sleep(0.2)
        assert len(await told(later, "question")) == 1


async def test_a_turn_that_ended_without_a_daemon_is_told_of(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("ready")
        await inside.state(AgentState.READY)
        inside.hook("prompt", text="go")
        await inside.state(AgentState.WORKING)
        cursor = (await service.observe(inside.id, cursor=None)).terminal.cursor
        await kept(inside)
    inside.hook("finished", text="all done")
    inside.news.append(Transcript(messages=(message(70, turn_over=True),)))
    async with again(world, inside) as later:
        assert (await later.waited(TurnFinished(), cursor=cursor)).satisfied
        await eventually(lambda: not later.watch.changes)
        await asyncio.sleep(0.1)
        (event,) = await told(later, "turn_finished")
        assert (event.data["said"], event.data["tokens"]) == ("all done", "70")


# --- usage


async def test_usage_outlives_daemon_and_transcripts(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("ready")
        for turn, tokens in ((1, 100), (2, 20)):
            inside.hook("prompt", text="go")
            await eventually(lambda turn=turn: inside.watch.usage.turns == turn)
            inside.news.append(Transcript(messages=(message(tokens, tools=(("Bash", "ls"),)),)))
            await eventually(lambda: not inside.news)
        await eventually(lambda: inside.watch.usage.total.total == 120)
        usage = inside.watch.usage
        await kept(inside)
    async with again(world, inside) as later:  # the transcripts were deleted
        assert later.watch.usage == usage
        later.news.append(Transcript(messages=(message(5),)))
        await eventually(lambda: later.watch.usage.total.total == 125)
        await kept(later)
    # They are there again, and more was written.
    whole = (message(100, tools=(("Bash", "ls"),)), message(20), message(5), message(7))
    inside.news.append(Transcript(messages=whole, prompts=("go", "go", "go")))
    async with again(world, inside) as later:
        found = later.watch.usage
        assert found.models == {"model-a-1": ModelUsage(output=132)}
        assert (found.turn.output, found.turns, found.tool_calls) == (32, 3, 2)
        assert found.cost == pytest.approx(0.00132)


async def test_usage_is_known_after_the_end(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("working")
        inside.news.append(Transcript(messages=(message(10),)))
        await eventually(lambda: inside.watch.usage.total.total == 10)
        inside.news.append(Transcript(messages=(message(3),)))  # as it ends
        await service.stop(inside.id)
        assert (await service.observe(inside.id, cursor=None)).usage.total.total == 13
    async with world.service() as service:
        usage = (await service.observe(inside.id, cursor=None)).usage
        assert (usage.total.total, usage.cost) == (13, pytest.approx(0.00013))
        await service.delete(inside.id)
        assert await store(service).memories() == {}


# --- budgets and stuck


async def test_a_budget_is_told_of_once(world: World) -> None:
    history = [message(85)]
    async with world.service() as service:
        inside = await made(service, world, budget=Budget(max_tokens=100))
        inside.news.append(Transcript(messages=tuple(history)))
        await eventually(lambda: inside.watch.budgets)
    for _ in range(2):
        inside.news.append(Transcript(messages=tuple(history)))
        async with again(world, inside) as later:
            await asyncio.sleep(0.2)
            assert [event.data["percent"] for event in await told(later, "budget")] == ["85"]
            assert registry(later.service).find(inside.id).state is SandboxState.RUNNING
    history.append(message(15))
    inside.news.append(Transcript(messages=tuple(history)))
    async with again(world, inside) as later:
        find = registry(later.service).find
        await eventually(lambda: find(inside.id).state is SandboxState.PAUSED)
        await eventually(lambda: find(inside.id).warnings)
    inside.news.append(Transcript(messages=tuple(history)))
    async with again(world, inside) as later:
        await asyncio.sleep(0.2)
        assert [event.data["percent"] for event in await told(later, "budget")] == ["85", "100"]
        assert len(await told(later, "paused")) == 1
        resumed = await later.service.resume(inside.id, Budget(max_tokens=120))
        assert resumed.state is SandboxState.RUNNING
        await asyncio.sleep(0.2)
        used = [event.data["used"] for event in await told(later, "budget")]
        assert used[2:] == ["max_tokens 120, used 100"]


async def test_a_used_up_budget_pauses_though_a_daemon_died_in_between(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world, budget=Budget(max_tokens=100))
        inside.news.append(Transcript(messages=(message(100),)))
        await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)
        await eventually(lambda: registry(service).find(inside.id).warnings)
        await kept(inside)
        record = registry(service).find(inside.id)
        object.__setattr__(record, "state", SandboxState.RUNNING)
        await registry(service).put(record)
    async with again(world, inside) as later:
        find = registry(later.service).find
        await eventually(lambda: find(inside.id).state is SandboxState.PAUSED)
        assert [event.data["percent"] for event in await told(later, "budget")] == ["100"]


async def test_stuck_is_told_of_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "ERROR_SECONDS", 0.2)
    calls = [message(1, tools=(("Bash", "ls 1"),)) for _ in range(6)]
    async with world.service() as service:
        inside = await made(service, world)
        inside.news.append(Transcript(messages=tuple(calls)))
        await inside.shows("error 401 no key")
        await eventually(lambda: inside.watch.memory.stuck == frozenset({"error"}))
        await eventually(lambda: not inside.watch.changes)
        await kept(inside)
    inside.news.append(Transcript(messages=tuple(calls)))
    async with again(world, inside) as later:
        await asyncio.sleep(0.5)
        whys = [event.data["why"] for event in await told(later, "stuck")]
        assert sorted(whys) == ["error", "repeats"]
        await kept(later)
    calls += [message(1, tools=(("Bash", "ls 2"),)) for _ in range(5)]  # meanwhile
    inside.news.append(Transcript(messages=tuple(calls)))
    async with again(world, inside) as later:
        await eventually(lambda: not later.watch.changes)
        await asyncio.sleep(0.2)
        whys = [event.data["why"] for event in await told(later, "stuck")]
        assert sorted(whys) == ["error", "repeats", "repeats"]


# --- queued prompts


async def queued(service: Manager, world: World, *texts: str) -> Inside:
    """A sandbox that asks something, with prompts that wait for its answer."""
    inside = await made(service, world)
    await inside.shows("question q1 trust", "1 Yes")
    await inside.state(AgentState.QUESTION)
    for text in texts:
        assert (await service.send_prompt(inside.id, text, queue=True)).queued
    return inside


def takes(inside: Inside) -> None:
    """Its agent takes what is typed for a prompt, and works on it for no time."""

    def act(typed: str) -> None:
        if not typed.startswith("<"):
            inside.hook("prompt", text=typed)
            inside.hook("finished")

    inside.when_typed(act)


async def test_queued_prompts_are_submitted_by_the_next_daemon(world: World) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "one", "two\nlines")
    takes(inside)
    inside.terminal.show("ready")
    async with again(world, inside) as later:
        await eventually(lambda: len(later.watch.queue) == 0)
        await eventually(lambda: "two\nlines" in later.terminal.typed)
        assert [text for text in later.terminal.typed if text[0] != "<"] == ["one", "two\nlines"]
        await asyncio.sleep(0.1)
        proofs = [event.data["proof"] for event in await told(later, "prompt_submitted")]
        assert proofs == ["hook", "hook"]
    async with again(world, inside) as later:
        await asyncio.sleep(0.2)
        assert len(later.terminal.typed) == 4  # two texts, two times Enter
        assert (await later.service.observe(inside.id, cursor=None)).queued == 0


async def test_one_that_was_typed_is_not_typed_again(world: World) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "go on", "next")
        (first, _) = await store(service).prompts(inside.id)
        await store(service).mark_prompt(first.id, 2)  # and then it was killed
    inside.terminal.show("ready")
    # Two of the same words were there before; they prove nothing.
    inside.news.append(Transcript(prompts=("go on", "go on")))
    takes(inside)
    async with again(world, inside) as later:
        await eventually(lambda: len(later.watch.queue) == 0)
        assert "go on" not in later.terminal.typed
        assert later.terminal.typed == ["next", "<Enter>"]
        await asyncio.sleep(0.1)
        (failed,) = await told(later, "prompt_failed")
        assert "nothing shows it submitted" in failed.data["reason"]
        assert len(await told(later, "prompt_submitted")) == 1


@pytest.mark.parametrize("by", ["transcript", "hook"])
async def test_one_that_was_submitted_is_found_to_be(world: World, by: str) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "go on")
        (first,) = await store(service).prompts(inside.id)
        await store(service).mark_prompt(first.id, 1)
    inside.terminal.show("working")
    third = ("go on",) if by == "transcript" else ()
    inside.news.append(Transcript(prompts=("go on", *third)))
    if by == "hook":
        inside.hook("prompt", text="go on")
    async with again(world, inside) as later:
        await eventually(lambda: len(later.watch.queue) == 0)
        await asyncio.sleep(0.1)
        (event,) = await told(later, "prompt_submitted")
        assert (event.data["proof"], later.terminal.typed) == (by, [])


async def test_what_stands_in_the_input_line_is_submitted(world: World) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "go on")
        (first,) = await store(service).prompts(inside.id)
        await store(service).mark_prompt(first.id, 0)
    inside.terminal.show("ready", "> go on")

    def act(typed: str) -> None:
        assert typed == "<Enter>"
        inside.hook("prompt", text="go on")

    inside.when_typed(act)
    async with again(world, inside) as later:
        await eventually(lambda: len(later.watch.queue) == 0)
        await asyncio.sleep(0.1)
        assert later.terminal.typed == ["<Enter>"]
        assert len(await told(later, "prompt_submitted")) == 1


async def test_a_prompt_of_before_is_no_proof(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("ready")
        await inside.state(AgentState.READY)
    inside.news.append(Transcript(prompts=("go on",)))
    inside.when_typed(lambda typed: typed == "go on" and inside.hook("prompt", text="go on"))
    async with world.service() as service:
        sent = await service.send_prompt(inside.id, "go on", queue=False)
        assert sent.proof == "hook"


async def test_nothing_is_typed_while_it_is_paused(world: World) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "one")
        await service.pause(inside.id)
    takes(inside)
    inside.terminal.show("ready")
    async with again(world, inside) as later:
        await later.state(AgentState.READY)
        await asyncio.sleep(0.3)
        assert later.terminal.typed == []
        await later.service.resume(inside.id)
        await eventually(lambda: len(later.watch.queue) == 0)
        assert later.terminal.typed == ["one", "<Enter>"]


async def test_its_end_is_told_of_for_each_that_waits(world: World) -> None:
    async with world.service() as service:
        stopped = await queued(service, world, "one", "two")
        await service.stop(stopped.id)
        assert len(await told(stopped, "prompt_failed")) == 2
        lost = await queued(service, world, "three")
    world.trees.clear()
    async with world.service() as service:
        (event,) = [e for e in await happened(service, lost.id) if e.kind == "prompt_failed"]
        assert event.data["reason"] == "the sandbox ended before its turn came"
        assert await store(service).prompts() == []


async def test_the_queue_has_an_end(world: World) -> None:
    async with world.service() as service:
        queue = Queue("a1234567", store(service), events(service))
        results: list[Any] = await asyncio.gather(
            *(queue.put(f"{number}") for number in range(MAX_QUEUED + 4)), return_exceptions=True
        )
        assert sum(result is None for result in results) == MAX_QUEUED == len(queue)


async def test_an_old_fault_is_none_of_today(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("ready")
        await inside.state(AgentState.READY)
        await kept(inside)
    old = AgentFault(kind="login", words="log in", hint="")
    inside.news.append(Transcript(faults=(old,)))
    async with again(world, inside) as later:
        later.hook("failed", text="another")
        await asyncio.sleep(0.05)
        later.terminal.show("error 529 overloaded")
        await later.state(AgentState.ERROR)
        await eventually(lambda: later.watch.view.fault is not None)
        assert later.watch.view.fault is not None
        assert later.watch.view.fault.kind == "rate_limit"


async def test_a_look_that_finds_nothing_is_not_the_end_of_what_was_before(world: World) -> None:
    """A line that is too long to be read, say: what stands behind it was counted already."""
    async with world.service() as service:
        inside = await made(service, world)
        inside.news.append(Transcript(messages=(message(100),)))
        await eventually(lambda: inside.watch.usage.total.total == 100)
        await kept(inside)
    inside.news.extend([Transcript(more=True), Transcript(messages=(message(100),), more=True)])
    async with again(world, inside) as later:
        await eventually(lambda: not inside.news)
        await asyncio.sleep(0.1)  # until what was read last is counted, if it is
        assert later.watch.usage.total.total == 100


async def test_a_pause_while_it_is_typed_fails_no_queued_prompt(world: World) -> None:
    async with world.service() as service:
        inside = await queued(service, world, "go on")
        inside.terminal.show("ready")
        await eventually(lambda: "<Enter>" in inside.terminal.typed)
        await service.pause(inside.id)
        await asyncio.sleep(1.0)  # longer than a proof may take
        assert not await told(inside, "prompt_failed")
        inside.hook("prompt", text="go on")
        await service.resume(inside.id)
        await eventually(lambda: len(inside.watch.queue) == 0)
        await asyncio.sleep(0.1)
        assert len(await told(inside, "prompt_submitted")) == 1
        assert not await told(inside, "prompt_failed")
