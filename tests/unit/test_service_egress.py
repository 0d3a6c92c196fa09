"""What the service makes of ways out, on pieces in memory."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.errors import (
    Conflict,
    CreateFailed,
    CsbError,
    EgressFailed,
    Forbidden,
    InvalidInput,
    SandboxEnded,
    StoreUnusable,
)
from csb_mcp.model import (
    PRESETS,
    Connection,
    EgressAsked,
    Outcome,
    Probe,
    Sandbox,
    SandboxSpec,
    SandboxState,
    TriedHost,
    Verdict,
    WaitResult,
)
from csb_mcp.service import creator, gatekeeper
from csb_mcp.service import egress as calls
from csb_mcp.service.manager import Manager
from csb_mcp.service.rules import within
from tests.support.fake_pieces import Proxy, World, events, eventually, happened, registry, store


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(gatekeeper, "_SHORTEST", 0.02)
    return World(tmp_path)


@pytest.fixture
async def service(world: World) -> AsyncIterator[Manager]:
    async with world.service() as service:
        yield service


async def made(service: Manager, world: World, *hosts: str, **more: Any) -> tuple[str, Proxy]:
    values: dict[str, Any] = {"network": "allowlist", "allow_hosts": hosts} | more
    spec = SandboxSpec(project_dir=world.project, **values)
    sandbox = (await service.create(spec)).id
    return sandbox, world.proxies.get(sandbox, Proxy())


def names(sandbox: Sandbox) -> list[str]:
    return [f"{it.host}:{it.port}" for it in sandbox.pending]


async def asked(service: Manager, sandbox: str, timeout: float = 5) -> WaitResult:
    return await service.wait([sandbox], [EgressAsked()], mode="any", timeout=timeout, cursor={})


async def kinds(service: Manager, sandbox: str) -> list[str]:
    return [event.kind for event in await happened(service, sandbox)]


# --- asked for


async def test_a_host_that_is_asked_for(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world, "github")
    assert proxy.allowed == PRESETS["github"]
    assert not (await asked(service, sandbox, 0.02)).satisfied
    waiting = asyncio.create_task(asked(service, sandbox))
    proxy.ask("h.example", program="cu\x1b[31mrl\n", time=7.0)
    result = await waiting
    assert result.satisfied
    assert result.matches[0].evidence == "h.example:443 (x1)"
    (pending,) = (await service.get(sandbox)).pending
    assert (pending.host, pending.port, pending.count) == ("h.example", 443, 1)
    assert (pending.first, pending.last, pending.program) == (7.0, 7.0, "curl")
    await eventually(lambda: events(service).last >= 2)
    (event,) = await happened(service, sandbox)
    assert (event.kind, event.data) == (
        "egress_request",
        {"host": "h.example", "port": "443", "program": "curl", "count": "1"},
    )
    assert (await asked(service, sandbox)).waited < 0.1  # it is pending still


async def test_a_wait_wakes_at_once(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world)
    took: list[float] = []
    for number in range(9):
        waiting = asyncio.create_task(asked(service, sandbox))
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        proxy.ask(f"h{number}.example")
        assert (await waiting).satisfied
        took.append(time.perf_counter() - began)
        await service.deny_host(sandbox, f"h{number}.example")
    assert sorted(took)[2] < 0.005  # of nine: other programs run here, too


async def test_repetitions_are_counted_and_not_written(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, proxy = await made(service, world)
    proxy.ask("h.example")
    await asked(service, sandbox)
    await eventually(lambda: events(service).last >= 2)
    writes: list[object] = []
    monkeypatch.setattr(store(service), "update", writes.append)
    for count in range(2, 30):
        proxy.ask("h.example", count, time=float(count))
        await asyncio.sleep(0)
    await eventually(lambda: registry(service).find(sandbox).pending[0].count == 29)
    (pending,) = (await service.get(sandbox)).pending
    assert (pending.first, pending.last) == (5.0, 29.0)
    assert await kinds(service, sandbox) == ["egress_request"]
    assert not writes


async def test_a_flood_of_names_is_bounded(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world)
    for number in range(500):
        proxy.ask(f"h{number}.example")
    await eventually(lambda: registry(service).find(sandbox).warnings)
    record = await service.get(sandbox)
    assert len(record.pending) == gatekeeper.MAX_PENDING
    assert "more hosts than are kept" in record.warnings[0]
    assert record.pending[-1].host == "h499.example"  # the newest are kept
    for number in range(60):
        proxy.ask(f"more{number}.example")
        await asyncio.sleep(0.001)
    proxy.ask("h499.example", 2)
    await eventually(lambda: registry(service).find(sandbox).pending[-1].count == 2)
    assert (await kinds(service, sandbox)).count("egress_request") <= 33


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "H.example"},
        {"host": "a b"},
        {"host": "127.0.0.1"},
        {"host": "h.example", "port": 0},
        {"host": "h.example", "port": 65536},
        {"host": "h.example", "time": float("nan")},
        {"host": "h.example", "time": 1e300},
    ],
)
async def test_what_a_proxy_cannot_mean_is_dropped(
    service: Manager, world: World, wrong: dict[str, Any]
) -> None:
    sandbox, proxy = await made(service, world)
    proxy.ask(**wrong)
    proxy.ask("good.example")
    await asked(service, sandbox)
    assert names(await service.get(sandbox)) == ["good.example:443"]


async def test_a_sandbox_that_ends_asks_for_nothing(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world)
    proxy.ask("h.example")
    await asked(service, sandbox)
    waiting = asyncio.create_task(
        service.wait([(await made(service, world))[0]], [EgressAsked()], **WHILE)
    )
    stopped = await service.stop(sandbox)
    assert (stopped.state, stopped.pending) == (SandboxState.STOPPED, ())
    with pytest.raises(SandboxEnded):
        await asked(service, sandbox)
    with pytest.raises(SandboxEnded):
        await service.allow_host(sandbox, "h.example", once=False)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert "egress_closed" not in await kinds(service, sandbox)
    found = await service.egress(sandbox)
    assert (found.open, found.pending) == (False, ())


WHILE: dict[str, Any] = {"mode": "any", "timeout": 5, "cursor": {}}


# --- answers


async def test_allow_and_deny(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world, "github")
    for host in ("a.h.example", "b.h.example", "other.example"):
        proxy.ask(host)
    proxy.ask("a.h.example", port=8443)
    await eventually(lambda: len(registry(service).find(sandbox).pending) == 4)
    found = await service.allow_host(sandbox, "*.H.example", once=False)
    assert found.allowed == ("github", "*.h.example")
    assert names(await service.get(sandbox)) == ["other.example:443", "a.h.example:8443"]
    assert proxy.allowed == (*PRESETS["github"], "*.h.example")
    found = await service.deny_host(sandbox, "other.example")
    assert (found.denied, proxy.denied) == (("other.example",), ("other.example",))
    assert [it.port for it in found.pending] == [8443]
    await service.allow_host(sandbox, "other.example", once=False)
    assert (proxy.denied, proxy.allowed[-1]) == ((), "other.example")
    found = await service.deny_host(sandbox, "*.h.example")
    assert (found.allowed, found.denied) == (("github", "other.example"), ("*.h.example",))
    with pytest.raises(Conflict, match=r"\*\.h\.example was denied"):
        await service.allow_host(sandbox, "a.h.example", once=False)
    await service.deny_host(sandbox, "github")
    assert proxy.denied == ("*.h.example", *PRESETS["github"])
    told = await happened(service, sandbox)
    assert [event.kind for event in told[4:]] == [
        *("egress_allowed", "egress_denied", "egress_allowed", "egress_denied", "egress_denied"),
    ]
    assert dict(told[4].data) == {"host": "*.h.example"}


async def test_what_was_answered_on_its_way_does_not_wait(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world, "h.example")
    await service.deny_host(sandbox, "other.example")
    for host in ("h.example", "other.example", "late.example"):
        proxy.ask(host)
    await asked(service, sandbox)
    assert names(await service.get(sandbox)) == ["late.example:443"]


async def test_once(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world)
    proxy.ask("h.example", port=8443)
    await asked(service, sandbox)
    found = await service.allow_host(sandbox, "h.example", once=True)
    assert (proxy.once, found.allowed, found.pending) == ([("h.example", 8443)], (), ())
    proxy.ask("h.example", 2, 8443)  # from before the answer, but heard of only now
    assert not (await asked(service, sandbox, 0.05)).satisfied
    proxy.ask("h.example", 3, 8443, time=time.time() + 1)
    assert (await asked(service, sandbox)).matches[0].evidence == "h.example:8443 (x3)"
    await service.allow_host(sandbox, "new.example", once=True)
    await service.allow_host(sandbox, "h.example:80", once=True)
    assert proxy.once[1:] == [("new.example", 443), ("h.example", 80)]
    for wrong in ("*.h.example", "github"):
        with pytest.raises(InvalidInput, match="only one host"):
            await service.allow_host(sandbox, wrong, once=True)


async def test_a_denial_holds_on_a_full_disk(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, proxy = await made(service, world, "h.example")

    async def full(_: Sandbox) -> None:
        raise StoreUnusable("the store did not take it")

    monkeypatch.setattr(store(service), "update", full)
    proxy.ask("other.example")
    assert (await asked(service, sandbox)).satisfied  # a request is told all the same
    with pytest.raises(StoreUnusable):
        await service.allow_host(sandbox, "other.example", once=False)
    with pytest.raises(StoreUnusable):
        await service.deny_host(sandbox, "h.example")
    assert (proxy.allowed, proxy.denied) == ((), ("h.example",))
    assert (await service.egress(sandbox)).denied == ("h.example",)


async def test_a_network_without_a_proxy(service: Manager, world: World) -> None:
    sandbox, _ = await made(service, world, network="none")
    with pytest.raises(Conflict, match="'none'"):
        await service.allow_host(sandbox, "h.example", once=False)
    with pytest.raises(Conflict, match="'none'"):
        await service.deny_host(sandbox, "h.example")
    found = await service.egress(sandbox)
    assert (found.network, found.open) == ("none", False)
    assert not (await asked(service, sandbox, 0.02)).satisfied


async def test_the_settings_bound_what_may_be_allowed(world: World) -> None:
    bound = ("*.example", "h.test:8443", "index.example")
    world.settings = replace(world.settings, egress_hosts=bound)
    async with world.service() as service:
        sandbox, proxy = await made(service, world, "a.example", "index.example:443")
        for host, once in (("a.test", False), ("github", False), ("h.test", True)):
            with pytest.raises(Forbidden, match="egress_hosts") as refused:
                await service.allow_host(sandbox, host, once=once)
            assert (refused.value.field, refused.value.choices) == ("host", bound)
            with pytest.raises(Forbidden, match="egress_hosts") as refused:
                await made(service, world, host)
            assert refused.value.field == "allow_hosts"
        proxy.ask("a.example", port=22)  # what was asked for widens nothing
        await eventually(lambda: len(registry(service).find(sandbox).pending) == 1)
        with pytest.raises(Forbidden, match=r"a\.example:22"):
            await service.allow_host(sandbox, "a.example", once=True)
        assert proxy.once == []
        await service.allow_host(sandbox, "a.example:443", once=True)
        assert proxy.once == [("a.example", 443)]
        await service.allow_host(sandbox, "*.b.example:443", once=False)
        await service.deny_host(sandbox, "a.test")
        assert proxy.allowed == ("a.example", "index.example:443", "*.b.example:443")
        assert len(await service.list()) == 1


@pytest.mark.parametrize(
    ("pattern", "wide", "inside"),
    [
        ("a.example", "*", True),
        ("a.example", "a.example", True),
        ("*.a.example", "*.example.", False),
        ("*.a.example", "*.a.example", True),
        ("b.a.example", "*.a.example", True),
        ("*.b.a.example", "*.a.example", True),
        ("a.example", "*.a.example", False),
        ("xa.example", "*.a.example", False),
        ("*.a.example", "a.example", False),
        ("a.example:443", "a.example", True),
        ("a.example:80", "a.example", True),
        ("a.example:22", "a.example", False),
        ("a.example", "a.example:443", False),
        ("b.a.example:22", "*.a.example:22", True),
    ],
)
def test_one_rule_within_another(pattern: str, wide: str, inside: bool) -> None:
    assert within(pattern, wide) is inside


async def test_too_many_rules(service: Manager, world: World) -> None:
    with pytest.raises(InvalidInput, match="too many"):
        await made(service, world, *(f"h{number}.example" for number in range(257)))
    with pytest.raises(InvalidInput) as refused:
        await made(service, world, "127.0.0.1")
    assert refused.value.field == "allow_hosts"


# --- the life of a proxy


async def test_a_proxy_that_dies_is_started_anew(service: Manager, world: World) -> None:
    sandbox, proxy = await made(service, world, "github")
    await service.deny_host(sandbox, "h.example")
    world.doors_fail = 1
    proxy.die()
    await eventually(lambda: world.proxies[sandbox].door)
    new = world.proxies[sandbox]
    assert new is not proxy
    assert (new.allowed, new.denied) == (PRESETS["github"], ("h.example",))
    assert world.restarts == 2
    await eventually(lambda: registry(service).live[sandbox].gate)
    assert (await service.egress(sandbox)).open
    new.ask("late.example")
    assert (await asked(service, sandbox)).satisfied
    told = await kinds(service, sandbox)
    assert told[1:4] == ["egress_closed", "warning", "egress_opened"]
    assert "its egress proxy failed" in (await service.get(sandbox)).warnings[0]


async def test_a_proxy_that_is_away(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules are kept for it; nothing gets out meanwhile, so nothing fails."""
    monkeypatch.setattr(gatekeeper, "_SHORTEST", 0.3)
    sandbox, proxy = await made(service, world)
    proxy.die()
    await eventually(lambda: registry(service).live[sandbox].gate is None)
    with pytest.raises(EgressFailed, match="away"):
        await service.allow_host(sandbox, "h.example", once=True)
    found = await service.allow_host(sandbox, "h.example", once=False)
    assert (found.open, found.allowed) == (False, ("h.example",))
    await eventually(lambda: world.proxies[sandbox].door)
    assert world.proxies[sandbox].allowed == ("h.example",)


