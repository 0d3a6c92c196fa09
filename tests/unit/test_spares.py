"""Spares on pieces in memory: when there are some, who gets one, and that none is ever left."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.errors import Conflict, CreateFailed, HostUnable
from csb_mcp.host.network.outlook import outlook
from csb_mcp.model import Geometry, Sandbox, SandboxSpec
from csb_mcp.service import spares
from csb_mcp.service.manager import Manager
from csb_mcp.service.pieces import Pieces
from tests.support.fake_pieces import World, eventually, registry, standing, store


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(spares, "_CALM_SECONDS", 0.02)
    return World(tmp_path, spares=1)


def pieces(service: Manager) -> Pieces:
    return service._pieces  # pyright: ignore[reportPrivateUsage]


def backend(service: Manager) -> Any:
    return pieces(service).backends["bubblewrap"]


async def never(_: str) -> None:
    await asyncio.sleep(3600)


async def create(service: Manager, world: World, **changes: Any) -> Sandbox:
    return await service.create(SandboxSpec(project_dir=world.project, agent="shell", **changes))


async def a_spare(service: Manager, count: int = 1) -> str:
    """The id of the only one, once it stands."""
    await eventually(lambda: len(standing(service)) == count)
    return standing(service)[0].sandbox.id


async def none_is_left(world: World, service: Manager) -> None:
    """But of sandboxes that have a record."""
    known = {sandbox.id for sandbox in await service.list()}
    assert await store(service).spares() == {}
    assert {tree.name for tree in world.trees} <= known
    assert {path.name for path in (world.settings.state_dir / "sandboxes").iterdir()} <= known


async def test_the_next_create_takes_it_and_another_is_made(world: World) -> None:
    async with world.service() as service:
        first = await create(service, world)
        spare = await a_spare(service)
        assert await store(service).spares() == {spare: first.uid}
        assert [sandbox.id for sandbox in await service.list()] == [first.id]
        second = await create(service, world, name="mine", env={"A": "b"})
        assert (second.id, second.name, second.spec.project_dir) == (spare, "mine", world.project)
        assert second.created_at >= first.created_at
        assert spare in second.attach
        assert await a_spare(service) not in (first.id, spare)


async def test_it_ends_with_the_daemon(world: World) -> None:
    async with world.service() as service:
        await create(service, world)
        await a_spare(service)
    async with world.service() as service:
        assert standing(service) == []
        await none_is_left(world, service)


async def test_one_that_a_killed_daemon_left_is_ended_by_the_next(world: World) -> None:
    async with world.service() as service:
        kept = await create(service, world)
        spare = await a_spare(service)
        standing(service).clear()  # as if it had no time to end them
    runtime = world.settings.runtime_dir / spare
    assert runtime.is_dir()
    assert runtime in world.trees
    async with world.service() as service:
        await none_is_left(world, service)
        assert registry(service).uids() == {kept.uid}
        assert not runtime.exists()


async def test_only_what_is_like_it_stands_on_it(world: World) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        other = await create(service, world, geometry=Geometry(800, 600))
        assert other.id != spare
        await eventually(lambda: [s.sandbox.id for s in standing(service)] != [spare])
        like = await a_spare(service)
        assert standing(service)[0].sandbox.spec.geometry == Geometry(800, 600)
        assert (await create(service, world, geometry=Geometry(800, 600))).id == like
        await a_spare(service)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": "allowlist"},
        {"gl": True},
        {"memory": 1 << 30},
        {"pids": 99},
        {"cpus": 1.0},
    ],
)
async def test_what_is_made_before_the_payload_tells_spares_apart(
    world: World, changes: dict[str, Any]
) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        assert (await create(service, world, **changes)).id != spare


async def test_a_proxy_stands_beside_one(world: World) -> None:
    async with world.service() as service:
        await create(service, world, network="allowlist")
        spare = await a_spare(service)
        proxy = world.proxies[spare]
        assert proxy.allowed == ()
        made = await create(service, world, network="allowlist", allow_hosts=("a.example.org",))
        assert made.id == spare
        assert proxy.allowed == ("a.example.org",)


@pytest.mark.parametrize("harm", ["ended", "display", "silent", "moved"])
async def test_one_that_broke_is_ended_and_the_create_goes_on_without(
    world: World, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        terminal: Any = standing(service)[0].terminal
        if harm == "ended":
            terminal.running = False
        elif harm == "display":
            terminal.broken = "Fatal server error"
        elif harm == "silent":
            monkeypatch.setattr(spares, "_SOUND_SECONDS", 0.01)
            monkeypatch.setattr(terminal, "error_beside", never)
        else:
            world.address = "198.51.100.9"
        made = await create(service, world)
        assert made.id != spare
        assert world.settings.runtime_dir / spare not in world.trees
        assert spare not in await store(service).spares()


async def test_a_create_that_fails_takes_its_spare_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        await create(service, world, name="taken")
        await a_spare(service)
        with pytest.raises(Conflict, match="taken"):
            await create(service, world, name="taken")
        await none_is_left(world, service)
        await create(service, world)
        spare = await a_spare(service)

        async def fails(*_: object, **__: object) -> None:
            raise HostUnable("no room")

        monkeypatch.setattr(backend(service), "prepare", fails)
        with pytest.raises(CreateFailed, match="no room") as caught:
            await create(service, world)
        assert caught.value.sandbox == spare
        await none_is_left(world, service)


async def test_one_that_cannot_be_made_harms_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.service() as service:
        first = await create(service, world)
        await a_spare(service)

        async def fails(*_: object, **__: object) -> None:
            raise HostUnable("the disk is full")

        monkeypatch.setattr(backend(service), "ground", fails)
        second = await create(service, world)
        assert second.id != first.id
        await eventually(lambda: "the disk is full" in caplog.text)
        await none_is_left(world, service)
        monkeypatch.undo()
        monkeypatch.setattr(spares, "_CALM_SECONDS", 0.02)
        await create(service, world)
        await a_spare(service)


async def test_as_many_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "_CALM_SECONDS", 0.02)
    world = World(tmp_path, spares=3)
    async with world.service() as service:
        await create(service, world)
        await a_spare(service, 3)
        ids = {ground.sandbox.id for ground in standing(service)}
        made = await asyncio.gather(*(create(service, world) for _ in range(5)))
        assert len({sandbox.id for sandbox in made}) == 5
        assert ids < {sandbox.id for sandbox in made}
        await a_spare(service, 3)


async def test_none_if_the_settings_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "_CALM_SECONDS", 0.0)
    world = World(tmp_path, spares=0)
    async with world.service() as service:
        await create(service, world)
        await create(service, world)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert standing(service) == []
        assert await store(service).spares() == {}


async def test_a_daemon_that_ends_while_one_is_made_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()
    async with world.service() as service:
        await create(service, world)
        await a_spare(service)
        terminals: Any = pieces(service).terminals
        start = terminals.start

        async def slow(*arguments: Any) -> Any:
            await start(*arguments)
            begun.set()
            await asyncio.sleep(3600)

        monkeypatch.setattr(terminals, "start", slow)
        await create(service, world)  # takes the one that stands
        async with asyncio.timeout(10):
            await begun.wait()
    async with world.service() as service:
        await none_is_left(world, service)


def test_another_network_is_told_and_counters_are_not(tmp_path: Path) -> None:
    net, etc = tmp_path / "proc/net", tmp_path / "etc"
    net.mkdir(parents=True)
    etc.mkdir()
    (etc / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    route = "Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 0 C0000201 3 0 {} 0 0\n"
    (net / "route").write_text(route.format(7))
    six = "20010db8 40 0 00 fe80 400 {} {} 3 eth0\n"
    (net / "ipv6_route").write_text(six.format(1, 2))
    before = outlook("full", tmp_path)
    (net / "route").write_text(route.format(8))
    (net / "ipv6_route").write_text(six.format(3, 4))
    assert outlook("full", tmp_path) == before
    (net / "route").write_text(route.format(8).replace("C0000201", "C6336401"))
    assert outlook("full", tmp_path) != before
    (etc / "resolv.conf").write_text("nameserver 198.51.100.53\n")
    assert outlook("allowlist", tmp_path) != before
    assert outlook("none", tmp_path) == outlook("host", tmp_path) == ()
