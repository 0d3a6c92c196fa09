"""The real Claude Code behind the real proxy: its API is on an internet of the test's own."""

import json
import logging
import os
import signal
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.app import App, build
from csb_mcp.config import Price, Secret, Settings
from csb_mcp.host.network.authority import make_authority, make_leaf
from csb_mcp.lib.processes import descendants
from csb_mcp.model import (
    Budget,
    Condition,
    Counted,
    ModelUsage,
    QuestionAsked,
    SandboxSpec,
    SandboxState,
    TurnFinished,
)
from csb_mcp.service.agents.watch import AgentWatch
from csb_mcp.service.manager import Manager
from csb_mcp.service.registry import Live
from tests.support import fake_api
from tests.support.claude_inside import PROGRAM
from tests.support.fake_api import Script
from tests.support.fake_pieces import eventually, happened, registry
from tests.support.internet import Internet, internet
from tests.support.memory import in_memory, of_namespace
from tests.support.networks import Inside, put_into
from tests.support.processes import is_proxy
from tests.support.sandboxes import mentions, project_in, running_app, settings_in
from tests.support.secret_host import Server, server_context, serving

pytestmark = pytest.mark.once
HOST, ADDRESS = "api.anthropic.com", "198.51.100.77"
KEY = "sk-ant-api03-the-real-one-0123456789-abcdefghijk"
VARIABLE = "ANTHROPIC_API_KEY"
USED = {"input_tokens": 1200, "output_tokens": 345, "cache_read_input_tokens": 6000}
soon = partial(eventually, seconds=30)
TOKENS = 2 * 7548  # of two answers with what the API says beside that
PRICES = {"claude": Price(1.0, 10.0, 2.0, 0.1)}
TURNS: tuple[dict[str, Any], ...] = (
    {"tools": [["Bash", {"command": "touch made"}]]},
    {"text": "It is made."},
)
_BODY = json.dumps({"model": "claude-x", "messages": [], "tools": [{}, {}, {}]})
ASK = (
    f"curl -sS --max-time 10 https://{HOST}/v1/messages -H 'content-type: application/json' "
    f"-H \"x-api-key: ${VARIABLE}\" -d '{_BODY}'"
)


@pytest.fixture
def net() -> Iterator[Internet]:
    with internet() as made:
        made.names.answer(HOST, ADDRESS)
        yield made


@contextmanager
def an_api(net: Internet, folder: Path) -> Generator[Script]:
    """At its real name, with a certificate of an authority that is left in ``theirs.pem``."""
    theirs, key = make_authority("theirs", [HOST])
    (folder / "theirs.pem").write_text(theirs)
    context = server_context(folder, *make_leaf(theirs, key, HOST))
    listening = net.outside.listen(ADDRESS, 443)
    with serving(Server(context, listening, fake_api.handler(fake_api.Script(folder)))):
        yield Script(folder)


def key_in(folder: Path) -> Secret:
    (folder / "key").write_text(KEY + "\n")
    (folder / "key").chmod(0o600)
    trusted = folder / "theirs.pem"
    return Secret(host=HOST, variable=VARIABLE, file=folder / "key", authorities=trusted)


async def until(service: Manager, sandbox: str, cursor: str, condition: Condition) -> None:
    given = {sandbox: cursor} if cursor else {}
    found = await service.wait([sandbox], [condition], mode="any", timeout=30, cursor=given)
    seen = (await service.observe(sandbox, cursor=None)).terminal
    assert found.satisfied, "\n".join(text for _, text in seen.rows)


def settled(base: Path, outside: Path, **key: Any) -> Settings:
    secrets = {"claude": replace(key_in(outside), **key)}
    return settings_in(base, claude=PROGRAM, secrets=secrets, prices=PRICES)


@asynccontextmanager
async def deleted_at_last(settings: Settings) -> AsyncGenerator[None]:
    """All sandboxes, whichever daemon made them."""
    try:
        yield
    finally:
        async with running_app(settings):
            pass


async def a_turn_with_a_question(service: Manager, project: Path, **asked: Any) -> str:
    """The sandbox, after it was let make a file."""
    spec = SandboxSpec(
        project_dir=project, agent="claude", network="allowlist", task="Make a file", **asked
    )
    sandbox = (await service.create(spec)).id
    await until(service, sandbox, "", QuestionAsked())
    question = (await service.observe(sandbox, cursor=None)).agent.question
    assert question is not None
    assert (question.kind, question.tool) == ("permission", "Bash")
    watch = registry(service).live[sandbox].agent
    assert watch is not None
    # However long nobody answers: both know of what was asked so far.
    await soon(lambda: watch.usage.total.total == TOKENS // 2 <= _counted(watch).tokens)
    done = await service.answer(sandbox, question.id, question.options[0].key, text=None)
    await until(service, sandbox, done.cursor, TurnFinished())
    assert (project / "made").exists()
    return sandbox


def nowhere_but(outside: Path, base: Path, live: Live) -> None:
    """The key is in no file of the sandbox's or of ours, and in no process inside, nor its argv."""
    for path in base.rglob("*"):
        if outside not in path.parents and path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert mentions(KEY) == []
    inside = of_namespace(live.need_helper().init_pid)
    names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in inside]
    assert "claude" in names, names
    holder = b"csb-secret-claude-"
    assert any(in_memory(pid, holder) for pid in inside), "the search finds nothing"
    for pid, name in zip(inside, names, strict=True):
        assert not in_memory(pid, KEY.encode()), name


