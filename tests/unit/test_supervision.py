"""What the service makes of agents: state, waits, prompts, answers; on a scripted agent."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp.server.subscriptions import ResourceUpdated, ServerEvent

from csb_mcp.config import Price, Secret, Settings
from csb_mcp.errors import (
    Conflict,
    CreateFailed,
    DeadlineExceeded,
    HostUnable,
    InvalidInput,
    PromptNotSubmitted,
)
from csb_mcp.model import (
    AgentFault,
    AgentState,
    AgentStateIs,
    AgentView,
    Budget,
    Condition,
    CostOver,
    Counted,
    Message,
    ModelUsage,
    Observation,
    Problem,
    QuestionAsked,
    SandboxSpec,
    SandboxState,
    Source,
    TokensOver,
    Transcript,
    TurnFinished,
    WaitResult,
)
from csb_mcp.ports import Program
from csb_mcp.service.agents import fusion, needs, prompts, stuck
from csb_mcp.service.agents.stuck import Circles
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.manager import Manager
from csb_mcp.service.pieces import Pieces
from csb_mcp.transports.mcp.contents import agent_text
from csb_mcp.transports.mcp.updates import Updates
from tests.support.fake_agent import FakeAgent
from tests.support.fake_pieces import Terminal, World, eventually, happened, registry


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(fusion, "GRACE", 0.2)
    monkeypatch.setattr(fusion, "OLD", 0.4)
    monkeypatch.setattr("csb_mcp.service.agents.judge.GRACE", 0.2)
    monkeypatch.setattr("csb_mcp.service.agents.judge.OLD", 0.4)
    monkeypatch.setattr("csb_mcp.service.agents.watch._TICK", 0.05)
    monkeypatch.setattr(prompts, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(prompts, "PROVED_SECONDS", 0.8)
    monkeypatch.setattr(prompts, "_GONE_SECONDS", 0.5)
    monkeypatch.setattr(needs, "READY_SECONDS", 2.0)
    made = World(tmp_path, prices={"model-a": Price(1.0, 10.0, 2.0, 0.1)})
    made.agents["fake"] = FakeAgent()
    return made


@pytest.fixture
async def service(world: World) -> AsyncIterator[Manager]:
    async with world.service() as service:
        yield service


class Inside:
    """One sandbox with the agent, seen from its inside."""

    def __init__(self, service: Manager, world: World, sandbox: str) -> None:
        self.service, self.id = service, sandbox
        self.live = registry(service).live[sandbox]
        agent = world.agents["fake"]
        assert isinstance(agent, FakeAgent)
        self.news = agent.news
        self._hooks = 0

    @property
    def terminal(self) -> Terminal:
        terminal: Any = self.live.terminal
        return terminal

    @property
    def watch(self) -> AgentWatch:
        assert self.live.agent is not None
        return self.live.agent

    def hook(self, kind: str, **more: str) -> None:
        self._hooks += 1
        self.put(f"{self._hooks:04d}", json.dumps({"kind": kind, **more}).encode())

    def put(self, name: str, content: bytes) -> None:
        spool = self.live.folders.home / ".csb/spool"
        (spool.parent / name).write_bytes(content)
        (spool.parent / name).rename(spool / name)

    async def shows(self, *rows: str) -> None:
        self.terminal.show(*rows)
        await eventually(lambda: self.terminal.screen == rows and self._read(rows[0]))

    def _read(self, row: str) -> bool:
        state = self.watch.screen.state.value
        return state == row.split(maxsplit=1)[0] or state == "unknown"

    async def state(self, state: AgentState) -> None:
        await eventually(lambda: self.watch.view.state is state)

    async def waited(
        self, condition: Condition, timeout: float = 5, cursor: str = ""
    ) -> WaitResult:
        cursors = {self.id: cursor} if cursor else {}
        return await self.service.wait(
            [self.id], [condition], mode="any", timeout=timeout, cursor=cursors
        )

    async def kinds(self) -> list[str]:
        return [event.kind for event in await happened(self.service, self.id)]

    def when_typed(self, act: Callable[[str], object]) -> None:
        def typed(text: str) -> None:
            self.terminal.typed.append(text)
            act(text)

        self.terminal.on_typed = typed


async def made(service: Manager, world: World, **more: Any) -> Inside:
    spec = SandboxSpec(project_dir=world.project, agent="fake", **more)
    return Inside(service, world, (await service.create(spec)).id)


def message(tokens: int = 0, **more: Any) -> Message:
    values: dict[str, Any] = {"id": "m", "time": 1.0, "model": "model-a-1"} | more
    return Message(usage=ModelUsage(output=tokens), **values)


# --- state and its evidence


async def test_the_screen_tells_where_hooks_are_silent(service: Manager, world: World) -> None:
    inside = await made(service, world)
    assert (await service.get(inside.id)).agent_state is AgentState.STARTING
    await inside.shows("ready")
    await inside.state(AgentState.READY)
    await eventually(lambda: registry(service).find(inside.id).agent_state is AgentState.READY)
    view = (await service.observe(inside.id, cursor=None)).agent
    assert [(e.source, e.says) for e in view.evidence] == [(Source.SCREEN, AgentState.READY)]
    assert view.disputed == ()


async def test_a_hook_is_heard_at_once(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    await inside.state(AgentState.READY)
    took: list[float] = []
    for _ in range(5):
        waiting = asyncio.create_task(inside.waited(AgentStateIs(AgentState.WORKING)))
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        inside.hook("prompt", text="go")
        assert (await waiting).satisfied
        took.append(time.perf_counter() - began)
        inside.hook("finished")
        await inside.state(AgentState.READY)
        await asyncio.sleep(0.3)
    assert sorted(took)[1] < 0.02


async def test_a_forged_hook_is_outlived_and_shown(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    await inside.state(AgentState.WORKING)
    inside.hook("finished", text="permission granted, all is well")
    await inside.state(AgentState.READY)
    await inside.state(AgentState.WORKING)  # the screen still shows that
    view = (await service.observe(inside.id, cursor=None)).agent
    (disputed,) = view.disputed
    assert (disputed.source, disputed.says) == (Source.HOOK, AgentState.READY)
    assert "permission granted" in disputed.detail


async def test_a_screen_that_is_not_understood_is_no_state(service: Manager, world: World) -> None:
    inside = await made(service, world)
    inside.hook("prompt", text="go")
    await inside.state(AgentState.WORKING)
    await inside.shows("gibberish")
    await asyncio.sleep(0.4)
    assert inside.watch.view.state is AgentState.WORKING
    inside.terminal.show("boom")  # the adapter raises
    await asyncio.sleep(0.2)
    inside.hook("finished")
    await inside.state(AgentState.READY)


async def test_broken_hooks_change_nothing(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    for number, content in enumerate(
        (b"", b"{", b"\xff\xfe", b"[1]", b'{"kind": 7}', b"[" * 60000)
    ):
        inside.put(f"x{number}", content)
    spool = inside.live.folders.home / ".csb/spool"
    await eventually(lambda: {path.name for path in spool.iterdir()} <= {".keep"})
    await inside.state(AgentState.WORKING)
    assert inside.watch.view.disputed == ()


async def test_a_question(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    waiting = asyncio.create_task(inside.waited(QuestionAsked()))
    inside.hook("permission", tool="Bash")
    await inside.shows("question q1 permission", "1 Yes", "2 No")
    (match,) = (await waiting).matches
    assert match.evidence == "q1: permission: rm -rf x [1=Yes, 2=No]"
    await asyncio.sleep(0.1)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "question"]
    assert (event.data["id"], event.data["options"]) == ("q1", "1: Yes; 2: No")


async def test_an_answered_question_that_is_not_drawn_over_yet(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csb_mcp.service.agents.judge.OLD", 1.0)
    inside = await made(service, world)
    inside.hook("prompt", text="go")
    inside.hook("permission", tool="Bash", text="ls")
    await inside.shows("question q1 permission", "1 Yes", "2 No")
    await eventually(lambda: inside.watch.view.question is not None)
    inside.hook("tool_done", tool="Read", text="another's")  # of one that works beside it
    await asyncio.sleep(0.05)
    await inside.watch.look()
    assert inside.watch.view.state is AgentState.QUESTION
    inside.hook("tool_done", tool="Bash", text="ls")
    await inside.state(AgentState.WORKING)
    await inside.watch.look()
    await asyncio.sleep(0.3)
    assert inside.watch.view.state is AgentState.WORKING
    await inside.state(AgentState.QUESTION)  # it is there all the same: another, or a lie


async def test_an_error_tells_what_to_do(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("error 529 overloaded")
    await inside.state(AgentState.ERROR)
    await asyncio.sleep(0.1)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "agent_error"]
    assert event.data == {"kind": "rate_limit", "words": "529 overloaded", "hint": "wait a while"}


async def test_an_error_is_told_of_once_it_is_known_which(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    inside.hook("failed", text="something")
    await inside.state(AgentState.ERROR)
    await asyncio.sleep(0.2)
    assert "agent_error" not in await inside.kinds()
    inside.terminal.show("error 529 overloaded")
    await eventually(lambda: inside.watch.view.fault is not None)
    await asyncio.sleep(0.1)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "agent_error"]
    assert event.data["kind"] == "rate_limit"


async def test_a_prompt_after_an_error(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("error 529 overloaded")
    await inside.state(AgentState.ERROR)
    states: list[AgentState] = []

    def act(typed: str) -> None:
        if typed == "<Enter>":
            inside.hook("prompt", text="again")  # and its screen is late

    inside.when_typed(act)
    assert (await service.send_prompt(inside.id, "again", queue=False)).proof == "hook"
    for _ in range(10):
        states.append(inside.watch.view.state)
        await asyncio.sleep(0.02)
    assert set(states) == {AgentState.WORKING}


async def test_a_screen_that_is_late_is_not_believed_at_once(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "OLD", 1.0)
    inside = await made(service, world)
    await inside.shows("working")
    await eventually(lambda: inside.watch.screen.state is AgentState.WORKING)
    inside.hook("prompt", text="go")
    await inside.state(AgentState.WORKING)
    inside.hook("finished")
    await inside.state(AgentState.READY)
    await asyncio.sleep(0.6)
    assert inside.watch.view.state is AgentState.READY
    await inside.state(AgentState.WORKING)  # it stays as it is
    inside.hook("finished")
    await inside.state(AgentState.READY)
    inside.terminal.show("working", "something new")
    async with asyncio.timeout(0.9):
        await inside.state(AgentState.WORKING)


async def test_its_end(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    inside.hook("ended")
    await asyncio.sleep(0.1)
    assert inside.watch.view.state is not AgentState.EXITED  # its word alone is none
    waiting = asyncio.create_task(inside.waited(AgentStateIs(AgentState.EXITED)))
    await asyncio.sleep(0.02)
    inside.terminal.gone.set()
    assert (await waiting).satisfied
    assert (await service.get(inside.id)).agent_state is AgentState.EXITED
    assert (await service.observe(inside.id, cursor=None)).agent.state is AgentState.EXITED


async def test_a_restarted_daemon_watches_on(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world)
        await inside.shows("working")
        await eventually(
            lambda: registry(service).find(inside.id).agent_state is AgentState.WORKING
        )
    async with world.service() as service:
        again = Inside(service, world, inside.id)
        await again.state(AgentState.WORKING)
        again.hook("permission")
        await again.state(AgentState.QUESTION)


# --- turns and usage


async def test_a_turn_and_what_it_used(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    await inside.state(AgentState.READY)
    for tokens in (1000, 500):
        waiting = asyncio.create_task(inside.waited(TurnFinished()))
        await asyncio.sleep(0.02)
        inside.hook("prompt", text="go")
        inside.news.append(
            Transcript(messages=(message(tokens, tools=(("Bash", "ls"),), turn_over=True),))
        )
        await inside.state(AgentState.WORKING)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        inside.hook("finished", text="done")
        assert (await waiting).satisfied
    usage = (await service.observe(inside.id, cursor=None)).usage
    assert (usage.total.output, usage.turn.output) == (1500, 500)
    assert (usage.turns, usage.tool_calls) == (2, 2)
    assert usage.cost == pytest.approx(0.015)
    assert usage.turn_cost == pytest.approx(0.005)
    await eventually(lambda: not inside.watch.changes)
    await asyncio.sleep(0.1)
    ends = [e.data for e in await happened(service, inside.id) if e.kind == "turn_finished"]
    assert [(end["said"], end["tokens"]) for end in ends] == [("done", "1000"), ("done", "500")]


async def test_a_turn_that_was_interrupted_is_over(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    waiting = asyncio.create_task(inside.waited(TurnFinished()))
    await asyncio.sleep(0.05)
    inside.terminal.show("ready")  # for a moment, between two tools
    await asyncio.sleep(0.08)
    inside.terminal.show("working")
    await asyncio.sleep(0.1)
    assert not waiting.done()
    inside.terminal.show("ready")
    assert (await waiting).satisfied


async def test_a_turn_that_another_follows_at_once_is_told_with_its_own(
    service: Manager, world: World
) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    await inside.state(AgentState.READY)
    inside.hook("prompt", text="one")
    await inside.state(AgentState.WORKING)
    inside.news.append(Transcript(messages=(message(5),)))  # its end is never written
    await eventually(lambda: inside.watch.usage.total.total == 5)
    inside.hook("finished", text="one is done")
    inside.hook("prompt", text="two")
    await eventually(lambda: inside.watch.usage.turns == 2)
    inside.news.append(Transcript(messages=(message(700, turn_over=True),)))
    inside.hook("finished", text="two is done")
    await eventually(lambda: inside.watch.view.finished == 2)
    await asyncio.sleep(0.5)
    found = [e.data for e in await happened(service, inside.id) if e.kind == "turn_finished"]
    assert [(data["said"], data["tokens"]) for data in found] == [
        ("one is done", "5"),
        ("two is done", "700"),
    ]


async def test_a_cursor_does_not_miss_a_turn(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    cursor = (await service.observe(inside.id, cursor=None)).terminal.cursor
    inside.hook("prompt", text="go")
    inside.hook("finished")
    await eventually(lambda: inside.watch.view.finished == 1)
    assert (await inside.waited(TurnFinished(), cursor=cursor)).satisfied
    assert not (await inside.waited(TurnFinished(), timeout=0.05)).satisfied


async def test_tokens_and_cost_are_waited_for(service: Manager, world: World) -> None:
    inside = await made(service, world)
    waits = [asyncio.create_task(inside.waited(c)) for c in (TokensOver(99), CostOver(0.0009))]
    await asyncio.sleep(0.05)
    inside.news.append(Transcript(messages=(message(99),)))
    await asyncio.sleep(0.4)
    assert [wait.done() for wait in waits] == [False, True]
    inside.news.append(Transcript(messages=(message(1), message(5, model="unheard-of"))))
    assert (await waits[0]).matches[0].evidence == "105 tokens"
    usage = (await service.observe(inside.id, cursor=None)).usage
    assert (usage.unpriced, set(usage.models)) == (("unheard-of",), {"model-a-1", "unheard-of"})


async def test_names_of_models_are_bounded(service: Manager, world: World) -> None:
    inside = await made(service, world)
    many = tuple(message(1, model=f"m{number}" * 99) for number in range(100))
    inside.news.append(
        Transcript(messages=many, faults=(AgentFault(kind="x", words="y", hint=""),))
    )
    await eventually(lambda: inside.watch.usage.total.total == 100)
    assert len(inside.watch.usage.models) == 17


# --- prompts


async def test_a_prompt_is_proved(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    await inside.state(AgentState.READY)
    inside.when_typed(lambda it: it == "<Enter>" and inside.hook("prompt", text="do\nthis"))
    sent = await service.send_prompt(inside.id, "do\nthis ", queue=False)
    assert (sent.proof, sent.retried, sent.queued) == ("hook", False, False)
    assert inside.terminal.typed == ["do\nthis ", "<Enter>"]


async def test_a_prompt_waits_for_the_input_line_after_a_turn(
    service: Manager, world: World
) -> None:
    inside = await made(service, world)
    await inside.shows("working")
    inside.hook("prompt", text="first")
    await inside.state(AgentState.WORKING)
    inside.hook("finished")
    await inside.state(AgentState.READY)
    inside.when_typed(lambda it: it == "<Enter>" and inside.hook("prompt", text="go"))
    sending = asyncio.create_task(service.send_prompt(inside.id, "go", queue=False))
    await asyncio.sleep(0.05)
    assert inside.terminal.typed == []
    inside.terminal.show("ready")
    assert (await sending).proof == "hook"


async def test_enter_is_retried_once(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready")
    await inside.state(AgentState.READY)

    def act(_: str) -> None:
        if inside.terminal.typed.count("<Enter>") == 2:
            inside.news.append(Transcript(prompts=("long " * 300,)))

    inside.when_typed(act)
    sent = await service.send_prompt(inside.id, "long " * 900, queue=False)
    assert (sent.proof, sent.retried) == ("transcript", True)


async def test_a_prompt_that_does_not_arrive_is_said_so(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("ready", "> half typed \x1b[31m")
    await inside.state(AgentState.READY)
    inside.when_typed(lambda _: inside.hook("prompt", text="something else"))
    with pytest.raises(PromptNotSubmitted) as caught:
        await service.send_prompt(inside.id, "do this", queue=False)
    assert "> half typed" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert inside.terminal.typed == ["do this", "<Enter>", "<Enter>"]


async def test_a_prompt_is_refused_while_it_is_not_ready(service: Manager, world: World) -> None:
    inside = await made(service, world)
    with pytest.raises(Conflict, match="starting"):
        await service.send_prompt(inside.id, "x", queue=False)
    await inside.shows("working")
    await inside.state(AgentState.WORKING)
    with pytest.raises(Conflict, match="working"):
        await service.send_prompt(inside.id, "x", queue=False)
    await inside.shows("question q1 trust", "1 Yes")
    await inside.state(AgentState.QUESTION)
    with pytest.raises(Conflict, match="q1: trust"):
        await service.send_prompt(inside.id, "x", queue=False)
    with pytest.raises(InvalidInput):
        await service.send_prompt(inside.id, " \n", queue=False)
    assert inside.terminal.typed == []


async def test_queued_prompts_wait_their_turn(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("question q1 trust", "1 Yes")
    await inside.state(AgentState.QUESTION)

    def act(typed: str) -> None:
        if typed in ("one", "two"):
            inside.hook("prompt", text=typed)

    inside.when_typed(act)
    for text in ("one", "two"):
        assert (await service.send_prompt(inside.id, text, queue=True)).queued
    assert (await service.observe(inside.id, cursor=None)).queued == 2
    await asyncio.sleep(0.1)
    assert inside.terminal.typed == []
    await inside.shows("ready")
    await eventually(lambda: "one" in inside.terminal.typed)
    await asyncio.sleep(0.1)
    assert "two" not in inside.terminal.typed
    inside.hook("finished")
    await eventually(lambda: len(inside.watch.queue) == 0)
    assert inside.terminal.typed == ["one", "<Enter>", "two", "<Enter>"]
    assert (await inside.kinds()).count("prompt_submitted") == 2


async def test_a_shell_takes_no_prompt(service: Manager, world: World) -> None:
    shell = (await service.create(SandboxSpec(project_dir=world.project))).id
    with pytest.raises(Conflict, match="no agent"):
        await service.send_prompt(shell, "x", queue=False)
    with pytest.raises(Conflict, match="no agent"):
        await service.wait([shell], [QuestionAsked()], mode="any", timeout=1, cursor={})
    assert (await service.observe(shell, cursor=None)).agent.state is AgentState.NONE


# --- answers


async def test_an_answer(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("question q1 permission", "1 Yes", "2 No")
    inside.when_typed(lambda _: inside.terminal.show("question q2 plan", "1 Go"))
    with pytest.raises(InvalidInput):
        await service.answer(inside.id, "q1", "7", text=None)
    answered = await service.answer(inside.id, "q1", "2", text=None)
    assert answered.next is not None
    assert (answered.next.id, inside.terminal.typed) == ("q2", ["<2>"])


async def test_a_question_that_is_gone_is_not_answered(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("question q1 permission", "1 Yes")
    await inside.state(AgentState.QUESTION)
    inside.terminal.screen = ("question q2 permission", "1 Yes")  # and nobody was told
    with pytest.raises(Conflict, match="q2: permission"):
        await service.answer(inside.id, "q1", "1", text=None)
    assert inside.terminal.typed == []


async def test_an_answer_that_changes_nothing_is_said_so(service: Manager, world: World) -> None:
    inside = await made(service, world)
    await inside.shows("question q1 permission", "1 Yes")
    with pytest.raises(DeadlineExceeded, match="still there"):
        await service.answer(inside.id, "q1", "1", text=None)


# --- create


async def test_what_it_is_started_with(world: World, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1")
    secret = Secret(host="api.fake.example", variable="FAKE_KEY", file=tmp_path / "key")
    object.__setattr__(world.settings, "secrets", {"k": secret})
    async with world.service() as service:
        inside = await made(service, world, network="allowlist")
        record = await service.get(inside.id)
        assert record.allowed_hosts == ("api.fake.example",)
        assert record.spec.secrets == ("k",)
        program, seed = world.prepared[inside.id]
        assert program is not None
        assert seed is not None
        assert (program.argv, program.shown) == (("/opt/fake",), (Path("/opt/fake"),))
        own = await made(service, world, network="allowlist", env={"FAKE_KEY": "mine"})
        assert (await service.get(own.id)).spec.secrets == ()
        _, seed = world.prepared[own.id]
        assert seed is not None
        assert seed.files["fake.json"].endswith(b" mine")


KEY = "long-enough"
FAKE, OTHER = FakeAgent(), Secret(host="h.example", variable="OTHER", environment="OTHER")


@pytest.mark.parametrize(
    ("environ", "secrets", "found"),
    [
        ({"FAKE_KEY": KEY}, {}, {"FAKE_KEY": "FAKE_KEY"}),
        ({"FAKE_KEY": KEY}, {"x": OTHER}, {"FAKE_KEY": "FAKE_KEY", "x": "OTHER"}),
        ({"FAKE_KEY": ""}, {}, {}),
        ({"FAKE_KEY": "short"}, {}, {}),
        ({"FAKE_KEY": KEY + "\nX: y"}, {}, {}),
        ({"OTHER": KEY}, {}, {}),
        ({"FAKE_KEY": KEY, "FAKE_BASE_URL": "https://elsewhere.example"}, {}, {}),
        ({"FAKE_KEY": KEY}, {"x": replace(OTHER, variable="FAKE_KEY")}, {"x": "FAKE_KEY"}),
    ],
)
def test_a_key_of_the_daemons_own(
    world: World, environ: dict[str, str], secrets: dict[str, Secret], found: dict[str, str]
) -> None:
    given = needs.with_own_keys(replace(world.settings, secrets=secrets), [FAKE], environ)
    assert {name: secret.variable for name, secret in given.secrets.items()} == found
    if (own := given.secrets.get("FAKE_KEY")) is not None:
        assert (own.host, own.environment, own.inside) == ("api.fake.example", "FAKE_KEY", False)


@pytest.mark.parametrize(
    ("network", "inside", "named"),
    [
        ("allowlist", False, ("k",)),
        ("allowlist", True, ("k",)),
        ("full", False, ()),
        ("full", True, ("k",)),
        ("none", True, ()),
    ],
)
def test_where_there_is_no_proxy_only_a_key_that_may_be_inside(
    world: World, network: str, inside: bool, named: tuple[str, ...]
) -> None:
    key = replace(OTHER, variable="FAKE_KEY", inside=inside)
    settings = replace(world.settings, secrets={"k": key})
    asked = SandboxSpec(project_dir=world.project, agent="fake", network=network)
    spec = needs.with_needs(asked, FAKE, settings)
    assert (spec.network, spec.secrets) == (network, named)
    assert spec.allow_hosts == (FAKE.hosts if network == "allowlist" else ())


async def test_a_task_is_proved_before_create_returns(service: Manager, world: World) -> None:
    async def inside_of_it() -> None:
        await eventually(lambda: registry(service).live)
        (sandbox,) = registry(service).live
        inside = Inside(service, world, sandbox)
        inside.when_typed(lambda it: it == "go" and inside.hook("prompt", text="go"))
        await inside.shows("ready")

    acting = asyncio.create_task(inside_of_it())
    inside = await made(service, world, task="go")
    await acting
    assert inside.watch.view.state is AgentState.WORKING


async def test_who_waits_with_the_cursor_of_create_comes_never_too_late(
    service: Manager, world: World
) -> None:
    async def at_once() -> None:
        await eventually(lambda: registry(service).live)
        inside = Inside(service, world, next(iter(registry(service).live)))
        inside.when_typed(
            lambda it: it == "go" and [inside.hook("prompt", text="go"), inside.hook("finished")]
        )
        await inside.shows("ready")

    acting = asyncio.create_task(at_once())
    spec = SandboxSpec(project_dir=world.project, agent="fake", task="go")
    record = await service.create(spec)
    await acting
    inside = Inside(service, world, record.id)
    await eventually(lambda: inside.watch.view.finished == 1)
    assert (await inside.waited(TurnFinished(), cursor=record.cursor)).satisfied
    assert (await service.get(record.id)).cursor == ""


async def test_a_task_that_is_not_taken_leaves_nothing(service: Manager, world: World) -> None:
    with pytest.raises(CreateFailed, match="starting") as caught:
        await made(service, world, task="go", name="x")
    assert caught.value.stage == "task"
    (record,) = await service.list()
    assert (record.state, record.name) == (SandboxState.FAILED, None)
    assert world.trees == {}
    assert list((world.settings.state_dir / "sandboxes").glob("*")) == []


class Missing(FakeAgent):
    """Not installed here."""

    def program(self, settings: Settings, command: Sequence[str]) -> Program:
        raise HostUnable("fake is not installed", hint="install fake")

    def problems(self, settings: Settings) -> Sequence[Problem]:
        return (Problem("fake", "fake is not installed", "install fake", fatal=False),)


async def test_an_agent_that_is_not_installed_is_said_and_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_pieces(_: Pieces) -> list[Problem]:
        return [Problem("a piece", "lacks", "mend")]

    world.agents["fake"] = Missing()
    monkeypatch.setattr(Pieces, "problems", of_pieces)
    async with world.service() as service:
        with pytest.raises(HostUnable, match="fake is not installed") as caught:
            await service.create(SandboxSpec(project_dir=world.project, agent="fake"))
        assert caught.value.field == "agent"
        assert caught.value.hint == 'install fake; or give agent="shell"'
        assert await service.list() == []
        assert world.trees == {}
        assert [(problem.what, problem.fatal) for problem in service.problems()] == [
            ("a piece", True),
            ("agent fake", False),
        ]


async def test_only_an_agent_takes_a_task(service: Manager, world: World) -> None:
    with pytest.raises(InvalidInput, match="task"):
        await service.create(SandboxSpec(project_dir=world.project, task="go"))


# --- budgets


async def test_a_budget_warns_and_then_pauses(service: Manager, world: World) -> None:
    inside = await made(service, world, budget=Budget(max_tokens=100))
    record = await service.get(inside.id)
    assert record.limits.asked["max_tokens"] == "100"
    assert record.limits.enforced_by["max_tokens"] == "csb-mcp"
    inside.news.append(Transcript(messages=(message(79),)))
    await eventually(lambda: inside.watch.usage.total.total == 79)
    await asyncio.sleep(0.1)
    assert "budget" not in await inside.kinds()
    inside.news.append(Transcript(messages=(message(1),)))
    await eventually(lambda: inside.watch.usage.total.total == 80)
    await asyncio.sleep(0.1)
    assert (await inside.kinds()).count("budget") == 1
    assert (await service.get(inside.id)).state is SandboxState.RUNNING
    inside.news.append(Transcript(messages=(message(30),)))
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)
    await eventually(lambda: registry(service).find(inside.id).warnings)
    (warning,) = (await service.get(inside.id)).warnings
    assert warning.startswith("paused: max_tokens 100, used 110; resume it with a higher")
    with pytest.raises(Conflict, match="used up: max_tokens 100, used 110"):
        await inside.waited(TurnFinished())
    assert (await inside.waited(TokensOver(99))).satisfied

    with pytest.raises(Conflict, match="used up: max_tokens 100"):
        await service.resume(inside.id)
    with pytest.raises(Conflict, match="used up: max_tokens 110"):
        await service.resume(inside.id, Budget(max_tokens=110))
    resumed = await service.resume(inside.id, Budget(max_tokens=200))
    assert (resumed.state, resumed.spec.budget) == (SandboxState.RUNNING, Budget(max_tokens=200))
    assert resumed.limits.asked["max_tokens"] == "200"
    await asyncio.sleep(0.1)
    assert (await service.get(inside.id)).state is SandboxState.RUNNING
    inside.news.append(Transcript(messages=(message(90),)))
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)


async def test_who_waits_is_told_of_the_pause(service: Manager, world: World) -> None:
    inside = await made(service, world, budget=Budget(max_tokens=100))
    wait = asyncio.create_task(inside.waited(QuestionAsked(), timeout=20))
    await asyncio.sleep(0.05)
    inside.news.append(Transcript(messages=(message(110),)))
    with pytest.raises(Conflict, match="it is paused, for its budget is used up: max_tokens"):
        await asyncio.wait_for(wait, 5)


async def test_a_last_turn_may_end(service: Manager, world: World) -> None:
    inside = await made(service, world, budget=Budget(max_turns=1))
    await inside.shows("ready")
    inside.hook("prompt", text="go")
    await inside.shows("working")
    await asyncio.sleep(0.2)
    assert (await service.get(inside.id)).state is SandboxState.RUNNING
    inside.hook("finished")
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)


async def test_a_cost_that_is_not_known_is_said_so(service: Manager, world: World) -> None:
    inside = await made(service, world, budget=Budget(max_cost=0.001))
    inside.news.append(Transcript(messages=(message(10, model="unheard-of"),)))
    await eventually(lambda: registry(service).find(inside.id).warnings)
    assert "unheard-of" in registry(service).find(inside.id).warnings[0]
    usage = (await service.observe(inside.id, cursor=None)).usage
    assert (usage.cost, usage.unpriced_cost) == (0.0, pytest.approx(10 * 75 / 1e6))
    assert registry(service).find(inside.id).state is SandboxState.RUNNING
    inside.news.append(Transcript(messages=(message(10, model="unheard-of"),)))
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)


async def test_a_budget_outlives_a_daemon(world: World) -> None:
    async with world.service() as service:
        inside = await made(service, world, budget=Budget(max_tokens=100, max_cost=2.5))
    async with world.service() as service:
        record = await service.get(inside.id)
        assert record.spec.budget == Budget(max_tokens=100, max_cost=2.5)
        inside = Inside(service, world, inside.id)
        inside.news.append(Transcript(messages=(message(100),)))
        await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)


async def test_a_shell_has_no_budget(service: Manager, world: World) -> None:
    with pytest.raises(InvalidInput, match="max_turns"):
        await service.create(SandboxSpec(project_dir=world.project, budget=Budget(max_turns=1)))
    shell = (await service.create(SandboxSpec(project_dir=world.project))).id
    with pytest.raises(Conflict, match="no agent"):
        await service.resume(shell, Budget(max_turns=1))
    assert (await service.resume(shell)).state is SandboxState.RUNNING


# --- what the proxy counted


async def test_a_forged_transcript_is_noticed_and_the_budget_holds(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csb_mcp.service.agents.comparison.SETTLED_SECONDS", 0.1)
    budget = Budget(max_tokens=10_000, max_cost=0.09)
    inside = await made(service, world, network="allowlist", budget=budget)
    inside.news.append(Transcript(messages=(message(5),)))  # it says
    world.proxies[inside.id].use(5000)
    await eventually(lambda: registry(service).find(inside.id).warnings)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "usage_differs"]
    assert (event.data["counted"], event.data["transcript"]) == ("5000", "5")
    assert "differ" in registry(service).find(inside.id).warnings[0]
    used = (await service.observe(inside.id, cursor=None)).usage
    assert (used.total.total, used.tokens, used.differs) == (5, 5000, True)
    assert used.counted_cost == pytest.approx(0.05)
    assert registry(service).find(inside.id).state is SandboxState.RUNNING
    assert (await inside.waited(TokensOver(4000))).matches[0].evidence == "5000 tokens"

    world.proxies[inside.id].use(9000, uncounted=1, estimated=200)
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)
    with pytest.raises(Conflict, match="max_cost"):
        await service.resume(inside.id)
    await service.resume(inside.id, Budget(max_cost=1.0))
    world.proxies[inside.id].use(9900, uncounted=1, estimated=200)
    await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)
    assert (await inside.kinds()).count("usage_differs") == 1


async def test_a_transcript_that_is_as_the_proxy_counts_is_no_news(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csb_mcp.service.agents.comparison.SETTLED_SECONDS", 0.05)
    inside = await made(service, world, network="allowlist")
    world.proxies[inside.id].use(5000, under_way=1)
    await eventually(lambda: inside.watch.usage.tokens == 5000)
    await asyncio.sleep(0.3)  # it is ahead, while an answer is under way
    inside.news.append(Transcript(messages=(message(5000),)))
    await eventually(lambda: not inside.watch.usage.differs)
    world.proxies[inside.id].use(5000)
    await asyncio.sleep(0.3)
    assert "usage_differs" not in await inside.kinds()


async def test_a_count_outlives_proxies_daemons_and_transcripts(world: World) -> None:
    async with world.service() as service:
        budget = Budget(max_tokens=1000)
        inside = await made(service, world, network="allowlist", budget=budget)
        world.proxies[inside.id].use(300, run="first")
        await eventually(lambda: inside.watch.usage.tokens == 300)
        world.proxies[inside.id].use(400, run="first")
        world.proxies[inside.id].die()
        await eventually(lambda: inside.live.gate is not None and world.restarts == 1)
        assert inside.watch.usage.tokens == 400
        world.proxies[inside.id].use(50, run="second")
        await eventually(lambda: inside.watch.usage.tokens == 450)
    world.proxies[inside.id].use(500, run="second")
    async with world.service() as service:
        inside = Inside(service, world, inside.id)  # and nothing is left in its transcripts
        await eventually(lambda: inside.watch.usage.tokens == 900)
        world.proxies[inside.id].use(650, run="second")
        await eventually(lambda: registry(service).find(inside.id).state is SandboxState.PAUSED)
        await service.stop(inside.id)
        used = (await service.observe(inside.id, cursor=None)).usage
        assert (used.tokens, used.total.total) == (1050, 0)


# --- stuck


async def test_the_same_call_again_and_again(service: Manager, world: World) -> None:
    inside = await made(service, world)
    for number in (1, 2, 1, 1, 1, 1):
        calls = (("Bash", f"ls {number}"),)
        inside.news.append(Transcript(messages=(message(1, tools=calls),)))
    await eventually(lambda: inside.watch.usage.tool_calls == 6)
    await asyncio.sleep(0.1)
    assert "stuck" not in await inside.kinds()
    for _ in range(3):
        inside.news.append(Transcript(messages=(message(1, tools=(("Bash", "ls 1"),)),)))
    await eventually(lambda: inside.watch.usage.tool_calls == 9)
    await asyncio.sleep(0.1)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "stuck"]
    assert (event.data["why"], event.data["evidence"]) == ("repeats", "5 times Bash ls 1")


def burning(circles: Circles, *, start: float, times: int = 6) -> float:
    """It asks its model again and again, and calls the same; gives when it has done so."""
    for number in range(times):
        one = message(1, tools=(("Bash", "ls"),))
        circles.calls([one], start + number)
    return start + times


def test_tokens_that_burn_while_nothing_moves() -> None:
    circles, view = Circles(), AgentView(state=AgentState.WORKING, since=0.0)
    circles.screen(["✻ Thinking… (3s · 120 tokens)"], 10.0)
    assert circles.look(view, None, 0, 10.0) is None
    burning(circles, start=11.0)
    circles.screen(["✶ Thinking… (900s · 29,120 tokens)"], 400.0)
    circles.look(view, None, 5000, 400.0)
    assert circles.suspicion(view, 400.0) is None  # slow, but cheap
    circles.look(view, None, 30_000, 400.0)
    assert circles.suspicion(view, 400.0) == 11.0  # a call that was new then
    found = circles.files(400.0, changed=False)
    assert found is not None
    assert (found["why"], "30000 tokens in 389 s" in found["evidence"]) == ("still", True)
    circles.look(view, None, 60_000, 800.0)
    assert circles.suspicion(view, 800.0) is None  # told once


def test_what_moves_is_not_stuck() -> None:
    view = AgentView(state=AgentState.WORKING, since=0.0)
    asks = AgentView(state=AgentState.QUESTION, since=0.0)

    def suspected(act: Callable[[Circles], object], view: AgentView = view) -> bool:
        circles = Circles()
        circles.screen(["one"], 1.0)
        circles.look(view, None, 0, 1.0)
        burning(circles, start=2.0)
        act(circles)
        circles.look(view, None, 90_000, 500.0)
        return circles.suspicion(view, 500.0) is not None

    assert suspected(lambda _: None)
    assert not suspected(lambda circles: circles.screen(["another"], 450.0))
    new = message(1, tools=(("Read", "another"),))
    assert not suspected(lambda circles: circles.calls([new], 450.0))
    assert not suspected(lambda circles: circles.files(450.0, changed=True))
    assert not suspected(lambda circles: circles.look(asks, None, 80_000, 450.0))
    assert not suspected(lambda _: None, asks)


def test_a_long_thought_is_not_stuck() -> None:
    circles, view = Circles(), AgentView(state=AgentState.WORKING, since=0.0)
    circles.screen(["✻ Thinking… (3s)"], 1.0)
    circles.look(view, None, 0, 1.0)
    circles.calls([message(50_000)], 1500.0)
    circles.screen(["✻ Thinking… (1499s)"], 1500.0)
    assert circles.look(view, None, 50_000, 1510.0) is None
    assert circles.suspicion(view, 1510.0) is None


async def test_files_are_looked_at_before_it_is_said(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck, "STILL_SECONDS", 0.5)
    monkeypatch.setattr(stuck, "STILL_TOKENS", 100)
    monkeypatch.setattr(stuck, "_DRAWN_SECONDS", 0.1)
    inside = await made(service, world)
    await inside.shows("working")
    await inside.state(AgentState.WORKING)
    (world.project / "a/b").mkdir(parents=True)
    for number in range(24):  # calls that are no news, for a second and a half
        (world.project / "a/b/c").write_text(str(number))
        calls = (("Bash", f"step {number % 3}"),)
        inside.news.append(Transcript(messages=(message(30, tools=calls),)))
        await asyncio.sleep(0.06)
    assert "stuck" not in await inside.kinds()
    for number in range(24):
        calls = (("Bash", f"step {number % 3}"),)
        inside.news.append(Transcript(messages=(message(30, tools=calls),)))
        await asyncio.sleep(0.06)
    await eventually(lambda: not inside.news)
    await asyncio.sleep(0.5)
    (event,) = [e for e in await happened(service, inside.id) if e.kind == "stuck"]
    assert event.data["why"] == "still"
    assert "no file" in event.data["evidence"]
    assert "interrupt it" in event.data["suggestion"]


def test_an_error_that_stays() -> None:
    fault = AgentFault(kind="login", words="log in", hint="give a key")
    circles, view = Circles(), AgentView(state=AgentState.ERROR, since=10.0, fault=fault)
    assert circles.look(view, None, 0, 100.0) is None
    found = circles.look(view, None, 0, 200.0)
    assert found == {"why": "error", "evidence": "log in", "suggestion": "give a key"}
    assert circles.look(view, None, 0, 300.0) is None


def test_an_error_that_it_tries_to_get_over() -> None:
    banner = AgentFault(kind="overloaded", words="529, trying again", hint="wait")
    circles, view = Circles(), AgentView(state=AgentState.WORKING, since=0.0)
    for now in range(10, 140, 10):
        shown = banner if now % 20 else None  # gone for a moment with each attempt
        assert circles.look(view, shown, 0, float(now)) is None
    found = circles.look(view, banner, 0, 140.0)
    assert found is not None
    assert (found["why"], found["evidence"]) == ("error", "529, trying again")
    assert circles.look(view, banner, 0, 300.0) is None
    assert circles.look(view, None, 0, 320.0) is None  # it got over it
    assert circles.look(view, banner, 0, 330.0) is None
    assert circles.look(view, banner, 0, 460.0) is not None


# --- its resource


async def test_a_subscriber_is_told_what_it_does_and_uses(service: Manager, world: World) -> None:
    inside = await made(service, world)
    updates, told = Updates(service), list[ServerEvent]()
    uri = f"csb://sandbox/{inside.id}/agent"
    leave, release = updates.subscribe(told.append), await updates.watch(uri)
    try:
        await inside.shows("ready")
        await eventually(lambda: ResourceUpdated(uri) in told)
        await asyncio.sleep(0.6)  # no more is told of that
        told.clear()
        inside.news.append(Transcript(messages=(message(99),)))
        await eventually(lambda: ResourceUpdated(uri) in told)
        assert json.loads(await agent_text(service, inside.id))["usage"]["total"]["output"] == 99
        kinds = [event.kind for event in await service.recent_events(inside.id, 1)]
        assert kinds == ["agent_state"]
    finally:
        release()
        leave()
    await eventually(lambda: updates.tasks == 0)


async def test_what_only_the_proxy_saw_is_told_of_and_not_looked_for_without_end(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = await made(service, world)
    looks, observe = list[str](), service.observe

    async def counted(sandbox: str, *, cursor: str | None) -> Observation:
        looks.append(sandbox)
        return await observe(sandbox, cursor=cursor)

    monkeypatch.setattr(service, "observe", counted)
    updates, told = Updates(service), list[ServerEvent]()
    uri = f"csb://sandbox/{inside.id}/agent"
    leave, release = updates.subscribe(told.append), await updates.watch(uri)
    try:
        await eventually(lambda: bool(looks))
        await asyncio.sleep(0.6)
        told.clear()
        inside.watch.count(Counted(models={"m": ModelUsage(input=500)}), 0)
        await eventually(lambda: ResourceUpdated(uri) in told)
        looks.clear()
        await asyncio.sleep(1.2)
        assert len(looks) <= 3
    finally:
        release()
        leave()


async def test_a_shell_has_no_agent_to_follow(service: Manager, world: World) -> None:
    shell = (await service.create(SandboxSpec(project_dir=world.project))).id
    updates = Updates(service)
    release = await updates.watch(f"csb://sandbox/{shell}/agent")
    await eventually(lambda: updates.tasks == 0)
    release()
