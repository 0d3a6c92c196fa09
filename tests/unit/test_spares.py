"""Spares on pieces in memory: when there are some, who gets one, and that none is ever left."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.errors import Conflict, CreateFailed, HostUnable, TerminalFailed
from csb_mcp.host.network.outlook import outlook
from csb_mcp.model import Folders, Geometry, Sandbox, SandboxSpec, SandboxState
from csb_mcp.service import spares
from csb_mcp.service.ground import Ground
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
    assert await store(service).spares() == {}
    only(world, {sandbox.id for sandbox in await service.list()})


def only(world: World, known: set[str]) -> None:
    """Nothing else is on the host."""
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
        kept = await create(service, world)
        await a_spare(service)
    only(world, {kept.id})
    async with world.service() as service:
        assert await store(service).spares() == {}


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
        await eventually(lambda: world.settings.runtime_dir / spare not in world.trees)
        await a_spare(service)
        assert spare not in await store(service).spares()


async def test_a_name_that_is_taken_costs_no_spare(world: World) -> None:
    async with world.service() as service:
        await create(service, world, name="taken")
        spare = await a_spare(service)
        with pytest.raises(Conflict, match="taken"):
            await create(service, world, name="taken")
        assert (await create(service, world)).id == spare


async def fails(*_: object, **__: object) -> None:
    raise HostUnable("no room")


async def test_a_create_that_fails_on_a_spare_is_tried_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        monkeypatch.setattr(backend(service), "show_project", fails)
        made = await create(service, world)
        assert (made.id, made.state) == (spare, SandboxState.RUNNING)
        assert len(world.trees) == 2
        assert registry(service).live[made.id].terminal is world.trees[_runtime(world, spare)]
        await a_spare(service)


async def test_one_that_fails_in_any_case_takes_its_spare_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        monkeypatch.setattr(backend(service), "prepare", fails)
        with pytest.raises(CreateFailed, match="no room") as caught:
            await create(service, world)
        assert (caught.value.sandbox, caught.value.stage) == (spare, "prepare")
        assert _runtime(world, spare) not in world.trees
        assert not _runtime(world, spare).exists()
        await a_spare(service)


async def test_a_create_that_is_cancelled_on_a_spare_leaves_a_row_as_long_as_a_tree(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        first = await create(service, world)
        spare = await a_spare(service)
        rows = store(service)
        insert, inserted = rows.insert, asyncio.Event()

        async def slow(sandbox: Sandbox) -> None:
            await insert(sandbox)
            inserted.set()
            await asyncio.sleep(0.05)

        kept: list[bool] = []
        undo = Ground.undo

        async def watched(ground: Ground) -> bool:
            done = await undo(ground)
            kept.append(ground.sandbox.id in {one.id for one in await rows.all()})
            return done

        monkeypatch.setattr(rows, "insert", slow)
        monkeypatch.setattr(Ground, "undo", watched)
        work = asyncio.create_task(create(service, world))
        await inserted.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert kept == [True]
        assert [sandbox.id for sandbox in await rows.all()] == [first.id]
        assert _runtime(world, spare) not in world.trees


async def test_a_cancelled_create_whose_spare_does_not_end_keeps_its_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        await create(service, world)
        spare = await a_spare(service)
        rows = store(service)
        insert, inserted = rows.insert, asyncio.Event()

        async def told(sandbox: Sandbox) -> None:
            await insert(sandbox)
            inserted.set()
            await asyncio.sleep(0.05)

        async def does_not(_: Ground) -> bool:
            return False

        monkeypatch.setattr(rows, "insert", told)
        with monkeypatch.context() as patch:
            patch.setattr(Ground, "undo", does_not)
            work = asyncio.create_task(create(service, world))
            await inserted.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        assert spare in {sandbox.id for sandbox in await rows.all()}
    async with world.service() as service:
        assert _runtime(world, spare) not in world.trees


async def test_one_that_does_not_end_stays_known(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.service() as service:
        first = await create(service, world)
        spare = await a_spare(service)
        standing(service).clear()  # the daemon is killed
    monkeypatch.setattr(spares, "_LEFT_SECONDS", 0.05)

    async def hangs(folders: Folders, _: object) -> Any:
        if folders.runtime.name == spare:
            raise TerminalFailed("tmux runs and does not answer")
        return world.trees.get(folders.runtime)

    made = world.pieces
    monkeypatch.setattr(world, "pieces", lambda: _with_adopt(made(), hangs))
    async with world.service() as service:
        assert await store(service).spares() == {spare: first.uid}
        assert _runtime(world, spare).exists()
        assert first.uid in registry(service).uids()
    monkeypatch.setattr(world, "pieces", made)
    async with world.service() as service:
        assert await store(service).spares() == {}
        assert _runtime(world, spare) not in world.trees


def _with_adopt(found: Pieces, adopt: Any) -> Pieces:
    found.terminals.adopt = adopt  # pyright: ignore[reportAttributeAccessIssue]
    return found


async def test_a_defect_in_the_end_of_one_keeps_no_daemon_from_its_sandboxes(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.service() as service:
        first = await create(service, world)
        await a_spare(service)
        standing(service).clear()
    with monkeypatch.context() as patch:

        async def broken(_: Ground) -> bool:
            raise OSError(5, "input/output error")

        patch.setattr(Ground, "undo", broken)
        async with world.service() as service:
            assert registry(service).live.keys() == {first.id}
            assert "is not ended: OSError" in caplog.text
            await create(service, world)
            await a_spare(service)
    async with world.service() as service:
        await none_is_left(world, service)


def another(*_: object) -> int:
    return os.geteuid() + 1


async def test_spares_of_another_uid_make_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a root daemon: of a project that cannot be mapped, then of one that can."""
    async with world.service() as service:
        await create(service, world)
        before = await a_spare(service)
        monkeypatch.setattr(backend(service), "choose_uid", another)
        assert (await create(service, world)).id != before
        await eventually(lambda: standing(service) and standing(service)[0].sandbox.id != before)
        assert standing(service)[0].sandbox.uid == os.geteuid() + 1


async def test_one_that_is_taken_while_others_are_ended_is_no_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spares, "_CALM_SECONDS", 0.02)
    world = World(tmp_path, spares=2)
    async with world.service() as service:
        await create(service, world)
        await a_spare(service, 2)
        await asyncio.gather(create(service, world, gl=True), create(service, world))
        await eventually(lambda: len(standing(service)) == 2)
        assert "Traceback" not in caplog.text


def _runtime(world: World, sandbox_id: str) -> Path:
    return world.settings.runtime_dir / sandbox_id


async def test_one_that_cannot_be_made_harms_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.service() as service:
        first = await create(service, world)
        await a_spare(service)

        monkeypatch.setattr(backend(service), "ground", fails)
        second = await create(service, world)
        assert second.id != first.id
        await eventually(lambda: "no room" in caplog.text)
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
        known = {sandbox.id for sandbox in await service.list()}
    only(world, known)


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