async def test_the_key_is_never_inside_and_what_is_used_is_counted_where_nobody_can_lie(
    base: Path, net: Internet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert PROGRAM.exists(), "Claude Code is not installed: run scripts/setup test"
    put_into(net, monkeypatch)
    outside = base / "outside"
    outside.mkdir(mode=0o700)
    settings = settled(base, outside)
    with an_api(net, outside) as script:
        async with deleted_at_last(settings):
            first = await build(settings)
            try:
                sandbox = await a_first_turn(first, script, base)
            finally:
                await first.close()
            monkeypatch.setattr("csb_mcp.service.agents.comparison.SETTLED_SECONDS", 0.5)
            second = await build(settings)
            try:
                await more_than_its_transcript_says(second, script, sandbox)
            finally:
                await second.close()
    assert KEY not in caplog.text


async def a_first_turn(app: App, script: Script, base: Path) -> str:
    """Seen by both, and the same."""
    script.say(*(turn | {"usage": USED} for turn in TURNS))
    budget = Budget(max_tokens=60_000)
    sandbox = await a_turn_with_a_question(app.service, project_in(base), budget=budget)
    assert [asked["key"] for asked in script.asked()] == [KEY, KEY]
    live = registry(app.service).live[sandbox]
    assert live.agent is not None
    watch = live.agent
    await soon(lambda: watch.usage.total.total == TOKENS and not watch.usage.differs)
    used = (await app.service.observe(sandbox, cursor=None)).usage
    assert used.counted is not None
    assert used.total == ModelUsage(input=2400, output=690, cache_creation=6, cache_read=12000)
    assert used.counted.models == used.models
    assert (used.counted.answers, used.counted.uncounted) == (2, 0)
    assert used.counted_cost == pytest.approx(used.cost) != 0
    nowhere_but(base / "outside", base, live)
    record = await app.service.get(sandbox)
    events = await happened(app.service, sandbox)
    assert KEY not in repr((record, events, await app.service.egress(sandbox)))
    await Inside(app, sandbox).out("rm -r ~/.claude/projects")
    return sandbox


async def more_than_its_transcript_says(app: App, script: Script, sandbox: str) -> None:
    """It has removed its transcripts, and asks the model by other ways; the daemon is a new one."""
    live = registry(app.service).live[sandbox]
    assert live.agent is not None
    watch = live.agent
    await soon(lambda: watch.usage.tokens == TOKENS)
    await another_proxy(app, live)
    script.say({"text": "Of course.", "usage": {"output_tokens": 50_000}, "side": True})
    said = await Inside(app, sandbox).out(ASK)
    assert "Of course." in said
    assert script.asked()[-1]["key"] == KEY
    await soon(lambda: watch.usage.tokens > TOKENS)
    assert watch.usage.tokens == TOKENS + 50_000 + 11 + 3 + 5
    await soon(lambda: registry(app.service).find(sandbox).state is SandboxState.PAUSED)
    await soon(lambda: "differ" in " ".join(registry(app.service).find(sandbox).warnings))
    (event,) = [e for e in await happened(app.service, sandbox) if e.kind == "usage_differs"]
    assert int(event.data["counted"]) - int(event.data["transcript"]) >= TOKENS


async def another_proxy(app: App, live: Live) -> None:
    """What the one before it counted stays."""
    (proxy,) = [pid for pid in descendants(live.terminal.server_pid) if is_proxy(pid)]
    os.kill(proxy, signal.SIGKILL)
    run = _run(app, live)
    await soon(lambda: _run(app, live) != run and live.gate is not None)
    assert live.agent is not None
    assert live.agent.usage.tokens == TOKENS


def _run(app: App, live: Live) -> str:
    kept = registry(app.service).find(live.id).counted
    return "" if kept is None else kept.run


async def test_with_a_long_lived_token_what_it_reports_home_is_refused_and_hinders_nothing(
    base: Path, net: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into(net, monkeypatch)
    outside = base / "outside"
    outside.mkdir(mode=0o700)
    with an_api(net, outside) as script:
        script.say(*(turn | {"usage": USED} for turn in TURNS))
        monkeypatch.setenv("CSB_TEST_TOKEN", KEY)
        token = {"variable": "CLAUDE_CODE_OAUTH_TOKEN", "environment": "CSB_TEST_TOKEN"}
        async with running_app(settled(base, outside, file=None, **token)) as app:
            env = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": ""}
            sandbox = await a_turn_with_a_question(app.service, project_in(base), env=env)
            live = registry(app.service).live[sandbox]
            assert live.agent is not None
            watch = live.agent
            await soon(lambda: watch.usage.total.total == TOKENS)
            # The request for a title is in no transcript, and the rest is as it says.
            (model,) = watch.usage.models
            await soon(lambda: _counted(watch).models.get(model) == watch.usage.models[model])
            others = [one for name, one in _counted(watch).models.items() if name != model]
            assert sum(one.total for one in others) % sum(fake_api.USAGE.values()) == 0
            assert others
            assert [asked["key"] for asked in script.asked()] == [f"Bearer {KEY}"] * 2
            hosts = (await app.service.egress(sandbox)).hosts
            assert {one.host for one in hosts if one.allowed} == {HOST}
            assert {one.host for one in hosts if one.refused}, "it told nobody else anything"


def _counted(watch: AgentWatch) -> Counted:
    assert watch.usage.counted is not None
    return watch.usage.counted
