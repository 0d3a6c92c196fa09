import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csb_mcp.errors import Conflict, StoreUnusable
from csb_mcp.host.store import SqliteStore
from csb_mcp.model import (
    Counted,
    EgressRequest,
    Geometry,
    KeptCount,
    Limits,
    ModelUsage,
    Sandbox,
    SandboxSpec,
    SandboxState,
)

_OF_WAY_OUT = ("allow_hosts", "secrets", "forward", "verify")


def sandbox(made: str = "a1234567", name: str | None = None) -> Sandbox:
    spec = SandboxSpec(
        project_dir=Path("/p q"),
        name=name,
        agent="command",
        command=("a", "b c", "é"),
        geometry=Geometry(640, 480),
        gl=True,
        memory=512 * 1024**2,
        cpus=0.5,
        pids=99,
        ttl=1.5,
        idle_timeout=60.0,
        network="allowlist",
        allow_hosts=("github", "*.example.org:8443"),
        secrets=("key",),
        forward=("git",),
        verify=True,
    )
    return Sandbox(
        id=made,
        spec=spec,
        name=name,
        state=SandboxState.CREATING,
        uid=1001,
        created_at=12.25,
        limits=Limits(asked={"ttl": "1.5s"}, enforced_by={"ttl": "csb-mcp"}),
        attach="tmux …",
        allowed_hosts=("github", "*.example.org:8443"),
        denied_hosts=("example.com",),
        pending=(
            EgressRequest(host="a.example", port=443, count=3, first=1.5, last=2.5, program="curl"),
        ),
        counted=KeptCount(
            run="r",
            now=Counted(models={"m": ModelUsage(input=1, cache_read=2)}, answers=1),
            before=Counted(uncounted=1, estimated=9, cut=1),
        ),
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db")
    yield opened
    await opened.close()


async def test_what_is_put_in_comes_out_of_a_new_connection(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "s.db")
    kept = sandbox(name="n")
    await first.insert(kept)
    changed = replace(
        kept, state=SandboxState.DEAD, reason="r", exit_status=3, ended_at=13.0, name=None
    )
    await first.insert(sandbox("b1234567"))
    await first.update(changed)
    await first.close()
    second = await SqliteStore.open(tmp_path / "s.db")
    assert await second.all() == [changed, sandbox("b1234567")]
    await second.close()


async def test_a_record_of_the_first_version_has_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = await SqliteStore.open(path)
    await first.insert(sandbox())
    await first.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        record = json.loads(db.execute("select record from sandboxes").fetchone()[0])
        for name in ("memory", "cpus", "pids", "idle_timeout", *_OF_WAY_OUT):
            del record["spec"][name]
        for name in ("allowed_hosts", "denied_hosts", "pending", "counted"):
            del record[name]
        db.execute("update sandboxes set record=?", (json.dumps(record),))
        db.execute("drop table spares")
        db.execute("pragma user_version=1")
    second = await SqliteStore.open(path)
    (kept,) = await second.all()
    assert await second.spares() == {}
    await second.close()
    assert (kept.spec.memory, kept.spec.cpus) == (4 * 1024**3, None)
    assert (kept.spec.pids, kept.spec.idle_timeout) == (1024, None)
    assert (kept.spec.allow_hosts, kept.spec.secrets, kept.spec.forward) == ((), (), ())
    assert (kept.allowed_hosts, kept.denied_hosts, kept.pending) == ((), (), ())
    assert kept.spec.verify is False
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma user_version").fetchone() == (6,)


async def test_spares_are_kept_until_they_are_taken_or_ended(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    for name in ("a1234567", "b1234567", "c1234567"):
        await store.insert_spare(name, 4711)
    await store.insert(sandbox("a1234567"))
    await store.delete_spare("b1234567")
    await store.delete_spare("b1234567")
    await store.close()
    store = await SqliteStore.open(tmp_path / "s.db")
    assert await store.spares() == {"c1234567": 4711}
    await store.insert(sandbox("d1234567", name="n"))
    with pytest.raises(Conflict):
        await store.insert(sandbox("c1234567", name="n"))
    assert await store.spares() == {"c1234567": 4711}  # a refused name costs nothing
    await store.close()


async def test_the_environment_is_not_kept(store: SqliteStore, tmp_path: Path) -> None:
    secret = replace(sandbox(), spec=replace(sandbox().spec, env={"TOKEN": "s3cret-value"}))
    await store.insert(secret)
    assert (await store.all())[0].spec.env == {}
    for file in tmp_path.iterdir():
        assert b"s3cret-value" not in file.read_bytes()


async def test_a_name_is_given_once(store: SqliteStore) -> None:
    await store.insert(sandbox(name="n"))
    with pytest.raises(Conflict, match="'n'"):
        await store.insert(sandbox("b1234567", name="n"))
    await store.insert(sandbox("c1234567"))
    await store.insert(sandbox("d1234567"))
    await store.delete("a1234567")
    await store.insert(sandbox("e1234567", name="n"))


async def test_events_are_numbered_across_deletes_and_restarts(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "s.db")
    assert await store.last_event() == 0
    first = await store.append_event("a1234567", "created", {"k": "v"})
    other = await store.append_event("b1234567", "created", {})
    assert await store.events(0) == [first, other]
    assert await store.events(0, "b1234567") == [other]
    assert await store.events(first.sequence) == [other]
    last = await store.append_event("a1234567", "stopped", {})
    assert await store.recent_events("a1234567", 9) == [first, last]
    assert await store.recent_events("a1234567", 1) == [last]
    await store.delete("b1234567")
    await store.close()
    store = await SqliteStore.open(tmp_path / "s.db")
    assert await store.last_event() == last.sequence
    assert (await store.append_event("c", "x", {})).sequence > other.sequence
    await store.close()


@pytest.mark.parametrize(
    "spoil",
    [
        "pragma user_version=99",
        "pragma application_id=7",
        "update sandboxes set record='{'",
        "update sandboxes set record='{}'",
        "update sandboxes set record=json_set(record, '$.state', 'odd')",
    ],
)
async def test_a_store_that_is_not_understood_is_refused_and_left_alone(
    tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "s.db"
    store = await SqliteStore.open(path)
    await store.insert(sandbox())
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute(spoil)
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable):
        opened = await SqliteStore.open(path)
        try:
            await opened.all()
        finally:
            await opened.close()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database, and long enough to be looked at " * 40)
    with pytest.raises(StoreUnusable, match="cannot be used"):
        await SqliteStore.open(path)
    assert path.read_bytes().startswith(b"not a database")


async def test_many_writers_at_once_lose_nothing(store: SqliteStore) -> None:
    await asyncio.gather(*(store.append_event("a", "k", {"n": str(n)}) for n in range(200)))
    kept = await store.events(0)
    assert {event.data["n"] for event in kept} == {str(n) for n in range(200)}
    assert [event.sequence for event in kept] == sorted({event.sequence for event in kept})


async def test_what_belongs_to_agents(tmp_path: Path) -> None:
    first = await SqliteStore.open(tmp_path / "s.db")
    one, two, three = [await first.queue_prompt(name, f"{name} ä") for name in ("a", "b", "a")]
    await first.mark_prompt(two.id, 7)
    (event,) = await first.keep("a", [("stuck", {"why": "x"})], memory="m1", prompt=one.id)
    assert await first.keep("a", [], memory="m2") == []
    await first.keep("b", [("x", {}), ("y", {})], memory="m3")
    await first.close()
    second = await SqliteStore.open(tmp_path / "s.db")
    assert await second.prompts() == [replace(two, typed=7), three]
    assert await second.prompts("a") == [three]
    assert await second.memories() == {"a": "m2", "b": "m3"}
    assert await second.events(0, "a") == [event]
    assert [event.kind for event in await second.events(0)] == ["stuck", "x", "y"]
    await second.delete("b")
    assert (await second.memory("b"), await second.prompts()) == (None, [three])
    await second.close()


async def test_all_of_it_is_kept_or_nothing(store: SqliteStore) -> None:
    prompt = await store.queue_prompt("a", "x")
    bad: Any = [("fine", {}), (None, {})]
    with pytest.raises(StoreUnusable):
        await store.keep("a", bad, memory="m", prompt=prompt.id)
    assert (await store.memories(), await store.events(0)) == ({}, [])
    assert await store.prompts() == [prompt]


async def test_a_store_of_before_agents_were_kept_has_room_for_them(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await (await SqliteStore.open(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.executescript("drop table agents; drop table prompts; pragma user_version=4;")
    later = await SqliteStore.open(path)
    await later.keep("a", [], memory="m")
    assert (await later.memory("a"), await later.prompts()) == ("m", [])
    await later.close()