async def test_a_proxy_that_takes_no_rules_does_not_go_on_by_old_ones(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_ANSWER_SECONDS", 0.05)
    sandbox, proxy = await made(service, world, "h.example")
    proxy.deaf = True
    await service.deny_host(sandbox, "h.example")
    await eventually(lambda: world.proxies[sandbox].door)
    assert proxy.dead.is_set()
    assert world.proxies[sandbox].denied == ("h.example",)
    world.proxies[sandbox].deaf = True
    with pytest.raises(EgressFailed, match="did not answer"):
        await service.allow_host(sandbox, "h.example", once=True)


async def test_a_caller_that_goes_away_leaves_no_half_rule(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_ANSWER_SECONDS", 0.05)
    sandbox, proxy = await made(service, world, "h.example")
    proxy.deaf = True
    calling = asyncio.create_task(service.deny_host(sandbox, "h.example"))
    await asyncio.sleep(0.01)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    await eventually(lambda: world.proxies[sandbox].denied == ("h.example",))


async def test_a_paused_sandbox_gets_its_way_out_after_the_pause(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeper, "_LONGEST", 0.05)
    sandbox, proxy = await made(service, world)
    await service.pause(sandbox)
    proxy.die()
    await asyncio.sleep(0.3)
    assert world.restarts == 0
    await service.resume(sandbox)
    await eventually(lambda: world.proxies[sandbox].door)


async def test_a_daemon_that_is_restarted_adopts_the_proxy(world: World) -> None:
    async with world.service() as service:
        sandbox, proxy = await made(service, world, "github")
        await service.allow_host(sandbox, "a.example", once=False)
        await service.deny_host(sandbox, "b.example")
        proxy.ask("h.example", 3)
        await asked(service, sandbox)
        await eventually(lambda: events(service).last >= 4)
    proxy.allowed = proxy.denied = ()  # as if the daemon had died before it told
    proxy.ask("meanwhile.example")
    async with world.service() as service:
        assert world.restarts == 0
        assert (await service.egress(sandbox)).open
        assert proxy.allowed == (*PRESETS["github"], "a.example")
        assert proxy.denied == ("b.example",)
        await eventually(lambda: len(registry(service).find(sandbox).pending) == 2)
        await eventually(lambda: events(service).last >= 6)
        record = await service.get(sandbox)
        assert names(record) == ["h.example:443", "meanwhile.example:443"]
        assert record.pending[0].count == 3
        # An event follows its record. What was pending is not told anew.
        async with asyncio.timeout(10):
            while (await kinds(service, sandbox)).count("egress_request") < 2:
                await asyncio.sleep(0.01)
        assert (await kinds(service, sandbox)).count("egress_request") == 2
        await service.delete(sandbox)


async def test_a_daemon_that_is_restarted_starts_a_dead_proxy(world: World) -> None:
    async with world.service() as service:
        sandbox, proxy = await made(service, world, "github")
    proxy.die()
    async with world.service() as service:
        await eventually(lambda: world.proxies[sandbox].door)
        assert world.proxies[sandbox].allowed == PRESETS["github"]
        await service.delete(sandbox)


# --- what it tried, and whether it holds


async def test_the_log_is_shown_and_added_up(service: Manager, world: World) -> None:
    sandbox, _ = await made(service, world)
    more: dict[str, Any] = {"host": "h.example", "port": 443}
    world.lines = [
        Connection(time=1.0, verdict=Verdict.ASKED, **more),
        Connection(time=2.0, verdict=Verdict.ALLOWED, sent=5, received=7, **more),
        Connection(time=9.0, verdict=Verdict.FAILED, sent=1, **more),
        Connection(time=3.0, verdict=Verdict.FORBIDDEN, host="10.0.0.1", port=80),
    ]
    world.tried = [TriedHost(**more, allowed=2, refused=1, sent=6, received=7, last=9.0)]
    found = await service.egress(sandbox)
    assert found.hosts == tuple(world.tried)
    assert found.connections == tuple(world.lines)


BROKEN = Probe(name="raw", protects="the network", outcome=Outcome.BROKEN, detail="a socket")
UNTESTED = Probe(name="dns", protects="names", outcome=Outcome.UNTESTED, detail="no tool")


async def test_isolation_is_verified(service: Manager, world: World) -> None:
    sandbox, _ = await made(service, world, verify=True)
    assert (await service.verify_isolation(sandbox)).held
    await service.pause(sandbox)
    with pytest.raises(Conflict, match="paused"):
        await service.verify_isolation(sandbox)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((BROKEN, UNTESTED), r"does not hold: raw \(the network\): a socket$"),
        ((UNTESTED,), r"could not be tested: dns \(names\): no tool$"),
        ((), "no attack was tried"),
    ],
)
async def test_one_that_does_not_hold_is_taken_back(
    service: Manager, world: World, rows: tuple[Probe, ...], words: str
) -> None:
    world.probes = rows
    with pytest.raises(CreateFailed, match=words) as failed:
        await made(service, world, verify=True)
    assert failed.value.stage == "verify"
    assert not world.trees
    (record,) = await service.list()
    assert record.state is SandboxState.FAILED
    assert not (world.settings.state_dir / "sandboxes" / record.id).exists()


async def test_a_verification_that_takes_too_long(
    service: Manager, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creator, "VERIFY_SECONDS", 0.0)
    monkeypatch.setattr(calls, "VERIFY_SECONDS", 0.0)
    sandbox, _ = await made(service, world)

    async def slow(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(type(world.pieces().prober), "probe", slow)
    with pytest.raises(CsbError, match="not verified within"):
        await service.verify_isolation(sandbox)
    with pytest.raises(CreateFailed, match="not verified within"):
        await made(service, world, verify=True)
